"""The Redis transport without redelivery: the ledger says what is in flight, and sends it again.

kombu's own keeps a copy of every message that a worker holds, and gives it to another worker once
the visibility timeout has passed: an item that takes longer runs twice, one whose worker was killed
waits that long, and each message costs two more round trips. A claim in the ledger does the same
job by heartbeats, so a message needs no copy.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.app.amqp import AMQP
from kombu import Connection
from kombu.transport import redis, virtual

log = logging.getLogger(__name__)


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


class Channel(redis.Channel):
    """A channel that acknowledges in memory."""

    ack_emulation = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        vars(self)["QoS"] = QoS  # kombu has just set its own


class Transport(redis.Transport):
    """kombu's transport with our channel."""

    Channel = Channel


class _Connection(Connection):
    def get_transport_cls(self) -> type[Transport]:
        """Ours for every broker URL; what the URL says of host and database stays with kombu."""
        return Transport


class Amqp(AMQP):
    """What the app makes its connections by."""

    Connection = _Connection
