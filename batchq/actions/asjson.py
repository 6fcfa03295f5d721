"""What programs are told of runs, items, failures and comparisons: by `--json` and by the pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from batchq.engine.canary import canary_json
from batchq.outcome import Attempt, Outcome
from batchq.ports import BudgetUse
from batchq.progress import Progress
from batchq.records import RunRecord
from batchq.runs.compare import ABSENT, Change, Comparison, FieldChange, ItemChange, Side

if TYPE_CHECKING:
    from batchq.report.failures import FailureGroup
    from batchq.runs.story import StepStory, Story
    from batchq.store.marks import Mark


def record_json(record: RunRecord) -> dict[str, Any]:
    """One version, as the catalog has it."""
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


def progress_json(progress: Progress) -> dict[str, Any]:
    """How far a run is."""
    summary = progress.summary
    return {
        "run": progress.run,
        "pipeline": progress.pipeline,
        "version": progress.version,
        "state": progress.state.value,
        "reason": progress.reason,
        "bound_by": progress.bound_by,
        "items": {
            "total": sum(step.total for step in progress.steps),
            "ok": summary.ok,
            "failed": summary.failed,
            "in_flight": progress.in_flight,
            "retries": summary.retries,
            "repaired": summary.repaired,
            "cached": summary.cached,
        },
        "steps": [
            {
                "number": step.number,
                "name": step.name,
                "state": step.state,
                "total": step.total,
                "ok": step.summary.ok,
                "failed": step.summary.failed,
                "batches": step.batches,
                "collated": step.collated,
            }
            for step in progress.steps
        ],
        "calls": summary.usage.calls,
        "input_tokens": summary.usage.input_tokens,
        "output_tokens": summary.usage.output_tokens,
        "cost_usd": round(summary.usage.cost_usd, 9),
        "unpriced_calls": summary.usage.unpriced_calls,
        "upload_calls": summary.upload_calls,
        "upload_cost_usd": summary.upload_nusd / 1e9,
        "uploads": [asdict(one) for one in progress.uploads],
        "budget": _budget(progress.budget),
        "canary": canary_json(progress.canary) if progress.canary else None,
        "duration_s": round(max(0.0, progress.updated_at - progress.started_at), 1),
        "folder": progress.folder,
    }


def _budget(use: BudgetUse | None) -> dict[str, Any] | None:
    if use is None:
        return None
    limit = use.budget.nusd
    return {
        "usd": None if limit is None else limit / 1e9,
        "tokens": use.budget.tokens,
        "on_exceeded": use.budget.on_exceeded,
        "spent_usd": use.spent_nusd / 1e9,
        "spent_tokens": use.spent_tokens,
        "reserved_usd": use.held_nusd / 1e9,
        "reserved_tokens": use.held_tokens,
    }


def story_json(story: Story) -> dict[str, Any]:
    """One item's whole story."""
    usage = story.summary.usage
    return {
        "item": story.item_id,
        "index": story.index,
        "run": f"{story.pipeline}@{story.version}",
        "lineage": list(story.lineage),
        "mark": mark_json(story.mark) if story.mark else None,
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_usd,
        "unpriced_calls": usage.unpriced_calls,
        "data": story.data,
        "steps": [_step(step) for step in story.steps],
    }


def _step(step: StepStory) -> dict[str, Any]:
    told: dict[str, Any] = {
        "number": step.number,
        "step": step.step,
        "item": step.item_id or None,
        "version": step.version,
        "state": "not reached" if not step.is_reached else "waiting",
    }
    if step.outcome is None:
        return told | {"attempts": _attempts(step.earlier.attempts if step.earlier else ())}
    outcome = step.outcome
    return told | {
        "state": outcome.state.value,
        "error": {"kind": outcome.error.kind, "message": outcome.error.message}
        if outcome.error
        else None,
        "attempts": _attempts(outcome.attempts),
        "duration_s": _took_s(outcome),
        "calls": outcome.usage.calls,
        "input_tokens": outcome.usage.input_tokens,
        "output_tokens": outcome.usage.output_tokens,
        "cost_usd": outcome.usage.cost_usd,
        "cached": outcome.cached,
        "repaired": outcome.repaired,
        "worker": outcome.worker,
        "prompt_file": step.prompt_path or None,
        "prompt": step.prompt or None,
        "output_file": step.output_path or None,
        "output": step.output,
        "is_edited": step.is_edited,
        "raw": outcome.raw or None,
    }


