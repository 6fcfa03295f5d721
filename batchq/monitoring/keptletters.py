"""Letters that a run with a Redis of its own left unsent: in the home folder, until the next run.

Only one process sends them at a time. A file names the variables of the webhook, never what is in
them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from batchq.ledger.outbox import Letter
from batchq.monitoring.notify import NotSent, deliver, log_not_sent, next_try
from batchq.plan import Hook
from batchq.ports import RunInfo
from batchq.services import Services

FOLDER = "letters"
_LOCK = ".lock"


def keep_letters(info: RunInfo, services: Services) -> int:
    """Writes down what is still to be sent of a run whose Redis is about to end; says how many."""
    letters = services.outbox.of(info.run)
    folder = services.settings.home / FOLDER
    for letter in letters:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder, letter, info.plan.notify[letter.hook], due=0.0)
    return len(letters)


def send_kept(home: Path, clock: Callable[[], float] = time.time) -> None:
    """Sends the letters that are due of runs before; does nothing while another process does."""
    folder = home / FOLDER
    files = sorted(folder.glob("*.json"))  # none, nearly always
    if not files:
        return
    with _held(folder) as is_ours:
        for file in files if is_ours else ():
            with suppress(FileNotFoundError):  # it has just been sent
                _send(file, clock)


def _send(file: Path, clock: Callable[[], float]) -> None:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        letter = Letter(**told["letter"])
        hook = Hook(**told["hook"] | {"on": tuple(told["hook"]["on"])})
        due = float(told["due"])
    except (ValueError, KeyError, TypeError):
        file.unlink()  # not written by us
        return
    if due > clock():
        return
    try:
        deliver(hook, letter)
    except NotSent as error:
        again = next_try(letter, error)
        log_not_sent(letter, error, is_over=again is None)
        if again is not None:
            _write(file.parent, replace(letter, tries=letter.tries + 1), hook, clock() + again)
            return
    file.unlink()


def _write(folder: Path, letter: Letter, hook: Hook, due: float) -> None:
    name = hashlib.blake2b(letter.name.encode(), digest_size=12).hexdigest()
    temp = folder / f".{name}-{os.getpid()}"
    told = {"letter": asdict(letter), "hook": asdict(hook), "due": due}
    temp.write_text(json.dumps(told), encoding="utf-8")
    temp.replace(folder / f"{name}.json")


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Says whether no other process sends."""
    with (folder / _LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
