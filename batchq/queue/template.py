"""The text of a message, in which only what differs from task to task is filled in."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from celery.utils import uuid
from kombu import Producer
from kombu.utils.json import JSONEncoder, dumps

_UUID_PARTS = (0, 8), (8, 12), (13, 16), (17, 20), (20, 32)
_encode: Callable[[Any], str] = JSONEncoder(ensure_ascii=False).encode


def envelope_of(channel: Any, body: Any, **options: Any) -> tuple[str, Any]:
    """The key that `publish` of a producer puts a message under, and what; declares its queue."""
    paper: Any = _Paper(channel)
    Producer(paper, auto_declare=False).publish(body, **options)
    ((queue, text),) = paper.put
    return queue, json.loads(text)


class _Paper:
    """Stands in for a channel of kombu's, and keeps what it would put into Redis."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.put: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def basic_publish(self, message: Any, **options: Any) -> Any:
        """Lets the channel write a message, and takes what it writes."""
        return self._channel.basic_publish(message, _publish_batch=self, **options)

    def add(self, _command: str, queue: str, text: str) -> None:
        """Keeps what goes into a queue."""
        self.put.append((queue, text))


class Template:
    """Made of the envelope of one task of a group, as kombu would send it.

    `seal` makes a body's text what the envelope says it is.
    """

    def __init__(
        self, envelope: Mapping[str, Any], kwargs: Any, embed: Any, seal: Callable[[str], bytes]
    ) -> None:
        headers, properties = dict(envelope["headers"]), dict(envelope["properties"])
        mark = uuid()
        has_own_root = headers["root_id"] == headers["id"]
        for field in ("id", "group_index", "argsrepr", *(("root_id",) if has_own_root else ())):
            headers[field] = f"{mark}:{field.removeprefix('root_')}"
        properties["correlation_id"] = f"{mark}:id"
        properties["delivery_tag"] = f"{mark}:tag"
        if "argsrepr" in properties:
            properties["argsrepr"] = f"{mark}:argsrepr"
        text = dumps(
            {**envelope, "body": f"{mark}:body", "headers": headers, "properties": properties}
        )
        parts = re.split(f'"{mark}:(\\w+)"', text)
        self._texts, self._names = parts[::2], parts[1::2]
        self._rest = _encode([kwargs, embed])[1:]
        self._seal = seal

    def fill_all(self, first_id: str, calls: Sequence[tuple[Any, str]]) -> Iterator[str]:
        """The texts of the messages of tasks with these (args, argsrepr); the first has an id."""
        names = _uuids(2 * len(calls))
        for index, (args, argsrepr) in enumerate(calls):
            task_id, tag = next(names), next(names)
            yield self._fill(task_id if index else first_id, tag, index, args, argsrepr)

    def _fill(self, task_id: str, tag: str, index: int, args: Any, argsrepr: str) -> str:
        body = self._seal(f"[{_encode(args)}, {self._rest}")
        values = {
            "id": f'"{task_id}"',
            "group_index": str(index),
            "argsrepr": json.dumps(argsrepr),
            "tag": f'"{tag}"',
            "body": f'"{base64.b64encode(body).decode()}"',
        }
        filled = [self._texts[0]]
        for name, text in zip(self._names, self._texts[1:], strict=True):
            filled += (values[name], text)
        return "".join(filled)


def _uuids(count: int) -> Iterator[str]:
    """So many names as uuid4 gives them, for a tenth of its time."""
    digits = os.urandom(16 * count).hex()
    for at in range(0, len(digits), 32):
        a, b, c, d, e = (digits[at + start : at + end] for start, end in _UUID_PARTS)
        yield f"{a}-{b}-4{c}-a{d}-{e}"
