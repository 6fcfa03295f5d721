"""How `bench.py` drives a side: a process of its own, a line of JSON a question and an answer.

A side is started as `PYTHON SIDE.py KIND SLOTS`, told of the Redis by its environment, with a
Python that need not have batchq. KIND is `cpu` (as many processes as slots) or `io` (one process,
as many calls at a time). It starts its workers, says that it is ready, and does one job after the
other until its input ends. Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
URL = "SIDE_REDIS"
CHAT = "/v1/chat/completions"
WARM_UP = 40


@dataclass(frozen=True)
class Job:
    """What is asked of a side: `runs` fans of `items` items, each with its end, at once.

    The time runs from handing the first over to having the end of the last, or to having handed
    it over where nobody `waits` for it. For `task` see work.py; `post` calls the server at `url`.
    """

    task: str
    items: int
    runs: int = 1
    size: int = 0
    url: str = ""
    waits: bool = True
    deadline_s: float = 240.0

    def arguments(self) -> Iterator[dict[str, Any]]:
        """The items themselves."""
        for number in range(self.items):
            item: dict[str, Any] = {"index": number, "number": number + 1}
            if self.size:
                item["text"] = "x" * self.size
            if self.url:
                item["url"] = self.url + CHAT
            yield item


class Late(Exception):
    """Raised when a job is not done within its deadline."""


def serve(packages: tuple[str, ...], do: Callable[[Job], None]) -> None:
    """Answers questions until there are no more; to be called when the workers are on their way."""
    do(Job("noop", WARM_UP, deadline_s=300))
    _say({"ready": {name: version(name) for name in packages}})
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        try:
            do(Job(**asked))
        except Late:
            _say({"late": True})
            os._exit(1)  # what is left over must not slow the next one
        _say({"seconds": time.perf_counter() - began})


def _say(answer: dict[str, Any]) -> None:
    sys.__stdout__.write(json.dumps(answer) + "\n")
    sys.__stdout__.flush()


@contextmanager
def workers(*commands: list[str]) -> Iterator[None]:
    """Runs worker processes beside the block; their logs go where the harness sends ours."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path}
    children = [
        subprocess.Popen(one, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        for one in commands
    ]
    _end_with_parent()
    try:
        yield
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()


def _end_with_parent() -> None:
    """Leaves by the usual way when the harness ends us, so that no worker stays."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def wait_for(client: Any, key: str, count: int, deadline_s: float) -> None:
    """Waits for so many entries in a list, which the ends of fans write; raises Late."""
    end = time.monotonic() + deadline_s
    for _ in range(count):
        while client.blpop([key], timeout=1) is None:  # for less than a client's own patience
            if time.monotonic() > end:
                raise Late


def command(module: str, *arguments: str) -> list[str]:
    """A command of this side's environment."""
    return [sys.executable, "-m", module, *arguments]
