"""`batchq limits`: what providers allow, what is used of it, and by whom; and to change it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from batchq.cli.output import duration, put, put_json, say, table
from batchq.cli.request import json_option
from batchq.embedded.stack import live_brokers
from batchq.errors import QueueError, UsageError
from batchq.services import COMMAND_PATIENCE_S, Services, build_services
from batchq.settings import Settings, load_settings

if TYPE_CHECKING:
    from batchq.limiter import RedisLimiter
    from batchq.limiter.desk import LimitUse, ProviderUse

SOURCES = {
    "manifest": "",
    "set": "set by hand",
    "told": "told by the provider",
    "found": "found out",
}


@click.command("limits")
@click.argument("provider", required=False)
@click.option("--set", "changes", multiple=True, metavar="rpm=300", help="Set a limit.")
@click.option("--unset", "undone", multiple=True, metavar="rpm", help="Go back to the manifest's.")
@json_option
def limits_command(
    provider: str | None,
    changes: tuple[str, ...],
    undone: tuple[str, ...],
    as_json: bool,  # noqa: FBT001 (click)
) -> None:
    """Shows what is used of the limits of PROVIDER, or of all, over all hosts and runs.

    --set changes rpm, tpm or concurrency at once for all hosts, until --unset.
    """
    wanted = _read_changes(changes, undone)
    if wanted and provider is None:
        raise UsageError("name the provider whose limits are to change: batchq limits NAME --set")
    shown: list[ProviderUse] = []
    known: list[str] = []
    for limiter in _limiters(load_settings()):
        for use in limiter.usage():
            known.append(use.name)
            if provider not in (None, use.name, use.key):
                continue
            if wanted:
                limiter.set_limits(use.key, **wanted)
            shown += [one for one in limiter.usage() if one.key == use.key]
    if provider is not None and not shown:
        raise UsageError(f"no provider {provider!r} was called lately; {_hint(provider, known)}")
    if as_json:
        put_json([asdict(one) for one in shown])
    elif not shown:
        say("No provider was called lately.")
    for use in () if as_json else shown:
        for line in _lines(use):
            put(line)


def _hint(provider: str, known: list[str]) -> str:
    near = difflib.get_close_matches(provider, dict.fromkeys(known), n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are: {', '.join(dict.fromkeys(known)) or 'none'}"


def _read_changes(changes: tuple[str, ...], undone: tuple[str, ...]) -> dict[str, float | None]:
    from batchq.limiter.desk import check_limit

    wanted: dict[str, float | None] = {}
    for change in changes:
        name, _, amount = change.partition("=")
        try:
            wanted[name] = float(amount)
        except ValueError:
            raise UsageError(f"--set {change}: expected a limit such as rpm=300") from None
    for name in undone:
        if name in wanted:
            raise UsageError(f"{name} cannot be set and unset at once")
        wanted[name] = None
    for name, value in wanted.items():
        check_limit(name, value)
    return wanted


def _limiters(settings: Settings) -> Iterator[RedisLimiter]:
    """The limiter of the broker, or those of the runs that have a Redis of their own here."""
    from batchq.limiter import RedisLimiter

    for services in _with_broker(settings):
        yield RedisLimiter(services.redis)


def _with_broker(settings: Settings) -> Iterator[Services]:
    if settings.broker_url:
        yield build_services(settings, patience_s=COMMAND_PATIENCE_S)
        return
    for url in live_brokers(settings.home).values():
        changed = settings.model_copy(update={"broker_url": url})
        try:
            services = build_services(changed, patience_s=COMMAND_PATIENCE_S)
            services.ledger.runs()
        except QueueError:
            continue  # it has just ended
        yield services


def _lines(use: ProviderUse) -> Iterator[str]:
    words = [use.name]
    if use.breaker != "closed":
        away = f" for {duration(use.outage_s)}" if use.outage_s else ""
        words.append(f"breaker {use.breaker}{away}")
    if use.paused_s:
        words.append(f"paused for {duration(use.paused_s)}")
    words += [f"{use.granted:,} granted", f"{use.refused:,} refused (429)"]
    waiting = sum(use.waiting.values())
    if waiting:
        words.append(f"{waiting:,} waiting")
    yield "  ".join(words)
    rows = [_row(use, one) for one in use.limits]
    if not any(row[0].strip() == "concurrency" for row in rows):
        rows.append(("  in flight", f"{use.in_flight:,}", "", "", ""))
    yield from table(rows, "<>>>")
    for run, number in sorted(use.waiting.items(), key=lambda one: -one[1]):
        yield f"  {number:,} of {run} wait{' in line, others come back later' * (run in use.away)}"
    for run in use.away:
        if run not in use.waiting:
            yield f"  items of {run} wait, and come back later"


def _row(use: ProviderUse, limit: LimitUse) -> tuple[str, ...]:
    used: dict[str, Any] = {
        "rpm": use.requests_per_minute,
        "tpm": use.tokens_per_minute,
        "concurrency": use.in_flight,
    }
    amount = limit.amount or 0.0
    now = used.get(limit.name)
    share = f"{now / amount:.0%}" if now is not None and amount else ""
    why = SOURCES[limit.source]
    if why and limit.given is not None:
        why += f", the manifest says {limit.given:,.0f}"
    shown = "" if now is None else f"{now:,.0f}"
    return f"  {limit.name}", shown, f"of {amount:,.0f}", share, why
