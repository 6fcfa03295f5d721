"""Answers `batchq doctor`: what a worker or a coordinator can see from where it is.

Only workers import this. The command is signed as tasks are, where there is a key.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from celery.worker.control import inspect_command

from batchq.apikeys import read_api_key
from batchq.errors import BatchqError
from batchq.queue import heart
from batchq.queue.names import CONTROL_QUEUE
from batchq.queue.probe import LOOK, SEEN, answer_file, read_token, token_file, write_token

_PATIENCE_S = 3.0
_TOKEN = re.compile(r"[0-9a-f]{32}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,100}")


@inspect_command(name=LOOK)
def look(
    state: Any, token: str = "", folders: Sequence[str] = (), variables: Sequence[str] = ()
) -> dict[str, Any]:
    """Tells which keys are not here and, for a coordinator, what it sees of the folders."""
    is_coordinator = CONTROL_QUEUE in state.app.amqp.queues.consume_from
    seen = _folders(token, folders) if is_coordinator and _TOKEN.fullmatch(token) else {}
    missing = [name for name in variables if _VARIABLE.fullmatch(name) and not _has_key(name)]
    return {"name": heart.worker_name(os.getpid()), "folders": seen, "missing": missing}


def _has_key(variable: str) -> bool:
    try:
        read_api_key(variable, os.environ)
    except ValueError:
        return False
    return True


def _folders(token: str, folders: Sequence[str]) -> Mapping[str, str]:
    """What is wrong with each folder, or SEEN; a worker's own thread waits for no store."""
    seen = dict.fromkeys(folders, f"it does not answer within {_PATIENCE_S:g} s")

    def look_at_all() -> None:
        for folder in folders:
            seen[folder] = _look_at(token, folder)

    thread = threading.Thread(target=look_at_all, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    return dict(seen)


def _look_at(token: str, folder: str) -> str:
    """Reads the token that the asker wrote, and writes one beside it.

    Where there is no token nothing is written: who asks can write there itself.
    """
    try:
        found = read_token(folder, token_file(token))
        if found is None:
            return "it does not see there what you wrote: it has another folder of this name"
        if found != token:
            return "it reads another token there than you wrote"
        write_token(folder, answer_file(token, os.getpid()), token)
    except (BatchqError, OSError) as error:
        return str(error)
    return SEEN