def _attempts(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    from batchq.runs.story import rounds  # and with it the store, which `list` does not need

    found = zip(rounds(attempts), attempts, strict=True)
    return [_attempt(attempt, number) for number, attempt in found]


def _attempt(attempt: Attempt, number: int) -> dict[str, Any]:
    return {
        "round": number,
        "number": attempt.number,
        "stage": attempt.stage,
        "started_at": attempt.started_at,
        "duration_s": attempt.duration_s,
        "waited_s": attempt.waited_s,
        "model": attempt.model,
        "upload": attempt.upload or None,
        "input_tokens": attempt.usage.input_tokens,
        "output_tokens": attempt.usage.output_tokens,
        "cost_usd": attempt.usage.cost_usd,
        "error": {"kind": attempt.error.kind, "message": attempt.error.message}
        if attempt.error
        else None,
    }


def _took_s(outcome: Outcome) -> float:
    return max(0.0, outcome.ended_at - outcome.started_at)


def group_json(group: FailureGroup) -> dict[str, Any]:
    """Failures that have one cause."""
    return {
        "fingerprint": group.fingerprint,
        "kind": group.kind,
        "pattern": group.pattern,
        "count": group.count,
        "steps": list(group.steps),
        "items": list(group.item_ids),
        "sample": {
            "item": group.sample.item_id,
            "step": group.sample.step,
            "stage": group.sample.error.stage,
            "message": group.sample.error.message,
        },
        "can_retry": group.can_retry,
        "advice": group.advice,
    }


def comparison_json(seen: Comparison, *, only_changed: bool) -> dict[str, Any]:
    """A comparison for programs; `items[].fields` is there if values were kept."""
    return {
        "pipeline": seen.pipeline,
        "step": seen.step,
        "versions": [_side(seen.left), _side(seen.right)],
        "is_merged": seen.is_merged,
        "items": {
            "total": [seen.items.left_total, seen.items.right_total],
            "both": seen.items.both,
            "only": [list(seen.items.only_left), list(seen.items.only_right)],
        },
        "counts": {
            change.value: seen.changes.counts.get(change, 0)
            for change in Change
            if not (only_changed and change is Change.SAME)
        },
        "fields": dict(seen.changes.fields),
        "changes": [_change(item) for item in seen.changes.items],
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "version": side.version,
        "created_at": side.created_at,
        "status": side.status,
        "notes": side.notes,
        "mode": side.mode,
        "base_version": side.base_version or None,
        "state": side.state,
        "duration_s": side.duration_s,
        "items": side.items,
        "failed": side.failed,
        "calls": side.calls,
        "input_tokens": side.input_tokens,
        "output_tokens": side.output_tokens,
        "cost_usd": side.cost_usd,
        "unpriced_calls": side.unpriced_calls,
    }


def _change(item: ItemChange) -> dict[str, Any]:
    told: dict[str, Any] = {"id": item.item_id, "change": item.change.value}
    if item.old_error:
        told["old_error"] = item.old_error
    if item.new_error:
        told["new_error"] = item.new_error
    if item.fields:
        told["fields"] = [_field(field) for field in item.fields]
    return told


def _field(field: FieldChange) -> dict[str, Any]:
    told: dict[str, Any] = {"field": field.field}
    if field.old is not ABSENT:
        told["old"] = field.old
    if field.new is not ABSENT:
        told["new"] = field.new
    return told


def mark_json(mark: Mark) -> dict[str, Any]:
    """What somebody thinks of an item."""
    return {"verdict": mark.verdict.value, "note": mark.note, "at": mark.at}
