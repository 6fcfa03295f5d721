"""The parts of a manifest that make an experiment: its jobs and its matrix, as written."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from batchq.manifest.scalars import Count, Part, PositiveCount, shown, wrong


def _axis(value: Any) -> Any:
    if not isinstance(value, list):
        raise wrong(f"expected a list of values such as [20, 50, 100], found {shown(value)}")
    if not value:
        raise wrong("an axis without values leaves no job: give it at least one value")
    seen: list[Any] = []
    for entry in value:
        if any(one == entry and type(one) is type(entry) for one in seen):
            raise wrong(f"{shown(entry)} is there twice, and would make the same jobs twice")
        seen.append(entry)
    return _finite(value)


def _axes(value: Any) -> Any:
    if isinstance(value, dict) and not value:
        raise wrong("must not be empty: {learning_rate: [0.1, 0.2]}")
    return value


def _finite(value: Any) -> Any:
    """Refuses NaN and infinity, which JSON does not have, wherever they are in a value."""
    entries = value.values() if isinstance(value, dict) else value
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(f"{value} is no number that JSON has; put it in quotes to hand it on as a text")
    if isinstance(value, dict | list):
        for entry in entries:
            _finite(entry)
    return value


Params = Annotated[dict[str, Any], BeforeValidator(_finite)]
Combination = Annotated[dict[str, Any], BeforeValidator(_finite), Field(min_length=1)]
Axis = Annotated[
    list[Any], BeforeValidator(_axis), WithJsonSchema({"type": "array", "minItems": 1})
]


class Job(Part):
    """One job of an experiment, written out."""

    name: str = Field(min_length=1, max_length=200, description="Its name, unique in the run.")
    params: Params = Field(
        default_factory=dict, description="Its parameters, over those of config."
    )
    repeats: PositiveCount = Field(1, description="Run it so often, each time with its own `seed`.")


class Matrix(Part):
    """Makes a job of every combination of values."""

    axes: Annotated[dict[str, Axis], BeforeValidator(_axes)] = Field(
        description="Values by parameter: {min_leaf_size: [20, 50]}."
    )
    base_params: Params = Field(
        default_factory=dict, description="Parameters of all these jobs, over those of config."
    )
    exclude: list[Combination] = Field(
        default_factory=list, description="Combinations to leave out; those with all these values."
    )
    include: list[Combination] = Field(
        default_factory=list,
        description="Adds parameters to the combinations with these values, else one more job.",
    )
    name: str = Field(
        "", description="Names of the jobs, such as leaf{min_leaf_size}; {repeat} is its number."
    )
    method: Literal["grid", "zip", "random"] = Field(
        "grid", description="All with all; the first with the first, ...; or samples at random."
    )
    samples: PositiveCount | None = Field(None, description="How many, for method: random.")
    seed: Count = Field(0, description="The same seed draws the same samples, and repeats.")
    repeats: PositiveCount = Field(1, description="Run each so often, each time with its own seed.")
    max_jobs: PositiveCount = Field(256, description="More jobs than this are refused.")


def _metric(value: Any) -> Any:
    """Reads `nodes`, which is better the larger it is, or `{outliers: min}`."""
    if isinstance(value, str) and value:
        return {value: "max"}
    if isinstance(value, dict) and len(value) == 1 and {*value.values()} <= {"min", "max"}:
        return value
    raise wrong(f"expected a name, or {{name: min}} or {{name: max}}, found {shown(value)}")


MetricKey = Annotated[
    dict[str, Literal["min", "max"]],
    BeforeValidator(_metric),
    WithJsonSchema({"type": ["string", "object"], "examples": ["nodes", {"outliers": "min"}]}),
]


class Report(Part):
    """The report on the run: what is written at its end, and what it shows."""

    formats: list[Literal["csv", "md", "html"]] = Field(
        default_factory=lambda: ["csv", "md", "html"],  # type: ignore[arg-type]
        description="What is written into the run folder at the end.",
    )
    metrics: list[MetricKey] = Field(
        default_factory=list,
        description="Metrics, the first one ranks the jobs: [nodes, {outliers: min}].",
    )
    baseline: str = Field("", description="The job that the others are compared with.")
