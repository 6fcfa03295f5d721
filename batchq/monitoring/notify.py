"""Tells webhooks of a run: puts letters into the outbox, and sends what is in it.

A letter is sent at least once: it is taken out of the outbox when somebody has answered it well.
Who died between the two sends it again, under the same id.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from batchq.errors import BatchqError
from batchq.host.apikeys import read_api_key
from batchq.ledger.outbox import Letter
from batchq.monitoring.notices import event_for, notice, slack_message
from batchq.plan import Hook
from batchq.ports import RunInfo
from batchq.records import RunRecord
from batchq.services import Services

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
TAKEN_S = TIMEOUT_S + 5.0
"""For so long nobody else sends a letter that was taken."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 300.0
MOST_TRIES = 20
"""About an hour; then the letter is given up."""
_AGAIN = frozenset({408, 425, 429})
_SCHEMES = ("http", "https")


class NotSent(Exception):
    """Raised when a webhook did not take a letter; its words never hold the address."""

    def __init__(self, why: str, *, is_final: bool = False) -> None:
        self.is_final = is_final
        super().__init__(why)


def announce(info: RunInfo, record: RunRecord, reason: str, services: Services) -> None:
    """Puts what the run's hooks are to be told of its new state into the outbox, once."""
    if not info.plan.notify:
        return
    about = services.ledger.about(info.run)
    # A run that goes on may come to the same state again, and that is news.
    moment = f"{about.get('counted_from', '')}:{about.get('since', '')}"
    for number, hook in enumerate(info.plan.notify):
        event = event_for(hook, record.state, reason)
        if event is not None:
            name = f"{info.run}:{number}:{event}:{moment}"
            told = notice(info, record, reason, event, name)
            services.outbox.put(Letter(name, info.run, number, told), time.time())


def send_due(services: Services, clock: Callable[[], float] = time.time) -> None:
    """Sends every letter that is due; one that fails is due again later."""
    for letter in services.outbox.take(clock(), again_s=TAKEN_S):
        try:
            _send(letter, services)
        except NotSent as error:
            _keep_or_give_up(letter, error, services, clock())
        else:
            services.outbox.remove(letter)


def send_all(run: str, services: Services, deadline_s: float) -> bool:
    """Sends the letters of a run whose coordinator is about to end; says whether all went.

    It takes no longer than that, however slowly a webhook answers.
    """
    thread = threading.Thread(target=_send_while_waiting, args=(run, services), daemon=True)
    thread.start()
    thread.join(deadline_s)
    return not services.outbox.waiting(run)


def _send_while_waiting(run: str, services: Services) -> None:
    with suppress(BatchqError):  # nobody waits any more, and Redis has ended
        while services.outbox.waiting(run):
            send_due(services)
            time.sleep(0.1)


def next_try(letter: Letter, error: NotSent) -> float | None:
    """In how many seconds a letter that was not sent is tried again; None if it is given up."""
    if error.is_final or letter.tries + 1 >= MOST_TRIES:
        return None
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**letter.tries))


def log_not_sent(letter: Letter, error: NotSent, *, is_over: bool) -> None:
    """Logs that a webhook was not told."""
    log.warning(
        "a webhook was not told that %s %s (try %d): %s%s",
        letter.notice.get("name"),
        letter.notice.get("event"),
        letter.tries + 1,
        error,
        "; it is given up" if is_over else "",
        extra={"run": letter.run},
    )


def _keep_or_give_up(letter: Letter, error: NotSent, services: Services, now: float) -> None:
    delay_s = next_try(letter, error)
    log_not_sent(letter, error, is_over=delay_s is None)
    if delay_s is None:
        services.outbox.remove(letter)
    else:
        services.outbox.postpone(replace(letter, tries=letter.tries + 1), now + delay_s)


def _send(letter: Letter, services: Services) -> None:
    """Sends one letter; raises NotSent."""
    try:
        info = services.info(letter.run)
    except BatchqError as error:
        raise NotSent(f"its run cannot be read: {error}") from error
    if info is None or letter.hook >= len(info.plan.notify):
        raise NotSent("its run is not known any more", is_final=True)
    deliver(info.plan.notify[letter.hook], letter)


def deliver(hook: Hook, letter: Letter) -> None:
    """Tells a webhook; raises NotSent."""
    is_slack = hook.format == "slack"
    body = slack_message(letter.notice) if is_slack else dict(letter.notice)
    _post(hook, body, letter.name)


def _post(hook: Hook, body: Any, name: str) -> None:
    import requests  # takes time that a coordinator without hooks does not have

    headers = {"Content-Type": "application/json", "Idempotency-Key": name}
    try:
        url = read_api_key(hook.url_env, os.environ)
        if hook.token_env:
            headers["Authorization"] = f"Bearer {read_api_key(hook.token_env, os.environ)}"
    except ValueError as error:
        raise NotSent(str(error)) from error  # it may be set when this process is started anew
    if urlsplit(url).scheme not in _SCHEMES:
        raise NotSent(f"{hook.url_env} holds no http address", is_final=True)
    try:
        answer = requests.post(
            url,
            data=json.dumps(body, allow_nan=False),
            headers=headers,
            timeout=TIMEOUT_S,
            allow_redirects=False,  # elsewhere nobody is to get the token
        )
    except requests.RequestException as error:
        # The words of the error hold the address, and with it maybe a secret.
        raise NotSent(f"{hook.url_env}: {type(error).__name__}") from None
    if not 200 <= answer.status_code < 300:
        is_final = answer.status_code < 500 and answer.status_code not in _AGAIN
        raise NotSent(f"{hook.url_env} answered {answer.status_code}", is_final=is_final)
