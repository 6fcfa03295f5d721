"""Groups failures that have one cause, however their numbers, ids, quotes and paths differ."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from batchq.engine.delivered import NO_ANSWER
from batchq.errors import OutputError, ProviderError
from batchq.outcome import ItemError, Outcome

MAX_IDS = 1000
"""Most ids that a group keeps; `count` counts all of them."""

_FINGERPRINT_DIGITS = 8  # 32 bits; a run has some dozens of groups
_MESSAGE_CHARS = 2000  # of a longer message only the start tells failures apart

# In this order: a URL holds a path, a path holds quotes and numbers, an id holds numbers.
_NORMAL_FORMS = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>`]+", re.IGNORECASE), "<url>"),
    (re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`\n]*`|“[^”\n]*”|«[^»\n]*»'), "<text>"),
    (re.compile(r"(?<![A-Za-z0-9_])'(?:[^'\\\n]|\\.)*'(?![A-Za-z0-9_])"), "<text>"),
    (re.compile(r"(?<![\w<>./])(?:[A-Za-z]:\\|~?\.{0,2}/)[^\s'\"<>:,;()]+"), "<path>"),
    (re.compile(r"\b(?=[a-zA-Z_-]*\d)[a-zA-Z0-9]+(?:[_-][a-zA-Z0-9]+)+\b"), "<id>"),
    (re.compile(r"\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{6,}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"[-+]?\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?", re.IGNORECASE), "<n>"),
    (re.compile(r"<n>(?:(?:\s*,\s*|\s+)<n>)+"), "<n>"),
    (re.compile(r"\s+"), " "),
)

_ADVICE = {
    "auth": "mend the key or the account first",
    "bad_request": "the request itself is wrong: mend the model, the options or the prompt",
    "cancelled": "it was stopped before it was done",
    "command": "another try may help if the program fails now and then",
    "context_too_long": "shorten the prompt or the item, or choose a larger model",
    "internal": "a fault in batchq: please report it",
    "limit": "raise `timeout`, or lower what one request needs",
    "memory": "let fewer run at a time (`resources: {memory: 6G}`), or let one need less",
    "no_answer": "what came back of the upload has no line for it: it may answer in another",
    "not_json": "another answer may be JSON; an `output_schema` helps the model",
    "not_serializable": "mend the function: it has to return JSON",
    "prompt": "mend the prompt: it names what the item does not have",
    "refused": "the model declines: change the prompt or the item",
    "resources": "lower `resources`, or run it where there is more",
    "setup": "mend the `setup` function: no task of this process can begin",
    "schema": "another answer may fit the schema",
    "task": "another try helps only if the function fails now and then",
    "task_not_allowed": "allow the module in the worker's settings",
    "task_not_found": "make the module importable where the workers run",
    "truncated": "raise `options.max_tokens`",
    "worker_lost": "its process died: look for memory or crashes in the worker's log",
}


def _kinds(of: type[ProviderError] | type[OutputError]) -> Iterator[tuple[str, bool]]:
    for kind in of.__subclasses__():
        yield kind.kind, issubclass(kind, OutputError) or bool(getattr(kind, "retryable", False))


_RETRY_HELPS = {
    **dict(_kinds(ProviderError)),
    **dict(_kinds(OutputError)),
    "cancelled": True,
    "command": True,
    "limit": True,
    NO_ANSWER: True,
    "task": True,
    "worker_lost": True,
}
_TRY_AGAIN = "the cause passes by itself: try again"


@dataclass(frozen=True, slots=True)
class Failure:
    """One item that failed in one step."""

    item_id: str
    step: str
    error: ItemError


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures with one fingerprint; the sample is the first of them, in input order."""

    fingerprint: str
    kind: str
    pattern: str
    count: int
    steps: tuple[str, ...]
    item_ids: tuple[str, ...]
    sample: Failure
    can_retry: bool
    advice: str


def failure_of(outcome: Outcome, step: str) -> Failure | None:
    """The failure in an outcome; None if it is ok."""
    return Failure(outcome.item_id, step, outcome.error) if outcome.error else None


def group_failures(failures: Iterable[Failure]) -> list[FailureGroup]:
    """Groups failures by kind and normalised message, the largest group first."""
    groups: dict[str, FailureGroup] = {}
    ids: dict[str, dict[str, None]] = {}
    for failure in failures:
        pattern = normalise(failure.error.message, failure.item_id)
        key = fingerprint(failure.error.kind, pattern)
        group = groups.get(key) or _new_group(key, pattern, failure)
        known = ids.setdefault(key, {})
        if len(known) < MAX_IDS:
            known[failure.item_id] = None
        steps = group.steps if failure.step in group.steps else (*group.steps, failure.step)
        groups[key] = replace(group, count=group.count + 1, steps=steps)
    found = [replace(group, item_ids=tuple(ids[key])) for key, group in groups.items()]
    return sorted(found, key=lambda group: (-group.count, group.kind, group.fingerprint))


def group_of(item_id: str, error: ItemError) -> str:
    """The fingerprint of the group that a failure is in."""
    return fingerprint(error.kind, normalise(error.message, item_id))


def normalise(message: str, item_id: str = "") -> str:
    """Replaces what differs from item to item: its id, URLs, quotes, paths, ids and numbers."""
    text = message[:_MESSAGE_CHARS]
    if item_id and not item_id.isdigit():  # a number is replaced below, whatever it means
        text = re.sub(rf"(?<!\w){re.escape(item_id)}(?!\w)", "<id>", text)
    for pattern, form in _NORMAL_FORMS:
        text = pattern.sub(form, text)
    return text.strip()


def fingerprint(kind: str, pattern: str) -> str:
    """The short name of a group; the same in every run."""
    digest = hashlib.sha256(f"{kind}\0{pattern}".encode(errors="backslashreplace"))
    return digest.hexdigest()[:_FINGERPRINT_DIGITS]


def _new_group(key: str, pattern: str, failure: Failure) -> FailureGroup:
    kind = failure.error.kind
    can_retry = _RETRY_HELPS.get(kind, False)
    advice = _ADVICE.get(kind) or (
        _TRY_AGAIN if can_retry else "look at the sample, mend its cause"
    )
    return FailureGroup(key, kind, pattern, 0, (), (), failure, can_retry, advice)
