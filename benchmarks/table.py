"""What turns came to, kept in results.json and written into docs/benchmarks.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cases import CASES, CLAIMS, OURS, Case
from turns import Turn

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- made by scripts/bench: begin -->", "<!-- made by scripts/bench: end -->"
QUIET = 0.15
HEADS = (
    "side",
    "items/s",
    "batchq is",
    "CPU ms an item",
    "Redis: CPU ms",
    "round trips",
    "commands",
    "KB an item",
    "peak MB",
    "memory MB",
)


def summary(turns: Sequence[Turn]) -> dict[str, dict[str, Any]]:
    """The medians of each side, and of batchq's ratio to it within a turn."""
    by_side: dict[str, list[Turn]] = {}
    for turn in turns:
        by_side.setdefault(turn.side, []).append(turn)
    ours = by_side.get(OURS.name, [])
    return {name: _row(own, ours if name != OURS.name else []) for name, own in by_side.items()}


def _row(every: Sequence[Turn], ours: Sequence[Turn]) -> dict[str, Any]:
    # What did not end says nothing of the rate, but that it did not is told.
    own = [one for one in every if not one.is_late] or every

    def middle(values: Sequence[float]) -> float:
        return round(statistics.median(values), 4)

    rates = sorted(one.per_s for one in own)
    pairs = zip(ours, every, strict=False)
    ratios = [our.per_s / their.per_s for our, their in pairs if their in own]
    return {
        "per_s": middle(rates),
        "least": round(rates[0], 2),
        "most": round(rates[-1], 2),
        "turns": len(every),
        "seconds": middle([one.seconds for one in own]),
        "late": sum(one.is_late for one in every),
        "ratio": middle(ratios) if ratios else None,
        "cpu_ms": middle([one.cpu_s / one.items * 1000 for one in own]),
        "cores": middle([one.cpu_s / one.seconds for one in own]),
        "redis_cpu_ms": middle([one.redis_cpu_s / one.items * 1000 for one in own]),
        "trips": middle([one.trips / one.items for one in own]),
        "commands": middle([one.commands / one.items for one in own]),
        "redis_kb": middle([one.redis_bytes / one.items / 1000 for one in own]),
        "redis_mb": middle([one.redis_mb for one in own]),
        "memory_mb": middle([one.memory_mb for one in own]),
        "others": middle([one.others for one in own]),
        "steady_per_s": middle([one.steady_per_s for one in own]),
        "most_open": max(one.most_open for one in own),
    }


def keep(name: str, about: dict[str, Any]) -> None:
    """Puts a case among the results."""
    results = read()
    results[name] = about
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def read() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def write_page() -> None:
    """Puts the tables between the marks of docs/benchmarks.md."""
    put(PAGE, page(read()))


def put(path: Path, made: str) -> None:
    """Replaces what stands between the marks of a page."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{made}\n{END}{after}")


def page(results: dict[str, Any]) -> str:
    """All cases that were measured, as Markdown."""
    measured = [case for case in CASES if case.name in results]
    sections = [section(case, results[case.name]) for case in measured]
    return "\n".join([claims(results), *sections])


def claims(results: dict[str, Any]) -> str:
    """What should hold, with what was reached."""
    rows = {name: about["rows"] for name, about in results.items()}
    lines = ["| what should hold | reached | |", "| --- | --- | --- |"]
    lines += [f"| {claim.text} | {_judgement(claim.judge(rows))} |" for claim in CLAIMS]
    return "\n".join(lines) + "\n"


def _judgement(judged: tuple[str, bool] | None) -> str:
    if judged is None:
        return "not measured |"
    figure, is_reached = judged
    return f"{figure} | {'yes' if is_reached else '**no**'}"


def section(case: Case, about: dict[str, Any]) -> str:
    """One case: where and when it was measured, and a line a side."""
    others = max(row["others"] for row in about["rows"].values())
    load = "a quiet machine" if others < QUIET else f"other work took up to {others:.1f} cores"
    head = f"### {case.title}\n\n`scripts/bench {case.name}`, {about['date']}, {load}. "
    versions = ", ".join(f"{name} {number}" for name, number in sorted(about["versions"].items()))
    lines = [
        f"{head}{about['machine']}. {versions}.\n",
        f"| {' | '.join(HEADS)} |",
        f"|{' --- |' * len(HEADS)}",
    ]
    rows = about["rows"]
    lines += [_line(case, one.name, rows[one.name]) for one in case.sides if one.name in rows]
    return "\n".join(lines) + "\n"


def _line(case: Case, name: str, row: dict[str, Any]) -> str:
    cells = [
        f"**{name}**" if name == OURS.name else name,
        _rate(case, row),
        f"{row['ratio']:.2f} times" if row["ratio"] else "",
        f"{row['cpu_ms']:.2f}",
        f"{row['redis_cpu_ms']:.2f}",
        f"{row['trips']:.1f}",
        f"{row['commands']:.1f}",
        f"{row['redis_kb']:.1f}",
        f"{row['redis_mb']:.0f}",
        f"{row['memory_mb']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _rate(case: Case, row: dict[str, Any]) -> str:
    if case.fill:
        seconds = f"{row['seconds']:.2f} s"
        return f"not within {seconds}" if row["late"] else seconds
    late = f", {row['late']} of {row['turns']} turns did not end" if row["late"] else ""
    spread = f" ({row['least']:.0f} to {row['most']:.0f})" if row["turns"] > 1 else ""
    steady = f", steady {row['steady_per_s']:.0f}" if row["steady_per_s"] else ""
    return f"{row['per_s']:.0f}{spread}{steady}{late}"
