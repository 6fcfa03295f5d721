from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from batchq.embedded.leftovers import Record, birth_of, hold_lock, stop_leftovers, write_records
from batchq.embedded.parts import Part, Rank
from batchq.embedded.stack import Stack, clean_up, start_stack
from batchq.errors import QueueError
from batchq.settings import Settings, redis_client_url

WaitFor = Callable[..., None]


def settings_for(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def python_part(stack: Stack, name: str, code: str, rank: Rank = Rank.WORKER) -> Part:
    log = str(stack.logs / f"{name}.log")
    return Part(name, (sys.executable, "-u", "-c", textwrap.dedent(code)), log, rank)


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


OWNER = """
    import sys, time
    from pathlib import Path
    from batchq.embedded.parts import Part, Rank
    from batchq.embedded.stack import start_stack
    from batchq.settings import Settings

    busy = "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + busy
    with start_stack(Settings(home=Path(sys.argv[1]))) as stack:
        stack.wait_for_redis()
        log = str(stack.logs / "busy.log")
        stack.launch(Part("busy", (sys.executable, "-c", deaf), log, Rank.WORKER))
        print("up", flush=True)
        time.sleep(600)
"""


def start_owner(tmp_path: Path, wait_for: WaitFor) -> subprocess.Popen[str]:
    """A process with a stack: supervisor, Redis, and a part that ignores SIGTERM, with a child."""
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), str(tmp_path / "home")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout
    assert owner.stdout.readline() == "up\n"
    wait_for(
        lambda: any("sleep" in child.name() for child in children_of(owner.pid)), "the parts run"
    )
    return owner


def test_when_the_owner_is_killed_nothing_goes_on(tmp_path: Path, wait_for: WaitFor) -> None:
    owner = start_owner(tmp_path, wait_for)
    processes = children_of(owner.pid)
    assert len(processes) == 4

    owner.kill()
    owner.communicate()

    wait_for(lambda: not any(process.is_running() for process in processes), "all have ended", 8)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PDEATHSIG is Linux")
def test_when_the_supervisor_is_killed_redis_and_workers_end_too(
    tmp_path: Path, wait_for: WaitFor
) -> None:
    owner = start_owner(tmp_path, wait_for)
    supervisor, *parts = children_of(owner.pid)

    supervisor.kill()

    direct = [part for part in parts if part.name() != "sleep"]
    wait_for(lambda: not any(part.is_running() for part in direct), "the parts have ended")
    owner.kill()
    owner.communicate()
    for process in parts:
        if process.is_running():
            process.kill()

    (config,) = (tmp_path / "home").glob("runs/*/redis/redis.conf")
    socket = Path(config.read_text().split('unixsocket "')[1].split('"')[0])
    clean_up(tmp_path / "home")
    assert not socket.parent.exists() or socket.parent == config.parent


def test_a_part_that_dies_is_started_again(tmp_path: Path, wait_for: WaitFor) -> None:
    with start_stack(settings_for(tmp_path)) as stack:
        marks = tmp_path / "marks"
        code = f"""
            import os, time
            open({str(marks)!r}, "a").write(f"{{os.getpid()}}\\n")
            time.sleep(600)
        """
        stack.launch(python_part(stack, "worker", code))
        wait_for(lambda: marks.exists() and marks.read_text(), "the part runs")
        first = psutil.Process(int(marks.read_text()))
        wait_for(lambda: time.time() > first.create_time() + 1.6, "it counts as up")

        first.kill()

        wait_for(lambda: len(marks.read_text().split()) == 2, "it runs again")
        stack.check()


def test_a_part_that_cannot_start_is_reported_with_its_last_words(
    tmp_path: Path, wait_for: WaitFor
) -> None:
    with start_stack(settings_for(tmp_path)) as stack:
        stack.launch(python_part(stack, "llm", "raise SystemExit('no such module: demo')"))

        with pytest.raises(QueueError, match=r"(?s)llm ended \(exit 1\).*no such module: demo"):
            wait_for(lambda: stack.check(), "it gives up")


def test_redis_that_is_killed_comes_back_with_its_data(tmp_path: Path, wait_for: WaitFor) -> None:
    with start_stack(settings_for(tmp_path)) as stack:
        stack.wait_for_redis()
        with redis.Redis.from_url(redis_client_url(stack.broker_url)) as client:
            wait_for(lambda: client.info("server")["uptime_in_seconds"] >= 2, "it is up")
            client.set("outcome", "kept")
            client.execute_command("WAITAOF", 1, 0, 2000)
            pid = client.info("server")["process_id"]

            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not psutil.pid_exists(pid), "it is gone")
            stack.wait_for_redis()

            assert client.get("outcome") == b"kept"


def test_two_stacks_at_once_have_their_own_redis(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)

    with start_stack(settings) as one, start_stack(settings) as two:
        one.wait_for_redis()
        two.wait_for_redis()

        assert one.broker_url != two.broker_url
        assert one.folder != two.folder


def test_a_second_stack_for_the_same_run_is_refused(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)

    with start_stack(settings) as one:
        one.serve_run("r1")

        with (
            pytest.raises(QueueError, match="Another batchq works on r1"),
            start_stack(settings, "r1"),
        ):
            pytest.fail("it must not start")


def test_a_stack_for_a_run_finds_the_data_of_the_one_before(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with start_stack(settings) as stack:
        stack.serve_run("r1")
        stack.wait_for_redis()
        with redis.Redis.from_url(redis_client_url(stack.broker_url)) as client:
            client.set("outcome", "paid for")

    with start_stack(settings, "r1") as stack:
        stack.wait_for_redis()
        with redis.Redis.from_url(redis_client_url(stack.broker_url)) as client:
            value = client.get("outcome")

    assert value == b"paid for"


def test_leftovers_of_a_dead_stack_are_stopped_and_its_data_is_kept(
    tmp_path: Path, wait_for: WaitFor
) -> None:
    folder = tmp_path / "runs" / "old"
    (folder / "redis" / "data").mkdir(parents=True)
    left = subprocess.Popen(["sleep", "600"], start_new_session=True)
    write_records(folder, [Record("llm", left.pid, birth_of(left.pid))])
    (scratch := tmp_path / "batchq-scratch").mkdir()
    (scratch / "pymp-1").mkdir()
    (folder / "scratch").write_text(str(scratch))

    stopped = clean_up(tmp_path)

    assert stopped == ["llm"]
    assert left.wait(5) == -signal.SIGKILL
    assert (folder / "redis" / "data").exists()
    assert not scratch.exists()


def test_a_process_that_only_has_the_number_of_an_old_one_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    write_records(tmp_path, [Record("llm", other.pid, "long ago")])

    stopped = stop_leftovers(tmp_path)

    still_runs = other.poll() is None
    other.kill()
    other.wait()
    assert stopped == []
    assert still_runs


def test_a_stack_that_is_alive_is_not_cleaned_up(tmp_path: Path) -> None:
    with start_stack(settings_for(tmp_path)) as stack:
        stack.wait_for_redis()

        assert clean_up(tmp_path / "home") == []
        assert hold_lock(stack.folder) is None
        stack.wait_for_redis()


def test_a_stack_that_served_no_run_leaves_no_files(tmp_path: Path) -> None:
    with start_stack(settings_for(tmp_path)) as stack:
        stack.wait_for_redis()
        folder = stack.folder

    assert not folder.exists()
