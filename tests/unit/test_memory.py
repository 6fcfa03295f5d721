"""What a container may use, and that somebody was killed in it, by the files of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchq.host import memory


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "_WHOLE_HOST", tmp_path / "vmstat")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_host_may_use_what_it_has(host: Path) -> None:
    assert memory.host_memory() > 2**26
    assert memory.oom_kills() == 0


def test_a_container_may_use_the_least_of_its_groups(host: Path) -> None:
    write(host / "own", "0::/pod/box\n")
    write(host / "groups/pod/box/memory.max", "max\n")
    write(host / "groups/pod/memory.max", "30000000\n")

    assert memory.host_memory() == 30_000_000


def test_a_container_of_the_first_version_has_other_files(host: Path) -> None:
    write(host / "own", "9:cpu:/\n4:memory:/box\n0::/\n")
    write(host / "groups/memory/box/memory.limit_in_bytes", "20000000\n")
    write(host / "groups/memory/box/memory.oom_control", "under_oom 0\noom_kill 3\n")
    write(host / "vmstat", "oom_kill 70\n")

    assert memory.host_memory() == 20_000_000
    assert memory.oom_kills() == 3


def test_kills_of_the_own_group_go_before_those_of_the_host(host: Path) -> None:
    write(host / "own", "0::/box\n")
    write(host / "vmstat", "pgfault 9\noom_kill 70\n")

    before = memory.oom_kills()
    write(host / "groups/box/memory.events", "oom 2\noom_kill 1\n")

    assert (before, memory.oom_kills()) == (70, 1)
