"""`batchq status`, `list` and `show`: what ran, and what runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from batchq.cli.display import cost_text, current_step
from batchq.cli.lookup import Found, find, local_time, progress_of_record
from batchq.cli.output import count, duration, money, put, put_json, say, table
from batchq.cli.request import json_option
from batchq.cli.summary import as_json as progress_json
from batchq.cli.summary import summary_lines
from batchq.errors import RunNotFound
from batchq.ports import Progress, RunRecord, RunState
from batchq.services import COMMAND_PATIENCE_S, Services, build_services
from batchq.settings import load_settings

SHOWN_BY_DEFAULT = ("beta", "rc", "final")
RULE = "=" * 70
MAX_FAILED_SHOWN = 20


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
    open_runs = [one.run for one in services.catalog.runs() if not one.state.is_over]
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
    step = current_step(seen)
    where = f"{step.name} {step.summary.total:,}/{step.total:,}" if step else "not begun"
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
    return [head, *table(rows), counts, *(f"  {failure}" for failure in seen.recent[:5])]


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
@json_option
def list_command(
    pipeline: str | None,
    every: bool,  # noqa: FBT001 (click passes by name)
    statuses: tuple[str, ...],
    as_json: bool,  # noqa: FBT001
) -> None:
    """Lists pipelines, or the versions of PIPELINE; drafts and alphas only with --all."""
    services = build_services(load_settings(), patience_s=COMMAND_PATIENCE_S)
    records = services.catalog.runs(pipeline)
    if pipeline is not None and not records:
        raise RunNotFound(_no_pipeline(pipeline, services))
    wanted = {*statuses} or {*SHOWN_BY_DEFAULT}
    shown = [one for one in records if every or one.status in wanted]
    if as_json:
        put_json([_record_json(one) for one in shown])
        return
    names = dict.fromkeys(one.pipeline for one in records)
    if not names:
        say("Nothing has run yet. Start with `batchq submit FILE`.")
    for name in names:
        _put_pipeline(
            [one for one in records if one.pipeline == name],
            [one for one in shown if one.pipeline == name],
            "all" if every else ", ".join(sorted(wanted)),
        )


def _no_pipeline(name: str, services: Services) -> str:
    known = sorted({one.pipeline for one in services.catalog.runs()})
    return f"no pipeline is named {name}; there are: {', '.join(known) or 'none'}"


def _put_pipeline(records: list[RunRecord], shown: list[RunRecord], showing: str) -> None:
    hidden = len(records) - len(shown)
    finished = [one for one in records if one.state is RunState.COMPLETED]
    latest = max(finished, key=_number, default=None)
    put(RULE)
    put(f"PIPELINE: {records[0].pipeline}")
    put(f"Versions: {len(shown)}" + (f" (hiding {hidden})" if hidden else ""))
    put(f"Latest: {latest.version if latest else 'none is complete'}")
    if showing != "all":
        put(f"Showing: {showing}")
    if hidden:
        put("Tip: Use --all to show all versions, or --status <status> to filter")
    put(RULE)
    put()
    for record in sorted(shown, key=_number):
        for line in _version_lines(record, is_latest=record is latest):
            put(line)
        put()


def _number(record: RunRecord) -> int:
    return int(record.version[1:])


def _version_lines(record: RunRecord, *, is_latest: bool) -> list[str]:
    lines = [
        f"{record.version}{' (latest)' if is_latest else ''}",
        f"  Created: {local_time(record.created_at)}",
        f"  Status: {record.status}",
    ]
    lines += [f"  Notes: {record.notes}"] if record.notes else []
    lines.append(f"  Mode: {record.mode}")
    lines += [f"  Base: {record.base_version}"] if record.base_version else []
    if record.state is RunState.COMPLETED:
        lines.append(f"  Duration: {duration(record.duration_s)}")
    else:
        lines.append(f"  State: {record.state.value}")
    failed = f" ({record.summary.failed:,} failed)" if record.summary.failed else ""
    lines.append(f"  Items: {record.items:,}{failed}")
    if record.summary.usage.calls:
        usage = record.summary.usage
        lines.append(f"  Cost: {money(usage.cost_usd, usage.unpriced_calls)}")
    return lines


def _record_json(record: RunRecord) -> dict[str, Any]:
    usage = record.summary.usage
    return {
        "run": record.run,
        "pipeline": record.pipeline,
        "version": record.version,
        "state": record.state.value,
        "status": record.status,
        "notes": record.notes,
        "mode": record.mode,
        "base_version": record.base_version or None,
        "created_at": record.created_at,
        "ended_at": record.ended_at or None,
        "duration_s": record.duration_s,
        "items": record.items,
        "ok": record.summary.ok,
        "failed": record.summary.failed,
        "cost_usd": usage.cost_usd,
        "unpriced_calls": usage.unpriced_calls,
        "folder": record.folder,
    }


@click.command("show")
@click.argument("run")
@click.argument("rest", nargs=-1, metavar="[vN] [ITEM]")
@json_option
def show_command(run: str, rest: tuple[str, ...], as_json: bool) -> None:  # noqa: FBT001 (click)
    """Shows RUN, or one ITEM of it: outputs, attempts, errors. PIPELINE vN is RUN, too."""
    words = [*rest]
    if words and words[0][:1] == "v" and words[0][1:].isdigit() and "@" not in run:
        run = f"{run}@{words.pop(0)}"
    if len(words) > 1:
        raise click.UsageError(f"{words[1]!r} is one word too many")
    found = find(run, load_settings())
    if found.record is None:
        raise RunNotFound(f"{found.name} was submitted elsewhere; `batchq status` shows it")
    if words:
        _show_item(found, found.record, words[0], as_json=as_json)
    else:
        _show_run(found, found.record, as_json=as_json)


def _show_run(found: Found, record: RunRecord, *, as_json: bool) -> None:
    services = build_services(load_settings(), patience_s=COMMAND_PATIENCE_S)
    failed = services.catalog.items(record.run, state="failed", limit=MAX_FAILED_SHOWN)
    seen = found.progress() if found.services else progress_of_record(record)
    if as_json:
        put_json({**_record_json(record), **progress_json(seen), "failed_items": list(failed)})
        return
    for line in _version_lines(record, is_latest=False):
        put(line)
    put(f"  Folder: {record.folder}")
    put()
    for line in summary_lines(seen):
        put(line)
    if failed:
        put()
        rows = [
            (f"  {one['id']}", f"step {one['step']}", one["kind"], one["error"]) for one in failed
        ]
        for line in table(rows):
            put(line)


def _show_item(found: Found, record: RunRecord, item: str, *, as_json: bool) -> None:
    services = build_services(load_settings(), patience_s=COMMAND_PATIENCE_S)
    rows = [one for one in services.catalog.items(record.run, limit=10**9) if one["id"] == item]
    if not rows:
        raise RunNotFound(f"{found.name} has no item {item} that has ended")
    if as_json:
        put_json([{**one, "output": _output_of(record, one)} for one in rows])
        return
    for one in rows:
        spent = f"{one['tokens']:,} tokens, {money(one['cost_usd'])}"
        tries = count(one["attempts"], "attempt")
        took = duration(one["duration_ms"] / 1000)
        put(f"{item}  step {one['step']}  {one['state']}  {tries}, {took}, {spent}")
        if one["error"]:
            put(f"  {one['kind']}: {one['error']}")
        output = _output_of(record, one)
        if output is not None:
            put(json.dumps(output, ensure_ascii=False, indent=2))


def _output_of(record: RunRecord, row: Mapping[str, Any]) -> Any:
    from batchq.store import safe_name

    folder = Path(record.folder.removeprefix("file://"))
    path = folder / "items" / safe_name(row["id"]) / f"{row['step']:02d}_output.json"
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
