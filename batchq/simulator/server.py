"""The HTTP server in front of a simulated provider: paths, its life, its address."""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import json
import os
import signal
import socket
import threading
from collections.abc import Callable

from batchq.errors import UsageError
from batchq.simulator import anthropic_format, openai_format
from batchq.simulator.batch_desk import is_about_batches
from batchq.simulator.chat import Rejected, Rejection, Response
from batchq.simulator.http import Connection, Request
from batchq.simulator.options import SimulatorOptions, read_options
from batchq.simulator.provider import Format, Served, SimulatedProvider

BACKLOG = 1024
CALLS: dict[str, Format] = {
    "/chat/completions": openai_format,
    "/messages": anthropic_format,
}
OWN_PATHS = {
    "/health": "GET",
    "/stats": "GET",
    "/calls": "GET",
    "/paid": "GET",
    "/reset": "POST",
    "/control": "POST",
}


def serve(
    options: SimulatorOptions,
    host: str = "127.0.0.1",
    port: int = 0,
    ready: Callable[[str], None] | None = None,
    *,
    parent_pipe: int | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, and calls `ready` with the base URL once it listens.

    With `parent_pipe`, the reading end of a pipe that the parent process keeps open, it also
    ends when the parent does; SIGINT is then the parent's business, since Ctrl-C reaches both
    and the parent still waits for what is in flight.

    Raises:
        UsageError: if the address cannot be used, or is open to others without a key.
    """
    with _listen(options, host, port) as listening:
        asyncio.run(_serve(options, listening, host, ready, parent_pipe))


async def _serve(
    options: SimulatorOptions,
    listening: socket.socket,
    host: str,
    ready: Callable[[str], None] | None,
    parent_pipe: int | None,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    _watch_signals(loop, stop, with_interrupt=parent_pipe is None)
    if parent_pipe is not None:
        _watch_parent(loop, stop, parent_pipe)
    handler = _Handler(SimulatedProvider(options), is_open=not _is_loopback(host))
    server = await loop.create_server(lambda: Connection(handler), sock=listening, backlog=BACKLOG)
    gc.freeze()  # what is loaded by now stays: the collector need not look at it again
    if ready is not None:
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listening.getsockname()[1]}")
    await stop.wait()
    server.close()


def _watch_signals(
    loop: asyncio.AbstractEventLoop, stop: asyncio.Event, *, with_interrupt: bool
) -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # signals reach the main thread only
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set if with_interrupt else lambda: None)


def _watch_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, pipe: int) -> None:
    def read() -> None:
        if not os.read(pipe, 1024):
            loop.remove_reader(pipe)
            stop.set()

    try:
        loop.add_reader(pipe, read)
    except (OSError, ValueError) as error:
        raise UsageError(f"parent pipe: {pipe} is not the open end of a pipe") from error


def _listen(options: SimulatorOptions, host: str, port: int) -> socket.socket:
    if port not in range(65536):
        raise UsageError(f"port {port} is none: take one from 1 to 65535, or 0 for any free one")
    if not _is_loopback(host) and not options.api_keys:
        raise UsageError(
            f"the simulator would be open to everyone on {host}: give it api_keys,"
            " or listen on 127.0.0.1"
        )
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} of {host} is in use: take another one, or 0 for any free one"
        else:
            message = f"cannot listen on {host} port {port}: {error.strerror or error}"
        raise UsageError(message) from error


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None)
    except OSError as error:
        raise UsageError(f"there is no host named {host!r} here: {error.strerror}") from error
    return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)


class _Handler:
    """Takes each request to the provider and its response back, when its time has come."""

    def __init__(self, provider: SimulatedProvider, *, is_open: bool) -> None:
        self._provider = provider
        self._is_open = is_open

    def __call__(self, request: Request, connection: Connection) -> None:
        path = request.path.removeprefix("/v1").rstrip("/")
        headers = request.headers
        if path in OWN_PATHS:
            _send(connection, self._own(path, request))
        elif path in CALLS and request.method == "POST":
            served = self._provider.serve(CALLS[path], headers, request.body)
            _Delivery(connection, served).start()
        elif is_about_batches(path):
            response = self._provider.desk.handle(request)
            connection.drop() if response is None else _send(connection, response)
        elif request.method == "GET" and (path == "/models" or path.startswith("/models/")):
            name = path.removeprefix("/models").removeprefix("/")
            _send(connection, self._provider.models(_format_of(request), headers, name))
        else:
            kind = Rejection.WRONG_METHOD if path in CALLS else Rejection.UNKNOWN_PATH
            error = Rejected(kind, f"Unknown request: {request.method} {request.path}")
            _send(connection, _format_of(request).write_error(error, "0"))

    def _own(self, path: str, request: Request) -> Response:
        """Answers the requests that no real provider knows."""
        if request.method != OWN_PATHS[path]:
            return Response(405, {"error": f"{path} takes {OWN_PATHS[path]} only"})
        if path == "/health":
            return Response(200, {"status": "ok"})
        try:
            self._provider.check_key(_format_of(request), request.headers)
        except Rejected as error:
            return Response(401, {"error": str(error)})
        if path == "/control":
            return self._control(request.body)
        if path == "/calls":
            return Response(200, self._provider.calls())
        if path == "/paid":
            return Response(200, self._provider.paid())
        if path == "/reset":
            self._provider.reset()
        return Response(200, self._provider.stats())

    def _control(self, body: bytes) -> Response:
        try:
            changes = json.loads(body)
            if not isinstance(changes, dict):
                raise UsageError("send a JSON object of options to change")
            options = read_options(changes, self._provider.options)
            if self._is_open and not options.api_keys:
                raise UsageError("api_keys must not be empty while others can reach the simulator")
        except (UsageError, ValueError) as error:
            return Response(400, {"error": str(error)})
        self._provider.configure(options)
        return Response(200, options.model_dump(mode="json"))


class _Delivery:
    """Sends one response after its delay, unless the client goes away before."""

    def __init__(self, connection: Connection, served: Served) -> None:
        self._connection = connection
        self._served = served
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Sends the response now, or when its delay is over."""
        if self._served.delay_s <= 0:
            self._deliver()
            return
        self._connection.on_lost = self._abandon
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._served.delay_s, self._deliver)

    def _deliver(self) -> None:
        self._connection.on_lost = None
        response = self._served.response
        # Counted first: a client that has its answer may ask for the stats at once.
        self._served.end(was_sent=response is not None and self._connection.is_open)
        if response is None:
            self._connection.drop()
        else:
            _send(self._connection, response)

    def _abandon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._served.end(was_sent=False)


def _format_of(request: Request) -> Format:
    """Guesses the client's format where the path does not tell it."""
    is_anthropic = "anthropic-version" in request.headers or "x-api-key" in request.headers
    return anthropic_format if is_anthropic else openai_format


def _send(connection: Connection, response: Response) -> None:
    body = response.content
    if body is None:
        body = json.dumps(response.body, ensure_ascii=False).encode("utf-8", "backslashreplace")
    headers = {"content-type": "application/json", **response.headers}
    connection.respond(response.status, headers, body, is_cut=response.is_cut)
