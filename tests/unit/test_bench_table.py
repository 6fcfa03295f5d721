"""The tables that the benchmarks write: medians, ratios within turns, verdicts."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("table")


def turn(table: ModuleType, side: str, seconds: float, **more: Any) -> Any:
    numbers = dict.fromkeys(table.Turn.__dataclass_fields__, 0.0)
    told = {"side": side, "items": 100, "seconds": seconds, "is_late": False, "most_open": 0}
    return table.Turn(**{**numbers, **told, **more})


def test_a_ratio_is_the_median_of_the_ratios_within_turns(table: ModuleType) -> None:
    seconds = [(1.0, 2.0), (10.0, 10.0), (4.0, 12.0)]
    turns = [
        turn(table, side, taken)
        for pair in seconds
        for side, taken in zip(("batchq", "Celery chord"), pair, strict=True)
    ]

    rows = table.summary(turns)

    assert rows["Celery chord"]["ratio"] == 2.0
    assert rows["batchq"]["ratio"] is None
    assert rows["batchq"]["per_s"] == 25.0


def test_a_case_is_shown_with_its_load_and_what_was_not_done_in_time(table: ModuleType) -> None:
    case = next(case for case in table.CASES if case.fill)
    late = turn(table, "Celery chord", 120.0, is_late=True, others=1.2)
    rows = table.summary([turn(table, "batchq", 0.5), late])

    shown = table.section(
        case, {"date": "today", "machine": "here", "versions": {"a": "1"}, "rows": rows}
    )

    assert "other work took up to 1.2 cores" in shown
    assert "| **batchq** | 0.50 s |" in shown
    assert "not within 120.00 s" in shown


def test_what_does_not_hold_is_said(table: ModuleType) -> None:
    about = {
        "rows": table.summary([turn(table, "batchq", 1.0), turn(table, "taskiq + counter", 0.5)])
    }

    shown = table.claims({"noop-10k": about})

    assert "ahead of taskiq | 0.50 | **no** |" in shown
    assert "3 times a raw Celery chord | not measured | |" in shown
