"""What a version teaches about the next one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchq.endpoint import Prices, ProviderSpec
from batchq.outcome import Summary, Usage
from batchq.plan import (
    InputSpec,
    OutputSpec,
    Pacing,
    Plan,
    StageSpec,
    StepPlan,
    StepSpec,
    Tolerance,
)
from batchq.records import StepFigures
from batchq.runs.learned import learn

SEEN = StepFigures(100, 2, 1.1, 2.0, 1000.0, 500.0, 100.0, 0.0)


class Catalog:
    """Knows one figure."""

    def __init__(self, seen: StepFigures = SEEN) -> None:
        self.seen = seen

    def figures(self, run: str, step: int) -> StepFigures:
        assert (run, step) == ("r", 1)
        return self.seen


def step(items: int, prices: Prices | None = Prices(1.0, 2.0), prompt: str = "Hi") -> StepPlan:  # noqa: B008
    model = ProviderSpec("p", "openai", "http://x", "m", prices=prices)
    return StepPlan(
        spec=StepSpec(1, "ask", (StageSpec("", "prompt", prompt=prompt, provider=model),)),
        input=InputSpec("x"), output=OutputSpec("x.json"), pacing=Pacing(), queue="llm", needs=(),
        tolerance=Tolerance(), items=items, items_are_estimated=False, batches=1, calls=items,
        input_tokens=7, output_tokens=8, cost_usd=0.5, duration_s=1.0, bound_by="workers",
    )  # fmt: skip


def plan(one: StepPlan) -> Plan:
    return Plan(
        name="a", pipeline="a", labels={}, status="beta", notes="", output_dir="outputs",
        manifest_path="m.yaml", base_dir=".", params={}, hashes={}, steps=(one,),
    )  # fmt: skip


def lessons(now: StepPlan, before: StepPlan, catalog: Catalog | None = None) -> list:
    was = {1: Summary(ok=98, failed=2, usage=Usage(110, 100_000, 50_000, 200_000_000))}
    return learn(plan(now), plan(before), "r", was, catalog or Catalog())  # type: ignore[arg-type]


def test_cost_follows_from_what_items_took_and_todays_prices() -> None:
    (one,) = lessons(step(400), step(100, Prices(50.0, 50.0)))

    # 1000 tokens at $1 and 500 at $2 a million
    assert one.cost.expected == pytest.approx(400 * 0.002)
    # sd of an item: 100 tokens at $1 a million; 400 items, and a mean of 100
    unsure = 2 * 0.0001 * (400 + 400**2 / 100) ** 0.5
    assert one.cost.high - one.cost.expected == pytest.approx(unsure)
    assert one.cost.expected - one.cost.low == pytest.approx(unsure)


def test_what_was_planned_stands_beside_what_it_came_to() -> None:
    (one,) = lessons(step(400), step(100))

    assert one.planned == Usage(100, 7, 8, 500_000_000)
    assert one.was.input_tokens == 100_000


def test_without_prices_there_is_no_cost() -> None:
    (one,) = lessons(step(400, None), step(100))

    assert one.cost is None
    assert one.seen == SEEN


def test_no_cost_is_below_nothing() -> None:
    (one,) = lessons(step(1), step(100), Catalog(replace(SEEN, input_spread=1e6)))

    assert one.cost.low == 0


@pytest.mark.parametrize(
    ("now", "seen"),
    [
        (step(400, prompt="Hello"), SEEN),
        (replace(step(400), calls=0), SEEN),
        (step(400), replace(SEEN, items=4)),
    ],
    ids=["another prompt", "no calls", "too few items"],
)
def test_what_teaches_nothing_is_left_out(now: StepPlan, seen: StepFigures) -> None:
    assert lessons(now, step(100), Catalog(seen)) == []
