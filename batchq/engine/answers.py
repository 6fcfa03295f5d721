"""Names requests, and takes answers that were paid before from the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from batchq.errors import StoreError
from batchq.outcome import Json, Usage
from batchq.ports import Cache, ChatRequest, KeptAnswer

log = logging.getLogger(__name__)

T = TypeVar("T")

REQUEST_FORMAT = 1
"""Raised when the providers build another body of the same request: old answers then miss."""

ANSWER_FORMAT = 1
REST_S = 30.0


def key_parts(request: ChatRequest) -> dict[str, Json]:
    """Everything that decides the answer to a request, by name.

    Keys, limits, prices and timeouts do not. The address of a simulator that batchq starts is
    another one in each run, so that its options stand for it.
    """
    provider = request.provider
    return {
        "format": REQUEST_FORMAT,
        "kind": provider.kind,
        "base_url": "" if provider.is_started else provider.base_url.rstrip("/"),
        "simulator": dict(provider.simulator),
        "model": provider.model,
        "system": request.system,
        "messages": [[message.role, message.content] for message in request.messages],
        "options": dict(request.options),
        "schema": None if request.schema is None else dict(request.schema),
    }


def cache_key(request: ChatRequest) -> str:
    """The name of a request: the same for the same parts, whatever the order of their keys."""
    text = json.dumps(key_parts(request), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def encode_answer(answer: KeptAnswer) -> str:
    """Writes an answer as JSON, in ASCII, so that every database takes it."""
    usage = answer.usage
    return json.dumps(
        {
            "v": ANSWER_FORMAT,
            "text": answer.text,
            "model": answer.model,
            "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
            "stored_at": answer.stored_at,
        }
    )


def decode_answer(text: str) -> KeptAnswer | None:
    """Reads what `encode_answer` wrote; None for anything else, such as another format."""
    try:
        data = json.loads(text)
        if data["v"] != ANSWER_FORMAT:
            return None
        usage = Usage(1, int(data["usage"]["input_tokens"]), int(data["usage"]["output_tokens"]))
        return KeptAnswer(str(data["text"]), str(data["model"]), usage, float(data["stored_at"]))
    except (KeyError, TypeError, ValueError):
        return None


def decode_answers(texts: Iterable[tuple[str, str | None]]) -> dict[str, KeptAnswer]:
    """Reads those of many answers that are there and can be read, by their keys."""
    found = ((key, decode_answer(text)) for key, text in texts if text is not None)
    return {key: answer for key, answer in found if answer is not None}


class Answers:
    """The cache as stages use it: it is opened when first used, and never fails an item.

    A cache that fails is logged once, and left alone for 30 s so that calls do not wait for it.
    """

    def __init__(
        self, open_cache: Callable[[], Cache], clock: Callable[[], float] = time.time
    ) -> None:
        self._open = open_cache
        self._clock = clock
        self._cache: Cache | None = None
        self._opening = threading.Lock()
        self._rests_until = float("-inf")
        self._has_complained = False
        self._asked: dict[str, threading.Event] = {}

    def find(self, key: str, max_age_s: float | None) -> KeptAnswer | None:
        """The answer to a request, unless there is none or it is older than that."""
        found = self._ask(lambda cache: cache.get(key))
        if found is None or max_age_s is None or self._clock() - found.stored_at < max_age_s:
            return found
        return None

    def keep(self, key: str, text: str, model: str, usage: Usage) -> None:
        """Keeps an answer that could be used, in place of an older one."""
        answer = KeptAnswer(text, model, usage, self._clock())
        self._ask(lambda cache: cache.put(key, answer))

    @contextmanager
    def turn(self, key: str) -> Iterator[bool]:
        """Waits while another thread of this process asks the same; says whether it waited.

        Who waited does not keep others waiting: if the first one got no answer, all of them ask.
        """
        mine = threading.Event()
        first = self._asked.setdefault(key, mine)  # atomic: one of many threads is the first
        if first is not mine:
            first.wait()
            yield True
            return
        try:
            yield False
        finally:
            del self._asked[key]
            mine.set()

    def _ask(self, question: Callable[[Cache], T]) -> T | None:
        if self._clock() < self._rests_until:
            return None
        try:
            return question(self._opened())
        except StoreError as error:
            self._rests_until = self._clock() + REST_S
            if not self._has_complained:
                self._has_complained = True
                log.error("answers are neither taken from the cache nor kept: %s", error)
            return None

    def _opened(self) -> Cache:
        with self._opening:
            if self._cache is None:
                self._cache = self._open()
            return self._cache
