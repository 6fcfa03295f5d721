"""The Redis transport without redelivery: the ledger says what is in flight, and sends it again.

kombu's own keeps a copy of every message that a worker holds, and gives it to another worker once
the visibility timeout has passed: an item that takes longer runs twice, one whose worker was killed
waits that long, and each message costs two more round trips. A claim in the ledger does the same
job by heartbeats, so a message needs no copy.

What comes out of the broker is bounded before anything reads it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from json import JSONDecodeError
from queue import Empty
from typing import Any

from celery.app.amqp import AMQP
from celery.utils import uuid
from kombu import Connection
from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from batchq.broker.sentinels import SCHEME
from batchq.queue.serializer import MAX_MESSAGE_BYTES, PLAIN_TYPE

log = logging.getLogger(__name__)

FULL_S = 0.02
"""How long a full worker waits at a time where it is not told that an item has ended."""

MANY = 64
"""The most messages that a worker asks for at once."""

UNREAD = ("application/data", "application/text")
"""Content that kombu takes as it is, whatever a process accepts."""


class QoS(virtual.QoS):
    """Counts the messages that a worker holds, and puts them back when it stops."""

    def restore_unacked(self) -> list[Any]:  # type: ignore[override]  # the stub is wrong
        """Puts back what was not run; says that nothing is left over.

        kombu would write what it cannot put back, since Redis is gone, to a file in the temporary
        folder. The ledger finds these messages missing and sends them again.
        """
        unrestored: list[Any] = super().restore_unacked() or []
        if unrestored:
            log.warning("%d messages could not be put back, they come again", len(unrestored))
        return []


class Message(virtual.Message):
    """A message whose body is left out where it is too long, packed, or in no envelope.

    Nothing of ours is packed, and a few bytes may unpack to gigabytes. What is left in its place is
    no message, so it is refused as any other that cannot be read.
    """

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        if reason := flaw_of(payload):
            log.error("refused a message: %s", reason)
            payload = {
                "body": f"refused: {reason}",
                "content-type": PLAIN_TYPE,
                "headers": {},
                "properties": {"delivery_tag": uuid(), "delivery_info": {}},
            }
        super().__init__(payload, channel, **kwargs)


def flaw_of(payload: Any) -> str:
    """What is wrong with a message before it is read; empty if nothing is."""
    if not isinstance(payload, dict):
        return "it is no envelope"
    properties, headers = payload.get("properties"), payload.get("headers")
    body = payload.get("body")
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_tag"), str):
        return "its envelope says nothing of its delivery"
    if not isinstance(headers, dict) or not isinstance(body, str):
        return "its envelope has no headers, or no body"
    content = payload.get("content-type")
    if not isinstance(content, str) or content in UNREAD:
        return "it does not say how it is written"  # kombu would take it for ours as it is
    if len(body) * 3 // 4 > MAX_MESSAGE_BYTES:
        return f"{len(body) * 3 // 4:,} bytes are too many"
    return "it is packed" if headers.get("compression") else ""


class _Light:
    """A channel that acknowledges in memory, and takes as many messages as there are slots free."""

    Message: Any = Message
    ack_emulation = False
    client: Any
    qos: Any
    connection: Any
    connection_errors: Any
    _queue_cycle: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        vars(self)["QoS"] = QoS  # kombu has just set its own

    def _brpop_read(self, **options: Any) -> Any:
        """Delivers the message that came, and others that wait behind it.

        kombu's own asks for one at a time: a worker that is 20 ms away from Redis would begin 50
        items a second, however many slots it has.
        """
        with _refusing():
            super()._brpop_read(**options)  # type: ignore[misc]  # of the channel
        free = self.qos.can_consume_max_estimate() or 0
        if free > 1:
            self._take(self._queue_cycle.items[-1], min(free, MANY))  # the one that it came from
        return True

    def _take(self, queue: str, most: int) -> None:
        """Delivers what is in a queue now."""
        connection = self.client.connection
        try:
            connection.send_command("RPOP", queue, most)
            texts = self.client.parse_response(connection, "RPOP") or ()
        except self.connection_errors:
            connection.disconnect()
            raise
        for text in texts:
            with suppress(Empty), _refusing():
                self.connection._deliver(loads(bytes_to_str(text)), queue)


@contextmanager
def _refusing() -> Iterator[None]:
    """Passes over what is no message."""
    try:
        yield
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        log.error("refused a message: it is no envelope: %s", error)
        raise Empty from error


class Channel(_Light, redis.Channel):
    """A channel to one Redis."""


class SentinelChannel(_Light, redis.SentinelChannel):
    """A channel to the Redis that Sentinels name."""


class _Brisk:
    """A transport that does not sleep while its worker is full.

    Where nothing tells of events (gevent), a worker acknowledges what has ended between two calls
    of this, and only then takes more: it would run as many items as it has slots every 2 s.
    """

    cycle: Any

    def drain_events(self, connection: Any, timeout: Any = None, **kwargs: Any) -> Any:
        """Waits for a message, not for long while none may come."""
        channels = self.cycle._channels
        if timeout and any(one.active_queues and not one.qos.can_consume() for one in channels):
            timeout = min(timeout, FULL_S)
        return super().drain_events(connection, timeout, **kwargs)  # type: ignore[misc]


class Transport(_Brisk, redis.Transport):
    """kombu's transport with our channel."""

    Channel = Channel


class SentinelTransport(_Brisk, redis.SentinelTransport):
    """The same by way of Sentinels."""

    Channel = SentinelChannel


class _Connection(Connection):
    def get_transport_cls(self) -> type[redis.Transport]:
        """Ours for every broker URL; what the URL says of host and database stays with kombu."""
        return SentinelTransport if self.transport_cls == SCHEME else Transport


class Amqp(AMQP):
    """What the app makes its connections by."""

    Connection = _Connection
