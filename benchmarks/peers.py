"""The same calls through batchq and through other clients, one after the other in one run.

Every client is told the same limit, sends its prompts to a fresh server of the same kind, and has
the time from the start of its process to its end, imports and all. The server tells what came.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleet import server

from batchq.embedded.server import start_redis
from batchq.settings import Settings

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".bench"
CALLS = 300
DEADLINE_S = 60
MANIFEST = """
name: peer{first}
config: {{output_dir: out}}
providers:
  sim: {{kind: openai, base_url: "{url}/v1", model: m, limits: {{rpm: {rpm}}}}}
steps:
  - name: ask
    input: items.json
    prompt: |
      {{text}}
"""


@dataclass(frozen=True)
class Client:
    """A peer: the script that drives it and the environment that it has."""

    name: str
    script: str = ""

    @property
    def python(self) -> Path:
        return ENVIRONMENTS / self.name / "bin" / "python"

    @property
    def is_here(self) -> bool:
        return not self.script or (ENVIRONMENTS / self.name / ".made").exists()


OURS = Client("batchq")
CLIENTS = (OURS, Client("curator", "peer_curator.py"), Client("cookbook", "peer_cookbook.py"))
Measured = tuple[str, str, str, bool | None]


def compare(rpm: int) -> Iterator[Measured]:
    """Each client alone, then in two processes that share the limit and the calls."""
    for processes in (1, 2):
        how = "alone" if processes == 1 else "in two processes"
        for client in CLIENTS:
            what = f"{CALLS} calls by {client.name} {how}"
            if not client.is_here:
                yield what, "not installed: run `make bench-setup`", "", None
                continue
            yield what, *_measure(client, processes, rpm)


def _measure(client: Client, processes: int, rpm: int) -> tuple[str, str, bool | None]:
    ideal_s = (CALLS - rpm / 60) * 60 / rpm
    with (
        tempfile.TemporaryDirectory(prefix="bq") as name,
        server(latency_ms=300, rpm=rpm, burst_s=1) as one,
        _surroundings(client, processes, Path(name)) as env,
    ):
        began = time.perf_counter()
        share = CALLS // processes
        children = [
            _start(client, one.url, share, number * share, rpm, Path(name), env)
            for number in range(processes)
        ]
        valid = [_valid(client, child, began + DEADLINE_S) for child in children]
        took_s = time.perf_counter() - began
        seen, _ = one.seen()
    if None in valid:
        done = f"stopped at {DEADLINE_S} s with {len(seen.admitted)} answered"
    else:
        done = f"{took_s:.1f} s, {sum(filter(None, valid))} valid"
    figures = f"{done}, {seen.refused} 429s"
    if client is not OURS:
        return figures, f"(ideal {ideal_s:.0f} s)", None
    is_reached = not seen.refused and sum(filter(None, valid)) == CALLS
    return figures, f"no 429, all valid (ideal {ideal_s:.0f} s)", is_reached


@contextmanager
def _surroundings(client: Client, processes: int, folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a client's processes; for two of batchq, a broker with workers."""
    env = {**os.environ, "HOME": str(folder), "BATCHQ_BROKER_URL": ""}
    if client is not OURS or processes == 1:
        yield env
        return
    redis = start_redis(folder / "redis", Settings())
    env["BATCHQ_BROKER_URL"] = redis.url
    command = [sys.executable, "-m", "batchq", "up", "-c", "16", "--workers", "1"]
    workers = subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
    try:
        assert workers.stderr is not None
        workers.stderr.readline()
        _wait_for_workers(env, folder)
        yield env
    finally:
        workers.terminate()
        workers.wait()
        redis.stop()


def _wait_for_workers(env: dict[str, str], folder: Path) -> None:
    doctor = [sys.executable, "-m", "batchq", "doctor"]
    deadline = time.monotonic() + 30
    while subprocess.run(doctor, cwd=folder, env=env, capture_output=True).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError("no worker came up")


def _start(
    client: Client, url: str, calls: int, first: int, rpm: int, folder: Path, env: dict[str, str]
) -> subprocess.Popen[str]:
    own = folder / f"{first}"
    own.mkdir()
    if client is not OURS:
        command = [client.python, HERE / client.script, url, str(calls), str(first), str(rpm)]
    else:
        rows = [{"text": f"Say something about number {first + n}."} for n in range(calls)]
        (own / "items.json").write_text(json.dumps(rows))
        (own / "m.yaml").write_text(MANIFEST.format(url=url, rpm=rpm, first=first))
        command = [sys.executable, "-m", "batchq", "submit", "m.yaml", "--json"]
    return subprocess.Popen(
        command, cwd=own, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _valid(client: Client, child: subprocess.Popen[str], deadline: float) -> int | None:
    """How many valid answers a client says it has; None if it has not ended in time."""
    try:
        said, _ = child.communicate(timeout=max(0.1, deadline - time.perf_counter()))
    except subprocess.TimeoutExpired:
        child.terminate()
        child.communicate()
        return None
    if client is OURS:
        return int(json.loads(said)["items"]["ok"])
    return int(json.loads(said.splitlines()[-1])["valid"])


if __name__ == "__main__":
    sys.exit("run `python benchmarks/limits.py peers`")
