"""`batchq worker`, `coordinator` and `simulator`: processes that stay."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from batchq.errors import UsageError
from batchq.planning.estimate import CALLS_AT_ONCE
from batchq.queue.names import CONTROL_QUEUE
from batchq.settings import Settings, load_settings

POOLS = ("threads", "gevent", "prefork")
QUIET = ("--without-gossip", "--without-mingle")
"""Heartbeats stay: without them a worker cannot be asked for events of tasks, as Flower asks."""

_metrics_option = click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve metrics for Prometheus at this port of 127.0.0.1; 0: none.",
)


def _broker_settings() -> Settings:
    settings = load_settings()
    if not settings.broker_url:
        raise UsageError(
            "no broker: set BATCHQ_BROKER_URL, such as redis://127.0.0.1:6379/0. Without one, "
            "`batchq submit` starts workers by itself."
        )
    return settings


def _become_celery(
    queues: str, pool: str, slots: int, settings: Settings, metrics_port: int | None
) -> NoReturn:
    if metrics_port is not None:
        os.environ["BATCHQ_METRICS_PORT"] = str(metrics_port)
    name = f"{queues.partition(',')[0].removeprefix('batchq.')}-{os.getpid()}@%h"
    quiet = ("-q",) if settings.log_format == "json" else ()  # a banner is no JSON
    argv = [
        *(sys.executable, "-m", "celery", "-A", "batchq", *quiet, "worker", "-Q", queues),
        *("-P", pool, "-c", str(slots), "-n", name, "-l", settings.log_level, *QUIET),
    ]
    sys.stdout.flush()
    os.execv(sys.executable, argv)  # noqa: S606 (no shell: this process becomes the worker)


@click.command("worker")
@click.option("-c", "--concurrency", type=click.IntRange(min=1), help="Items at a time.")
@click.option(
    "--pool", type=click.Choice(POOLS), default="threads", show_default=True, help="Kind of slots."
)
@click.option("--queues", default="llm,cpu", show_default=True, help="Queues to work on.")
@_metrics_option
def worker_command(
    concurrency: int | None, pool: str, queues: str, metrics_port: int | None
) -> None:
    """Runs a worker for the broker; a plain `celery -A batchq worker` with good defaults."""
    settings = _broker_settings()
    names = [name.strip().removeprefix("batchq.") for name in queues.split(",") if name.strip()]
    if not names:
        raise UsageError("--queues names no queue; llm and cpu are the usual ones")
    cores = os.cpu_count() or 1
    slots = concurrency or (cores if pool == "prefork" else CALLS_AT_ONCE)
    whole = ",".join(f"batchq.{name}" for name in names)
    _become_celery(whole, pool, slots, settings, metrics_port)


@click.command("coordinator")
@_metrics_option
def coordinator_command(metrics_port: int | None) -> None:
    """Runs a coordinator for the broker: it sends batches out and writes the run folders."""
    settings = _broker_settings()
    _become_celery(CONTROL_QUEUE, "threads", 1, settings, metrics_port)


@click.command(
    "simulator",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulator_command(arguments: tuple[str, ...]) -> NoReturn:
    """Runs a local server that speaks like OpenAI and Anthropic; `--help` lists its options."""
    sys.stdout.flush()
    os.execv(  # noqa: S606 (no shell: this process becomes the simulator)
        sys.executable, [sys.executable, "-P", "-m", "batchq.simulator", *arguments]
    )
