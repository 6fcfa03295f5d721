"""The parts of a manifest that guard a whole run: its budget and its canary."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_serializer, model_validator

from batchq import plan
from batchq.manifest.scalars import Count, Part, PositiveCount, Size, TokenBudget, Usd, wrong


def unless_false(value: Any) -> Any:
    """Reads `false` as nothing: what an override takes back."""
    return None if value is False else value


class Budget(Part):
    """What the calls of a run may use, over all hosts: dollars, tokens or both."""

    usd: Usd | None = Field(None, description="Dollars; every model needs a known price.")
    tokens: TokenBudget | None = Field(None, description="Tokens, input and output.")
    on_exceeded: Literal["pause", "fail"] = Field(
        "pause", description="pause: a resume with a larger budget goes on. fail: the run ends."
    )

    @model_validator(mode="after")
    def _bounds_something(self) -> Budget:
        if self.usd is None and self.tokens is None:
            raise wrong("expected `usd`, `tokens` or both, such as {usd: 25}")
        return self

    @classmethod
    def of(cls, planned: plan.Budget) -> Budget:
        """The part of a manifest that is planned so."""
        return cls.model_construct(
            usd=planned.nusd, tokens=planned.tokens, on_exceeded=planned.on_exceeded
        )

    def planned(self) -> plan.Budget:
        """The budget as the plan holds it."""
        return plan.Budget(self.usd, self.tokens, self.on_exceeded)

    @field_serializer("usd")
    def _in_dollars(self, nusd: int | None) -> float | None:
        return None if nusd is None else nusd / 1e9


class Resources(Part):
    """What an item takes of the host that it runs on."""

    slots: PositiveCount = Field(1, description="Slots of the host's workers: cores, by default.")
    memory: Size = Field(0, description="Memory, such as 6G.")


class Canary(Part):
    """A few items run before the others, to see what they cost and how many fail."""

    items: PositiveCount = Field(description="How many items of the first step.")
    max_failures: Count = Field(0, description="More failed ones than this pause the run.")
    then: Literal["ask", "go"] = Field(
        "ask", description="ask: pause until `batchq approve`. go: go on by itself."
    )


def overridden_bounds(
    budget: Budget | None,
    canary: Canary | None,
    nusd: int | None,
    tokens: int | None,
    *,
    asks_nothing: bool,
) -> tuple[dict[str, Any], dict[str, str]]:
    """What of a manifest the command line changes, and which keys it says so of."""
    changes: dict[str, Any] = {}
    said: dict[str, str] = {}
    if nusd is not None:
        said["budget.usd"] = f"{nusd / 1e9:g}"
    if tokens is not None:
        said["budget.tokens"] = str(tokens)
    if said:
        before = plan.Budget() if budget is None else budget.planned()
        changes["budget"] = Budget.of(before.with_amounts(nusd, tokens))
    if asks_nothing and canary is not None and canary.then == "ask":
        changes["canary"] = canary.model_copy(update={"then": "go"})
        said["canary.then"] = "go"
    return changes, said
