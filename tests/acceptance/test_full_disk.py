"""A disk that is full, then read-only, then sound again, under a run: nothing is torn or lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ITEMS = 60
MANIFEST = f"""
version: 1
name: big
config: {{output_dir: disk/outputs}}
steps:
  - name: grow
    input: {{generate: {ITEMS}}}
    task: "big_tasks:grow"
    batch_size: 10
"""
TASKS = """
from pathlib import Path

def grow(item):
    with open(Path(__file__).with_name("calls.txt"), "a") as file:
        file.write("one\\n")
    return {"text": "x" * 20_000}
"""


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


@pytest.fixture
def disk(project: Any) -> Iterator[Path]:
    """A small disk of its own."""
    place = project.folder / "disk"
    place.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)):
        pytest.skip("this user may not mount a small disk; test_takeover fills one up without")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_run_whose_disk_is_full_or_read_only_pauses_and_goes_on_without_new_calls(
    project: Any, disk: Path
) -> None:
    project.write("big_tasks.py", TASKS)
    project.write("m.yaml", MANIFEST)

    full = project.run("submit", "m.yaml")
    torn = [path for path in disk.rglob("*.json*") if not is_whole(path)]
    made = calls(project)
    mount("-o", "remount,size=32m,ro", str(disk))
    read_only = project.run("resume", "big@v0")
    mount("-o", "remount,rw", str(disk))
    sound = project.run("resume", "big@v0")

    assert full.returncode == 5, full.stderr
    assert "the disk is full: free some space" in full.stdout + full.stderr
    assert torn == []
    assert "read-only" in read_only.stdout + read_only.stderr
    assert "Traceback" not in full.stderr + read_only.stderr
    assert sound.returncode == 0, sound.stderr
    (collated,) = (disk / "outputs/big/v0/collated").iterdir()
    rows = json.loads(collated.read_bytes())
    assert len(rows) == ITEMS
    assert calls(project) == ITEMS >= made
    assert not list((disk / "outputs/big/v0/state/tmp").iterdir())


def calls(project: Any) -> int:
    return len((project.folder / "calls.txt").read_text().split())


def is_whole(path: Path) -> bool:
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    try:
        for line in lines:
            json.loads(line)
    except ValueError:
        return False
    return True
