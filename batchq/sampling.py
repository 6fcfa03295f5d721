"""The parts of a manifest that take some of a step's items, or drop some of its outputs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from batchq.scalars import Count, NotYet, Part, PositiveCount, Texts, shown, wrong


def _sample_method(value: Any) -> Any:
    if value == "guided":
        raise wrong(
            "`guided` is part of the manifest format but this version of batchq does not do it "
            "yet; use random or first"
        )
    if value not in ("random", "first"):
        raise wrong(f"expected random or first, found {shown(value)}")
    return value


class Sample(Part):
    """A part of the input, in input order."""

    n: PositiveCount = Field(description="How many items.")
    method: Annotated[
        Literal["random", "first"],
        BeforeValidator(_sample_method),
        WithJsonSchema({"enum": ["random", "first"]}),
    ] = Field("random", description="Which ones.")
    seed: Count = Field(0, description="The same seed takes the same items.")
    by: NotYet = None
    reference: NotYet = None


class Dedup(Part):
    """Drops outputs that are alike from the collated file."""

    by: Texts = Field(description="Fields that must be equal; nested ones with `__`.")
    keep: Literal["first", "last"] = Field("first", description="Which of them stays.")
