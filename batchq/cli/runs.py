"""`batchq status` and `list`: what ran, and what runs."""

from __future__ import annotations

import click

from batchq.actions.asjson import record_json
from batchq.actions.lookup import as_seen, find
from batchq.actions.views import cost_text, current_steps
from batchq.cli.output import duration, local_time, money, put, put_json, say, seconds_text, table
from batchq.cli.request import json_option
from batchq.cli.summary import as_json as progress_json
from batchq.cli.summary import summary_lines
from batchq.embedded.stack import live_brokers
from batchq.engine.budget import budget_text
from batchq.engine.canary import live_text
from batchq.errors import RunNotFound
from batchq.manifest.labels import check_label
from batchq.progress import Progress, RunState
from batchq.records import RunRecord
from batchq.services import COMMAND_PATIENCE_S, build_services
from batchq.settings import load_settings

SHOWN_BY_DEFAULT = ("beta", "rc", "final")
RULE = "=" * 70


@click.command("status")
@click.argument("run", required=False)
@json_option
def status_command(run: str | None, as_json: bool) -> None:  # noqa: FBT001 (click)
    """Shows how far RUN is, or all runs that are not over."""
    settings = load_settings()
    if run is not None:
        seen = find(run, settings).progress()
        if as_json:
            put_json(progress_json(seen))
        else:
            for line in _status_lines(seen):
                put(line)
        return
    services = build_services(settings, patience_s=COMMAND_PATIENCE_S)
    open_runs = services.listing.open_runs()
    # The catalog has a run that was resumed as paused until it stops again.
    open_runs += [one for one in live_brokers(settings.home) if one not in open_runs]
    if settings.broker_url:
        open_runs += [one for one in services.ledger.runs() if one not in open_runs]
    found = [find(one, settings).progress() for one in open_runs]
    if as_json:
        put_json([progress_json(one) for one in found])
    elif found:
        for line in table([_status_row(one) for one in found]):
            put(line)
    else:
        say("No run is under way. `batchq list --all` shows those that are over.")


def _status_row(seen: Progress) -> tuple[str, ...]:
    steps = [f"{one.name} {one.summary.total:,}/{one.total:,}" for one in current_steps(seen)]
    where = ", ".join(steps) or "not begun"
    failed = f"{seen.summary.failed:,} failed" if seen.summary.failed else ""
    return f"{seen.pipeline}@{seen.version}", seen.state.value, where, failed, seen.reason


def _status_lines(seen: Progress) -> list[str]:
    if seen.state.is_over:
        return summary_lines(seen)
    took = duration(max(0.0, seen.updated_at - seen.started_at))
    rows = [
        (
            f"  {step.number} {step.name}",
            f"{step.summary.total:,}/{step.total:,}" if step.total else "waits",
            f"{step.summary.ok:,} ok",
            f"{step.summary.failed:,} failed" if step.summary.failed else "",
        )
        for step in seen.steps
    ]
    head = f"{seen.pipeline}@{seen.version}  {seen.state.value}  {took}"
    cost = f"  {cost_text(seen)}" if seen.summary.usage.calls else ""
    cached = f", {seen.summary.cached:,} from cache" if seen.summary.cached else ""
    counts = f"  {seen.in_flight:,} in flight, {seen.summary.retries:,} retried{cached}{cost}"
    bound = [f"  bound by {seen.bound_by}"] if seen.bound_by else []
    budget = [f"  budget: {budget_text(seen.budget)}"] if seen.budget else []
    canary = [f"  {text}"] if (text := live_text(seen)) else []
    return [
        head,
        *table(rows),
        counts,
        *bound,
        *budget,
        *canary,
        *(f"  {failure}" for failure in seen.recent[:5]),
    ]


