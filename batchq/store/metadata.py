"""What `metadata.json` tells people about a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchq.outcome import Summary, Usage
from batchq.plan import Plan
from batchq.records import RunRecord


@dataclass(frozen=True, slots=True)
class Metadata:
    """One version, told for people. `status` is where its run stands, `pipeline_status` how mature
    its results are; `stats` holds one entry a step, `totals` all steps together.
    """  # noqa: D205 (two claims, one sentence)

    version: str
    pipeline_name: str
    timestamp: str
    mode: str
    base_version: str | None
    module_number: Any
    path_letter: Any
    pipeline_status: str
    notes: str
    duration_seconds: float
    status: str
    full_pipeline_name: str
    run: str
    ended: str | None = None
    logs: tuple[str, ...] = ()
    stats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    totals: Mapping[str, Any] = field(default_factory=dict)


def describe(
    record: RunRecord, plan: Plan, summaries: Mapping[int, Summary], reason: str = ""
) -> Metadata:
    """Puts a run's metadata together; `summaries` has one entry for each step that has run."""
    return Metadata(
        version=record.version,
        pipeline_name=plan.name,
        timestamp=record.created_at,
        mode=record.mode,
        base_version=record.base_version or None,
        module_number=plan.labels.get("module"),
        path_letter=plan.labels.get("path"),
        pipeline_status=record.status,
        notes=record.notes,
        duration_seconds=record.duration_s,
        status=record.state.value,
        full_pipeline_name=record.pipeline,
        run=record.run,
        ended=record.ended_at or None,
        logs=(reason,) if reason else (),
        stats={
            step.spec.name: _figures(summaries[step.spec.number])
            for step in plan.steps
            if step.spec.number in summaries
        },
        totals={"planned_items": record.items} | _figures(record.summary),
    )


def summary_in(figures: Mapping[str, Any]) -> Summary:
    """Reads an entry of `stats` back; what people made of it that is no number counts as 0."""

    def number(key: str) -> float:
        value = figures.get(key, 0)
        return value if isinstance(value, int | float) else 0

    return Summary(
        ok=int(number("ok")),
        failed=int(number("failed")),
        retries=int(number("retries")),
        repaired=int(number("repaired")),
        cached=int(number("cache_hits")),
        usage=Usage(
            calls=int(number("calls")),
            input_tokens=int(number("input_tokens")),
            output_tokens=int(number("output_tokens")),
            cost_nusd=round(number("cost_usd") * 1e9),
            unpriced_calls=int(number("unpriced_calls")),
        ),
        upload_calls=int(number("upload_calls")),
        upload_nusd=round(number("upload_cost_usd") * 1e9),
    )


def _figures(summary: Summary) -> dict[str, Any]:
    usage = summary.usage
    return {
        "items": summary.total,
        "ok": summary.ok,
        "failed": summary.failed,
        "retries": summary.retries,
        "repaired": summary.repaired,
        "cache_hits": summary.cached,
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_usd,
        "unpriced_calls": usage.unpriced_calls,
        "upload_calls": summary.upload_calls,
        "upload_cost_usd": summary.upload_nusd / 1e9,
    }
