"""What can be done on the pages: each action reads a form and says what it did."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import tornado.web

from batchq.actions import acts
from batchq.actions.lookup import Found, find_over, find_resumable
from batchq.embedded.stack import live_broker_url
from batchq.errors import BatchqError, QueueError, RunNotFound, UsageError
from batchq.ports import RunInfo
from batchq.web.handlers import SAID, Handler
from batchq.web.limits_page import set_limit
from batchq.web.query import read_query
from batchq.web.reader import Reader

Form = Mapping[str, str]
LOG = "pages.log"
"""In the home folder: what the commands said that were started for a form."""
START_S = 8.0

_FIELDS = ("kind", "group", "label", "note", "id", "verdict", "provider", "limit", "amount")
_ENDED_WELL = (0, 3)
log = logging.getLogger("batchq.web")


def pause(_reader: Reader, found: Found, _: Form) -> str:
    """Lets no item begin any more."""
    if found.services is None:
        raise UsageError(f"{found.name} is not in flight: nothing to stop")
    acts.pause(found)
    return f"{found.name} is pausing: what is in flight will be finished."


def cancel(reader: Reader, found: Found, _: Form) -> str:
    """Ends a run early."""
    is_over = acts.cancel(found, reader.services)
    return f"{found.name} is {'' if is_over else 'being '}cancelled."


def unpause(reader: Reader, found: Found, _: Form) -> str:
    """Goes on with a run that stopped."""
    info = _resumable(reader, found)
    _go_on(reader, found, "resume", ["--accept-drift"], lambda: info)
    return f"{found.name} goes on."


def approve(reader: Reader, found: Found, _: Form) -> str:
    """Lets a run go on after its first items."""
    info = _resumable(reader, found)
    acts.approve(info)
    _go_on(reader, found, "resume", ["--accept-drift"], lambda: info)
    return f"{found.name} is approved and goes on."


def retry(reader: Reader, found: Found, form: Form) -> str:
    """Runs what failed once more: all of it, a kind, or a group."""
    record = find_over(found.run, reader.settings)
    which = acts.Which(form.get("kind") or None, form.get("group") or None)
    total, _ = acts.count_failed(record, which)
    if not total:
        raise UsageError(f"{found.name}: nothing that failed so; it may have been tried again")
    options = ["--kind", which.kind] if which.kind else []
    options += ["--group", which.group] if which.group else []
    services = reader.services
    _go_on(reader, found, "retry", options, lambda: acts.reopen_failed(record, which, services))
    return f"{total:,} failed {'item is' if total == 1 else 'items are'} tried again."


def label(reader: Reader, found: Found, form: Form) -> str:
    """Gives a version another label, and a note."""
    if found.record is None:
        raise RunNotFound(f"{found.name} was submitted elsewhere: label it there")
    word, note = form.get("label", ""), form.get("note")
    acts.label(found.record, reader.version(found), word, note, reader.services)
    return f"{found.name} is {word}."


def mark(reader: Reader, found: Found, form: Form) -> str:
    """Marks an item as good or bad."""
    verdict = form.get("verdict", "")
    if verdict not in ("good", "bad"):
        raise UsageError(f"an item is good or bad, not {verdict[:40]!r}")
    if found.record is None:
        raise RunNotFound(f"{found.name} was submitted elsewhere: mark its items there")
    item, note = form.get("id", ""), form.get("note", "")
    name = acts.mark(found.record, reader.version(found), item, verdict, note)
    return f"{name} is marked {verdict}."


ACTIONS: Mapping[str, Callable[[Reader, Found, Form], str]] = {
    one.__name__: one for one in (pause, cancel, unpause, approve, retry, label, mark)
}


def _resumable(reader: Reader, found: Found) -> RunInfo:
    info = find_resumable(found.run, reader.settings)
    if info is None:
        raise UsageError(f"{found.name} is complete: nothing to go on with")
    return info


def _go_on(
    reader: Reader, found: Found, command: str, options: list[str], begin: Callable[[], RunInfo]
) -> None:
    """Hands a run to its coordinator, or starts a command for it where there is no broker."""
    if reader.settings.broker_url:
        from batchq.queue.control import resume

        resume(begin(), reader.services, is_private=False)
        return
    _start(reader, found, [command, found.run, "--wait", *options])


def _start(reader: Reader, found: Found, words: list[str]) -> None:
    """Starts a command, and returns when the run goes on; raises QueueError if it does not."""
    path = reader.settings.home / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 (no shell; the run's id is from the catalog)
            [sys.executable, "-m", "batchq", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # it goes on when the pages are closed
        )
    threading.Thread(target=process.wait, daemon=True).start()
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if live_broker_url(reader.settings.home, found.run):
            return
        code = process.poll()
        if code is not None and code not in _ENDED_WELL:
            last = path.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
            raise QueueError(last[-1] if last else f"`batchq {words[0]}` ended with {code}")
        if code is not None:
            return
        time.sleep(0.05)


class ActionHandler(Handler):
    """An action on a run, by a form. A browser comes back to a page, a program gets JSON."""

    async def post(self, name: str, action: str) -> None:
        """Does it."""
        if action not in ACTIONS:
            raise tornado.web.HTTPError(404)
        form = self.form()
        reader = self.site.reader

        def act() -> tuple[str, str]:
            found = reader.found(name)
            return ACTIONS[action](reader, found, form), found.name

        said, shown = await self.do(action, act)
        item = {"id": form.get("id", "")} if action == "mark" else {}
        place = ("runs", shown, "item") if item else ("runs", shown)
        self.answer(said, self.site.templates.url(*place, **item))

    def form(self) -> dict[str, str]:
        """What the form says; refuses it where nothing may be changed."""
        if self.is_read_only:
            raise tornado.web.HTTPError(403, "These pages are read-only.")
        return read_query(self.request.body_arguments, _FIELDS, keep_empty=True)

    async def do(self, action: str, act: Callable[[], tuple[str, str]]) -> tuple[str, str]:
        """Does something and logs who did; what it may not, a person is told on the page."""
        who = self.current_user if isinstance(self.current_user, str) else self.request.remote_ip
        said, shown = await self.site.looker.run(act)
        log.info("%s %s by %s: %s", action, shown, who, said)
        return said, shown

    def answer(self, said: str, place: str) -> None:
        """Says what was done."""
        if self.is_json:
            self.write({"said": said})
            return
        self.go_to(place, "done", said)

    def go_to(self, place: str, kind: str, said: str) -> None:
        """Sends the browser to a page, which says what was done, or why not."""
        told = json.dumps({"kind": kind, "text": said[:1500]})
        path = f"{self.site.prefix}/"
        self.set_signed_cookie(
            SAID, told, expires_days=None, path=path, httponly=True, samesite="Lax"
        )
        self.redirect(place, status=303)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Says on the page that the form is on why it was refused."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if self.is_json or not isinstance(error, BatchqError) or isinstance(error, RunNotFound):
            super().write_error(status_code, **kwargs)
            return
        self.clear_header("Content-Type")
        self.set_status(303)
        self._reason = "See Other"
        self.go_to(self.back(), "refused", str(error))

    def back(self) -> str:
        """The page that a form is on."""
        return str(self.request.path).rpartition("/do/")[0]


class LimitHandler(ActionHandler):
    """Changes a limit of a provider."""

    async def post(self, *_: str) -> None:
        """Does it."""
        form = self.form()
        reader = self.site.reader
        words = [form.get(one, "") for one in ("provider", "limit", "amount")]

        def act() -> tuple[str, str]:
            return set_limit(reader, *words), words[0]

        said, _shown = await self.do("set limit", act)
        self.answer(said, self.site.templates.url("limits"))

    def back(self) -> str:
        """The page that the form is on."""
        return self.site.templates.url("limits")
