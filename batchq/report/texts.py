"""Numbers and sentences of a report, as people write them."""

from __future__ import annotations

from batchq.report.figures import Spread, StepFigures
from batchq.report.repeats import settings_of
from batchq.report.tables import MEASURES, Report, Row
from batchq.text.amounts import count, seconds_text, size_text

NOTHING = "–"  # noqa: RUF001 (as people write it)


def number_text(value: float | None) -> str:
    """A metric for people: four figures, or whole as it is."""
    if value is None:
        return NOTHING
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def delta_text(value: float | None) -> str:
    """A difference for people, with its sign."""
    if value is None:
        return ""
    sign = "+" if value > 0 else "−"  # noqa: RUF001 (as wide as a plus)
    return "±0" if value == 0 else f"{sign}{number_text(abs(value))}"


def took_text(seconds: float) -> str:
    """A duration for people: a short one in hundredths of a second."""
    return f"{seconds:.2f}s" if seconds < 9.995 else seconds_text(seconds)


def measures_text(row: Row) -> list[str]:
    """Time, CPU time, memory and size of a job for people."""
    took = row.measures
    texts = [took_text(took[name]) if name in took else NOTHING for name in MEASURES[:2]]
    texts += [size_text(took[name]) if took.get(name) else NOTHING for name in MEASURES[2:]]
    return texts


def spread_text(spread: Spread | None) -> str:
    """A mean with its standard deviation: `0.51 ± 0.02`."""
    if spread is None:
        return NOTHING
    text = number_text(spread.mean)
    if spread.deviation is None:
        return text
    return f"{text} ± {number_text(float(f'{spread.deviation:.2g}'))}"


def causes_text(step: StepFigures) -> str:
    """Why tries of a step failed, the most frequent kind first: `12 rate_limit, 3 timeout`."""
    return ", ".join(f"{number:,} {kind}" for kind, number in step.causes.most_common())


def verdict(report: Report) -> str:
    """The answer in one sentence: the best job, or the best setting over its repeats."""
    word = "lowest" if report.goal == "min" else "highest"
    settings = settings_of(report)
    if settings and (spread := settings[0].spread(report.metric)):
        best, among = settings[0], f" over {count(spread.count, 'repeat')}"
        text = f"{best.name} has the {word} mean of {report.metric}: {spread_text(spread)}{among}"
        is_base = report.baseline == best.name
        delta = None if is_base else report.distance(spread.mean, report.metric)
    elif report.best is None:
        return "No job has ended well yet." if report.jobs else ""
    else:
        job = report.best
        value = number_text(job.value(report.metric))
        text = f"{job.name} has the {word} {report.metric}: {value}"
        delta = report.delta(job, report.metric)
    if delta is not None:
        text += f" ({delta_text(delta)} against {report.baseline})"
    return f"{text}."


def state_text(report: Report) -> str:
    """How far the run is."""
    ok = sum(step.summary.ok for step in report.steps)
    failed = sum(step.summary.failed for step in report.steps)
    words = [report.state, f"{ok:,} ok", f"{failed:,} failed"]
    if report.jobs and len(report.jobs) < report.planned:
        words.append(f"{count(report.planned - len(report.jobs), 'job')} to come")
    return ", ".join(words)
