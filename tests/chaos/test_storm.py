"""A short storm; `make chaos` has one of five minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STORM = Path(__file__).with_name("storm.py")


def test_every_item_comes_through_a_storm_of_kills_stops_cuts_and_restarts() -> None:
    storm = [sys.executable, str(STORM), "--seconds", "8", "--items", "150"]

    done = subprocess.run(storm, capture_output=True, text=True)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    assert "all is well" in done.stdout
