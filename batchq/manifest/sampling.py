"""The parts of a manifest that take some of a step's items, or drop some of its outputs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from batchq.manifest.scalars import Count, Part, PositiveCount, Texts, wrong


def _named(value: list[str]) -> list[str]:
    if not value or len(set(value)) < len(value):
        raise wrong("expected names of fields, each once, such as [emotion, tone]")
    return value


class Sample(Part):
    """A part of the input, in input order."""

    n: PositiveCount = Field(description="How many items.")
    method: Literal["random", "first", "guided"] = Field("random", description="Which ones.")
    seed: Count = Field(0, description="The same seed takes the same items.")
    by: Annotated[Texts, AfterValidator(_named)] | None = Field(
        None, description="guided: fields whose values are to be spread as in the reference."
    )
    reference: str | None = Field(
        None, description="guided: items to come near to, or counts: {field: {value: count}}."
    )
    existing: str | None = Field(
        None, description="guided: what counts as chosen already, in the same forms."
    )


class Dedup(Part):
    """Drops outputs that are alike from the collated file."""

    by: Texts = Field(description="Fields that must be equal; nested ones with `__`.")
    keep: Literal["first", "last"] = Field("first", description="Which of them stays.")
