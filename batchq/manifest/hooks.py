"""The part of a manifest that says who is told of a run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from batchq import plan
from batchq.manifest.scalars import Part, VariableName


class Hook(Part):
    """A webhook that is told of a run. Its address may hold a secret, so it is named only."""

    url_env: VariableName = Field(description="NAME of the variable with the address.")
    format: Literal["json", "slack"] = Field("json", description="json, or what Slack reads.")
    on: list[plan.Event] = Field(
        default_factory=lambda: list(plan.EVENTS),
        min_length=1,
        description="finished, failed, paused, budget; all by default.",
    )
    token_env: VariableName | None = Field(
        None, description="NAME of the variable with a token, sent as a bearer."
    )

    def planned(self) -> plan.Hook:
        """The hook as the plan holds it."""
        return plan.Hook(self.url_env, self.format, tuple(self.on), self.token_env or "")


def one_or_more(value: Any) -> Any:
    """Reads a single hook as a list of it, and `false` as none."""
    if value is None or value is False:
        return []
    return [value] if isinstance(value, dict) else value
