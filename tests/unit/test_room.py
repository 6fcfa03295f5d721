from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from batchq.engine.calling import NotNow
from batchq.engine.room import Room
from batchq.errors import TaskError
from batchq.plan import Resources
from batchq.workplace import LocalWorkplace


def take_elsewhere(room: Room, need: Resources, slots: int, memory: int) -> bool:
    """Another thread asks, as another job would."""
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(room.take(need, slots, memory)))
    thread.start()
    thread.join()
    return found[0]


def test_what_is_reserved_is_not_given_twice(tmp_path: Path) -> None:
    room = Room(tmp_path)

    assert room.take(Resources(1, 600), 4, 1000)
    assert not take_elsewhere(room, Resources(1, 500), 4, 1000)
    assert not take_elsewhere(room, Resources(4, 0), 4, 1000)
    assert take_elsewhere(room, Resources(3, 400), 4, 1000)


def test_what_is_given_back_can_be_taken(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.take(Resources(4, 1000), 4, 1000)

    room.give_back()

    assert take_elsewhere(room, Resources(4, 1000), 4, 1000)


def test_what_a_dead_process_held_is_free(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from batchq.engine.room import Room; "
        "from batchq.plan import Resources; "
        "print(Room(Path(sys.argv[1])).take(Resources(4, 9), 4, 9))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert done.stdout == "True\n"
    assert Room(tmp_path).take(Resources(4, 9), 4, 9)


def test_a_file_that_was_cut_off_is_as_good_as_none(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.take(Resources(), 1, 1)
    (path,) = tmp_path.glob("room-*.json")
    path.write_text('{"1": [')

    assert room.take(Resources(), 1, 1)
    assert list(json.loads(path.read_text()).values()) == [[1, 0]]


class Alive:
    def __init__(self, **hosts: tuple[int, int]) -> None:
        self.hosts = hosts

    def alive(self) -> dict[str, dict[str, object]]:
        return {
            name: {"role": "worker", "host": name, "slots": slots, "memory": memory}
            for name, (slots, memory) in self.hosts.items()
        }


def reserve(tmp_path: Path, need: Resources, **hosts: tuple[int, int]) -> None:
    place = LocalWorkplace(lambda: Alive(**hosts), lambda: None, tmp_path)  # type: ignore[arg-type, return-value]
    with place.reserve(need, lambda _: pytest.fail("nothing to wait for")):
        pass


def test_a_job_that_fits_on_no_host_is_refused_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"needs 1 slots and 1048576.0 GiB of memory") as caught:
        reserve(tmp_path, Resources(1, 2**50), other=(4, 2**40))

    assert caught.value.kind == "resources"


def test_a_job_that_fits_on_another_host_is_left_to_it(tmp_path: Path) -> None:
    with pytest.raises(NotNow):
        reserve(tmp_path, Resources(1, 2**50), other=(4, 2**51))