class _ManyStatuses(click.Command):
    """Lets `--status` take all words up to the next option, as its users know it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Gives each of the words an option of its own."""
        spread: list[str] = []
        is_status = False
        for word in args:
            if word.startswith("-"):
                is_status = word == "--status"
                spread += [] if is_status else [word]
            else:
                spread += ["--status", word] if is_status else [word]
        return super().parse_args(ctx, spread)


@click.command("list", cls=_ManyStatuses)
@click.argument("pipeline", required=False)
@click.option("--all", "every", is_flag=True, help="Versions of every status.")
@click.option(
    "--status", "statuses", multiple=True, metavar="S ..", help="Versions of these statuses."
)
@click.option(
    "-n", "--newest", type=click.IntRange(min=1), metavar="N", help="The newest N of each pipeline."
)
@json_option
def list_command(
    pipeline: str | None,
    every: bool,  # noqa: FBT001 (click passes by name)
    statuses: tuple[str, ...],
    newest: int | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Lists pipelines, or the versions of PIPELINE; drafts and alphas only with --all."""
    for status in statuses:
        check_label(status)
    settings = load_settings()
    services = build_services(settings, patience_s=COMMAND_PATIENCE_S)
    counts = services.listing.pipelines()
    if pipeline is not None and pipeline not in counts:
        known = ", ".join(sorted(counts)) or "none"
        raise RunNotFound(f"no pipeline is named {pipeline}; there are: {known}")
    if not counts:
        say("Nothing has run yet. Start with `batchq submit FILE`.")
    wanted = () if every else tuple(sorted({*statuses} or {*SHOWN_BY_DEFAULT}))
    live, found = live_brokers(settings.home), []
    for name in counts if pipeline is None else [pipeline]:
        records = services.listing.versions(name, newest, labels=wanted)[::-1]
        shown = [as_seen(one, settings, live) for one in records]
        if as_json:
            found += [record_json(one) for one in shown]
            continue
        latest = services.listing.run(f"{name}@latest")
        _put_pipeline(name, shown, counts[name], latest, ", ".join(wanted) or "all")
    if as_json:
        put_json(sorted(found, key=lambda one: str(one["created_at"])))


def _put_pipeline(
    name: str, shown: list[RunRecord], versions: int, latest: RunRecord | None, showing: str
) -> None:
    hidden = versions - len(shown)
    put(RULE)
    put(f"PIPELINE: {name}")
    put(f"Versions: {len(shown)}" + (f" (hiding {hidden})" if hidden else ""))
    put(f"Latest: {latest.version if latest else 'none is complete'}")
    if showing != "all":
        put(f"Showing: {showing}")
    if hidden and showing != "all":
        put("Tip: Use --all to show all versions, or --status <status> to filter")
    put(RULE)
    put()
    for record in shown:
        is_latest = latest is not None and record.run == latest.run
        for line in version_lines(record, is_latest=is_latest):
            put(line)
        put()


def version_lines(record: RunRecord, *, is_latest: bool) -> list[str]:
    """One version, field by field."""
    lines = [
        f"{record.version}{' (latest)' if is_latest else ''}",
        f"  Created: {local_time(record.created_at)}",
        f"  Status: {record.status}",
    ]
    lines += [f"  Notes: {record.notes}"] if record.notes else []
    lines.append(f"  Mode: {record.mode}")
    lines += [f"  Base: {record.base_version}"] if record.base_version else []
    if record.state is RunState.COMPLETED:
        lines.append(f"  Duration: {seconds_text(record.duration_s)}")
    else:
        is_paused = record.state is RunState.PAUSED
        hint = f" (batchq resume {record.pipeline}@{record.version})" if is_paused else ""
        lines.append(f"  State: {record.state.value}{hint}")
    failed = f" ({record.summary.failed:,} failed)" if record.summary.failed else ""
    lines.append(f"  Items: {record.items:,}{failed}")
    if record.summary.usage.calls:
        usage = record.summary.usage
        lines.append(f"  Cost: {money(usage.cost_usd, usage.unpriced_calls)}")
    return lines
