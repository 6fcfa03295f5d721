"""Answers `batchq doctor`: what a worker or a coordinator can see from where it is.

Only workers import this. The command is signed as tasks are, where there is a key.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from celery.worker.control import inspect_command

from batchq.errors import BatchqError
from batchq.host.apikeys import read_api_key
from batchq.queue import heart
from batchq.queue.names import CONTROL_QUEUE
from batchq.queue.probe import LOOK, SEEN, answer_file, read_token, token_file, write_token

if TYPE_CHECKING:
    from batchq.services import Services

_PATIENCE_S = 2.0
_TOKEN = re.compile(r"[0-9a-f]{32}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,100}")


@inspect_command(name=LOOK)
def look(
    state: Any,
    token: str = "",
    folders: Sequence[str] = (),
    variables: Sequence[str] = (),
    run: str = "",
) -> dict[str, Any]:
    """Tells which keys are not here and, for a coordinator, what it sees of folders and catalog."""
    is_coordinator = CONTROL_QUEUE in state.app.amqp.queues.consume_from
    seen = _folders(token, folders) if is_coordinator and _TOKEN.fullmatch(token) else {}
    lacks_run = bool(is_coordinator and run and _lacks(state.app.services, run))
    missing = [name for name in variables if _VARIABLE.fullmatch(name) and not _has_key(name)]
    name = heart.worker_name(os.getpid())
    return {"name": name, "folders": seen, "missing": missing, "lacks_run": lacks_run}


def _lacks(services: Services, run: str) -> bool:
    """Whether a run is not in the catalog that is set here; without, each run brings its own."""
    if not services.settings.catalog_url:
        return False
    found: list[bool] = []

    def look_for_it() -> None:
        try:
            found.append(services.listing.run(run) is not None)
        except BatchqError:
            found.append(False)

    _within_patience(look_for_it)
    return not any(found)


def _has_key(variable: str) -> bool:
    try:
        read_api_key(variable, os.environ)
    except ValueError:
        return False
    return True


def _folders(token: str, folders: Sequence[str]) -> Mapping[str, str]:
    """What is wrong with each folder, or SEEN."""
    seen = dict.fromkeys(folders, f"it does not answer within {_PATIENCE_S:g} s")

    def look_at_all() -> None:
        for folder in folders:
            seen[folder] = _look_at(token, folder)

    _within_patience(look_at_all)
    return dict(seen)


def _within_patience(look: Callable[[], None]) -> None:
    """Looks at something that may hang, for which a worker's own thread has no time."""
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)


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
