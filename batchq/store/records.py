"""Makes the catalog's rows from what the run folders hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from batchq.errors import StoreError
from batchq.outcome import Outcome, Summary
from batchq.plan import StepSpec
from batchq.progress import RunState
from batchq.records import BatchRecord, Catalog, RunRecord, iso
from batchq.store.folder import RunFolder
from batchq.store.outputs import Outputs


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild found; `problems` says which versions it had to leave out, and why."""

    runs: int
    batches: int
    problems: tuple[str, ...]


def batch_record(run: str, step: StepSpec, number: int, outcomes: Sequence[Outcome]) -> BatchRecord:
    """Sums a collated batch up, from its first item's start to its last one's end."""
    provider = next((one.provider for one in step.stages if one.provider is not None), None)
    started = min((one.started_at for one in outcomes), default=0.0)
    ended = max((one.ended_at for one in outcomes), default=0.0)
    confidences = [value for one in outcomes if (value := _confidence(one)) is not None]
    return BatchRecord(
        run=run,
        step=step.number,
        number=number,
        model=provider.model if provider else "",
        provider=provider.name if provider else "",
        items=len(outcomes),
        started_at=iso(started),
        ended_at=iso(ended),
        duration_ms=max(0, round((ended - started) * 1000)),
        summary=sum(map(Summary.of, outcomes), Summary()),
        avg_confidence=fmean(confidences) if confidences else None,
    )


def _confidence(outcome: Outcome) -> float | None:
    value = outcome.output.get("confidence") if isinstance(outcome.output, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # JSON has numbers of any length
        return None


def rebuild(outputs: Outputs, catalog: Catalog) -> Rebuilt:
    """Puts every version of every pipeline into the catalog; what it has of them is replaced.

    A version whose files are broken is named in the result and does not keep the others out.
    """
    runs = batches = 0
    problems: list[str] = []
    for pipeline in outputs.pipelines():
        for version in outputs.versions(pipeline):
            try:
                batches += put_version(outputs.open_version(pipeline, version), catalog)
                runs += 1
            except StoreError as error:
                problems.append(str(error))
    return Rebuilt(runs, batches, tuple(problems))


def put_version(folder: RunFolder, catalog: Catalog) -> int:
    """Puts a version's batches, then its run; returns how many batches there are."""
    plan = folder.read_plan()
    told = folder.read_metadata()
    total = Summary()
    batches = 0
    if told.status not in list(RunState):
        raise StoreError(
            f"{folder.url}/metadata.json: status {told.status!r} is none of "
            f"{', '.join(RunState)}; what people call the version belongs in pipeline_status"
        )
    for step in plan.steps:
        for number in sorted(folder.collated_batches(step.spec.number)):
            outcomes = folder.read_batch(step.spec.number, number)
            record = batch_record(told.run, step.spec, number, outcomes)
            catalog.put_batch(record, outcomes)
            batches += 1
        total += folder.summary(step.spec.number)
    catalog.put_run(
        RunRecord(
            run=told.run,
            pipeline=told.full_pipeline_name,
            version=told.version,
            state=RunState(told.status),
            status=told.pipeline_status,
            notes=told.notes,
            mode=told.mode,
            base_version=told.base_version or "",
            folder=folder.url,
            created_at=told.timestamp,
            ended_at=told.ended or "",
            duration_s=told.duration_seconds,
            items=plan.steps[0].items,
            summary=total,
        )
    )
    return batches
