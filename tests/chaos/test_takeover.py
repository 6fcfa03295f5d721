"""A run whose processes die, or whose disk fills up, at any write ends with the same run folder.

Here a few of the writes, others each time; `make chaos` walks through all of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

WALK = Path(__file__).with_name("takeover.py")


@pytest.mark.parametrize(
    ("role", "scenario", "options"),
    [
        ("coordinator", "complete", ("--every", "30")),
        ("coordinator", "paused", ("--every", "60", "--fault", "torn")),
        ("coordinator", "failed", ("--every", "20")),
        ("coordinator", "cancelled", ("--every", "20")),
        ("worker", "complete", ("--every", "25", "--fault", "torn")),
        ("coordinator", "leftovers", ("--every", "90")),
        ("coordinator", "complete", ("--every", "25", "--fault", "full")),
    ],
)
def test_a_run_that_is_hit_at_any_write_ends_with_the_folder_of_an_undisturbed_one(
    role: str, scenario: str, options: tuple[str, ...]
) -> None:
    walk = [sys.executable, str(WALK), "--role", role, "--scenario", scenario, *options]

    done = subprocess.run(walk, capture_output=True, text=True)

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line for line in lines[1:] if line["wrong"]] == [], done.stderr[-3000:]
    assert done.returncode == 0, done.stderr[-3000:]
    assert lines[0]["writes"] > len(lines) - 1 > 1
