"""How long a call may take, kept on its socket: a server that drips does not outlast it."""

from __future__ import annotations

import http.client
import io
import socket
import time
from contextvars import ContextVar
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

under_way: ContextVar[Patience] = ContextVar("patience")
"""The patience of the call which the thread is making."""


class Patience:
    """How long a call may take, and each pause in it; it begins when it is made."""

    def __init__(self, pause_s: float, whole_s: float | None = None) -> None:
        self.pause_s = pause_s
        self._ends_at = time.monotonic() + (pause_s if whole_s is None else whole_s)

    def lasts_at_most(self, whole_s: float) -> None:
        """Ends earlier than planned, from now on."""
        self._ends_at = min(self._ends_at, time.monotonic() + whole_s)

    def next_pause_s(self) -> float:
        """How long the next read or write may take; raises TimeoutError after the end."""
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("deadline passed")
        return min(left_s, self.pause_s)


class _DeadlineReader(socket.SocketIO):
    """Reads from a socket as long as the call that is under way has patience.

    A socket's own timeout starts anew with every byte that a slow server drips.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, "r")
        sock._io_refs += 1  # type: ignore[attr-defined]  # as socket.makefile does
        self._connection = sock
        self._patience = under_way.get(None)

    def readinto(self, buffer: Any) -> int | None:
        if self._patience is not None:
            self._connection.settimeout(self._patience.next_pause_s())
        return super().readinto(buffer)


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_DeadlineReader(sock))


class _Connection(HTTPConnection):
    response_class = _DeadlineResponse


class _SecureConnection(HTTPSConnection):
    response_class = _DeadlineResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class PatientAdapter(HTTPAdapter):
    """Connects with sockets that keep to the patience of their calls."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Makes the pools of connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
