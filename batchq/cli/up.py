"""`batchq up`: a whole stack on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from urllib.error import URLError

import click

from batchq.cli.output import say, table
from batchq.embedded.parts import Part, Rank
from batchq.embedded.stack import BROKER_FILE, Stack, start_stack
from batchq.errors import QueueError, UsageError
from batchq.host.interrupts import Interrupts
from batchq.planning.estimate import CALLS_AT_ONCE
from batchq.queue.names import CONTROL_QUEUE, DEFAULT_QUEUES
from batchq.settings import Settings, load_settings

NAME = "up"
"""What stands in place of a run in the folder of the stack, so that the next one finds it."""
FLOWER = "flower"
FLOWER_PORT = 5555
FLOWER_PATIENCE_S = 20.0
TICK_S = 0.2


@click.command("up")
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(min=1),
    envvar="CONCURRENCY",
    show_envvar=True,
    default=CALLS_AT_ONCE,
    show_default=True,
    help="Calls at a time.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes; default: one a core.")
@click.option(
    "--flower-port",
    type=click.IntRange(0, 65535),
    help=f"Port of Flower; 0: none. Default: {FLOWER_PORT}, or a free one if that is taken.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve the fleet's metrics for Prometheus at this port of 127.0.0.1; 0: none.",
)
def up_command(
    concurrency: int, workers: int | None, flower_port: int | None, metrics_port: int | None
) -> int:
    """Runs Redis, a coordinator, workers and Flower until Ctrl-C; those that die come back.

    With BATCHQ_BROKER_URL set it is that Redis that they work for. What is in flight at the end
    goes on with the next `batchq up` in this folder.
    """
    settings = load_settings()
    port = _flower_port(flower_port)
    metrics = settings.metrics_port if metrics_port is None else metrics_port
    processes = workers or os.cpu_count() or 1
    with Interrupts() as interrupts, _stack(settings) as stack:
        if stack.is_private:
            stack.serve_run(NAME)
        # The others have no port: it would be the same one.
        launch = partial(stack.launch_worker, is_watched=bool(port))
        launch("coordinator", CONTROL_QUEUE, "threads", 1, _metrics_env(metrics))
        llm, cpu = DEFAULT_QUEUES
        launch("llm", llm, "threads", concurrency, _metrics_env(0))
        launch("cpu", cpu, "prefork", processes, _metrics_env(0))
        if port:
            _launch_flower(stack, port)
            stack.wait_for_redis()
            _wait_for_flower(stack, port, interrupts)
        _tell(stack, port, metrics, f"llm: {concurrency} threads, cpu: {processes} processes")
        while not interrupts.is_set:
            stack.check(spared=FLOWER)
            time.sleep(TICK_S)
        say("Stopping: what is in flight will be finished. Ctrl-C again stops at once.")
    return 0


@contextmanager
def _stack(settings: Settings) -> Iterator[Stack]:
    if settings.broker_url:
        with start_stack(settings) as stack:
            yield stack
        return
    try:
        with start_stack(settings, NAME, keeps_password=True) as stack:
            yield stack
    except QueueError as error:
        if "Another batchq works on" in str(error):
            raise QueueError(f"`batchq up` runs already in {settings.home.absolute()}") from error
        raise


def _flower_port(wanted: int | None) -> int:
    """The port for Flower: the one that was wanted, else the usual one, else any that is free."""
    if wanted == 0:
        return 0
    for port in (wanted,) if wanted else (FLOWER_PORT, 0):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", port or 0))
            except OSError:
                continue
            return int(tried.getsockname()[1])
    raise UsageError(f"--flower-port {wanted}: that port is taken; choose another, or 0 for none")


def _metrics_env(port: int) -> dict[str, str]:
    return {"BATCHQ_METRICS_PORT": str(port)}


def _launch_flower(stack: Stack, port: int) -> None:
    argv = (
        *(sys.executable, "-P", "-m", "batchq", "flower"),
        *("--address=127.0.0.1", f"--port={port}"),
    )
    log = str(stack.logs / f"{FLOWER}.log")
    stack.launch(Part(FLOWER, argv, log, Rank.WORKER, {**stack.env, **_metrics_env(0)}))


def _wait_for_flower(stack: Stack, port: int, interrupts: Interrupts) -> None:
    """Returns when it answers, or after a while all the same: the others work without it."""
    end = time.monotonic() + FLOWER_PATIENCE_S
    while time.monotonic() < end and not interrupts.is_set:
        stack.check(spared=FLOWER)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=1):
                return
        except (URLError, OSError):
            time.sleep(TICK_S)
    if not interrupts.is_set:
        say(f"Flower does not answer yet; its log: {stack.logs / FLOWER}.log")


def _tell(stack: Stack, port: int, metrics: int, workers: str) -> None:
    """Prints the addresses; that of Redis holds a password, and is in a file."""
    rows = [("Workers", workers)]
    if port:
        rows.append(("Flower", f"http://127.0.0.1:{port}, the runs at /runs"))
    if metrics:
        rows.append(("Metrics", f"http://127.0.0.1:{metrics}/metrics"))
    rows.append(("Logs", str(stack.logs)))
    if stack.is_private:
        rows.append(("Redis", f"its URL is in {stack.folder / BROKER_FILE}"))
    for line in table(rows):
        say(line)
    if stack.is_private:
        say("From another terminal, to submit to it:")
        say(f"  export BATCHQ_BROKER_URL=$(cat {shlex.quote(str(stack.folder / BROKER_FILE))})")
    say("Ctrl-C ends them all.")
