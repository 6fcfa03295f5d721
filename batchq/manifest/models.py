"""The manifest as it is written: every key of the format, with its type and its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, WithJsonSchema

from batchq.manifest.endpoints import Provider
from batchq.manifest.guards import Budget, Canary, Resources, unless_false
from batchq.manifest.hooks import Hook, one_or_more
from batchq.manifest.jobs import Job, Matrix, Report
from batchq.manifest.labels import DEFAULT_LABEL
from batchq.manifest.modes import Deadline, ModeKey
from batchq.manifest.sampling import Dedup, Sample
from batchq.manifest.scalars import (
    Count,
    Duration,
    Ids,
    Label,
    NotYet,
    Part,
    PositiveCount,
    ShareOrCount,
    SkipExisting,
    TaskName,
    Texts,
    shown,
    wrong,
)
from batchq.manifest.timetable import Schedule

STEP_ALIASES = {
    "batch_id_field": "id_field",
    "batch_output_id_field": "output_id_field",
    "batch_id_start": "id_start",
    "batch_only_items": "only",
    "batch_skip_items": "skip",
    "batch_skip_existing": "skip_existing",
    "batch_stop_on_error": "stop_on_error",
    "prompt_name": "prompt",
    "input_file": "input",
    "emit_delay": "batch_delay",
    "wait": "batch_delay",
}
TOP_ALIASES = {
    "pipeline_name": "name",
    "pipeline_status": "status",
    "module_number": "labels.module",
    "path_letter": "labels.path",
}


class Param(Part):
    """A typed input of the manifest, set with `-p NAME=VALUE`."""

    type: Literal["int", "float", "str", "bool", "list"] | None = Field(
        None, description="Type; taken from the default where it is not given."
    )
    default: Any = Field(None, description="Value where none is given; without it one must be.")
    choices: list[Any] | None = Field(None, description="The only values that are accepted.")
    min: float | None = Field(None, description="The least number that is accepted.")
    max: float | None = Field(None, description="The greatest number that is accepted.")
    description: str = Field("", description="What it is, for people.")


class Retry(Part):
    """When to try again, and how long to wait before it."""

    max_retries: Count = Field(4, le=100, description="Tries after the first.")
    backoff: Literal["exponential", "linear", "constant"] = Field(
        "exponential", description="How the wait grows from try to try."
    )
    base: Duration = Field(2.0, description="The first wait.")
    max_delay: Duration = Field(60.0, description="The longest wait.")
    jitter: bool = Field(
        default=True, description="Spread the waits, so that tries do not come at once."
    )


class Work(Part):
    """What is done with an item: exactly one of prompt, task and command."""

    prompt: str | None = Field(
        None, description="Prompt file (.j2: Jinja2), or the prompt itself if it has many lines."
    )
    system: str | None = Field(None, description="System prompt file, or its text.")
    provider: str | None = Field(None, description="Name under `providers`.")
    model: str | None = Field(None, description="Model, instead of the provider's.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Sent to the model: temperature, max_tokens, ..."
    )
    output_schema: str | dict[str, Any] | None = Field(
        None, description="JSON Schema of the answer: a file, or the schema itself."
    )
    task: TaskName | None = Field(None, description="Python function: package.module:function.")
    setup: TaskName | None = Field(
        None, description="Python function that is called once a worker process, before the task."
    )
    command: list[str] | None = Field(
        None, min_length=1, description="A program and its arguments, run without a shell."
    )

    @property
    def kinds(self) -> list[str]:
        """Which of prompt, task and command are there."""
        return [kind for kind in ("prompt", "task", "command") if getattr(self, kind) is not None]


class Stage(Work):
    """A part of an item's work; what it gives is seen by the stages after it."""

    name: str = Field(min_length=1, description="Its name, unique in the step.")
    when: str = Field("", description="Condition, such as type == 'boolean'; else it is left out.")


def _input(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) != {"generate"}:
            raise wrong("expected a file, a glob, py:module:function or {generate: N}")
        number = value["generate"]
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise wrong(f"generate: expected a number of at least 1, found {shown(number)}")
        return f"generate:{number}"
    if not isinstance(value, str) or not value:
        raise wrong(
            f"expected a file, a glob, py:module:function or {{generate: N}}, found {shown(value)}"
        )
    return value


Source = Annotated[
    str,
    BeforeValidator(_input),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"generate": {"type": ["integer", "string"], "minimum": 1}},
                    "required": ["generate"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class StepDefaults(Part):
    """What a step has and `config` can set for every step."""

    stop_on_error: bool = Field(default=False, description="End the run at the first failed item.")
    max_failures: ShareOrCount | None = Field(
        None, description="Failed items that the step bears: a count or a share such as 10%."
    )
    batch_mode: bool = Field(default=True, description="false: the whole input is one item.")
    batch_size: PositiveCount = Field(50, description="Items in one batch, at most 500.")
    concurrent_batches: PositiveCount = Field(4, description="Batches in flight.")
    batch_delay: Duration = Field(0.0, description="Wait between two batches.")
    timeout: Duration = Field(120.0, description="Longest time of one try.")
    retry: Retry = Field(Retry(), description="When to try again.")
    queue: str | None = Field(
        None, pattern=r"^[A-Za-z][\w.-]*$", description="Queue; llm for prompts, else cpu."
    )
    save_prompts: bool = Field(default=True, description="Keep what was sent in the run folder.")
    skip_existing: SkipExisting = Field(
        "", description="Take over items that have an output in the newest version, or in v2."
    )
    resources: Annotated[Resources | None, BeforeValidator(unless_false)] = Field(
        None, description="What an item takes of its host: {slots: 2, memory: 6G}."
    )
    save_stats: bool = Field(
        default=False, description="Measure each task; for jobs, true unless it is false."
    )
    analyze: bool | TaskName = Field(
        default=False, description="Its numbers are metrics; or what a function makes of it."
    )
    metrics: Annotated[Texts | None, BeforeValidator(unless_false)] = Field(
        None, description="Which metrics, by name; default: all."
    )
    mode: ModeKey = Field(None, description="online, batch (half price, a day) or auto.")
    deadline: Deadline | None = Field(
        None, description="By when, for auto: 6h from its start, or a moment."
    )


class Step(Work, StepDefaults):
    """One step of the pipeline."""

    name: str = Field(min_length=1, description="Its name, unique in the pipeline.")
    input: Source | None = Field(
        None, description="Where its items come from; default: the collated output before it."
    )
    needs: Texts | None = Field(None, description="Steps to wait for; default: the one before.")
    id_field: str = Field("", description="Field with the item's id; default: the position.")
    output_id_field: str = Field("", description="Field that numbers the outputs.")
    id_start: Count = Field(1, description="First number of output_id_field.")
    only: Ids | None = Field(None, description="Take these items only.")
    skip: Ids = Field(default_factory=list, description="Leave these items out.")
    limit: PositiveCount | None = Field(None, description="Take no more than this many items.")
    sample: Sample | None = Field(None, description="Take a part of the items.")
    stages: list[Stage] | None = Field(
        None, min_length=1, description="Several parts of work, one after the other."
    )
    once: bool = Field(default=False, description="One call over the whole collated input.")
    params: dict[str, Any] = Field(
        default_factory=dict, description="Handed to this step's task functions."
    )
    dedup: Dedup | None = Field(None, description="Drop outputs that are alike.")
    collate: TaskName | None = Field(
        None, description="Function from the list of outputs to the file's content."
    )
    output_file: str = Field("", description="Name of the collated file; default NAME.json.")


class Config(StepDefaults):
    """Defaults for every step; unknown keys are handed to every task as parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    output_dir: str = Field(
        "outputs", description="Folder of the run folders, or s3://bucket/prefix."
    )
    system: str | None = Field(None, description="System prompt of every prompt.")
    provider: str | None = Field(None, description="Provider of every prompt that names none.")
    model: str | None = Field(None, description="Model of every prompt that names none.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of every prompt.")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key stands. `name` is the key as it was written, which may be an alias."""

    path: str
    line: int
    column: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}" if self.line else self.path


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a manifest came from.

    `places` maps a key's path to its place, `commands` what the command line set to its value,
    `params` the params to theirs. `data` is the file with its includes and with `${...}` filled,
    before any defaults. `pinned` maps the name of a step whose input was pinned to a version to
    that input as it was written.
    """

    path: Path
    places: Mapping[tuple[str | int, ...], Place] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    pinned: Mapping[str, str] = field(default_factory=dict)


class Manifest(Part):
    """A whole manifest: what to run, on what, and how."""

    version: Literal[1] = Field(1, description="Manifest format.")
    name: str = Field("", description="Name of the pipeline; default: the file's name.")
    labels: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Added to the folder's name: {module: 4, path: a}."
    )
    status: Label = Field(DEFAULT_LABEL, description="draft, alpha, beta, rc, final, ...")
    notes: str = Field("", description="Why this run is made.")
    include: Texts | None = Field(None, description="YAML files merged under this one.")
    params: dict[str, Param] = Field(default_factory=dict, description="Typed inputs.")
    config: Config = Field(Config(), description="Defaults for every step.")
    providers: dict[str, Provider] = Field(default_factory=dict, description="LLM endpoints.")
    steps: list[Step] = Field(default_factory=list, min_length=1, description="The pipeline.")
    task: TaskName | None = Field(
        None, description="Instead of steps: what each job runs, package.module:function."
    )
    setup: TaskName | None = Field(
        None, description="What each worker process calls once, before its first job."
    )
    jobs: list[Job] | None = Field(None, description="Jobs of an experiment, written out.")
    matrix: Matrix | None = Field(None, description="Jobs of an experiment, by combination.")
    foreach: NotYet = None
    rounds: Annotated[PositiveCount | None, BeforeValidator(unless_false)] = Field(
        None, description="Submit it so often in a row; ${params.round} counts."
    )
    priority: float = Field(
        1.0, ge=0.1, le=100, description="The run's share of a provider that others use, too."
    )
    budget: Annotated[Budget | None, BeforeValidator(unless_false)] = Field(
        None, description="What the run may use: {usd: 25, tokens: 2M, on_exceeded: pause}."
    )
    canary: Annotated[Canary | None, BeforeValidator(unless_false)] = Field(
        None, description="Items that run first: {items: 5, max_failures: 1, then: ask}."
    )
    report: Annotated[Report | None, BeforeValidator(unless_false)] = Field(
        None, description="{formats: [csv, md, html], metrics: [nodes], baseline: NAME}."
    )
    notify: Annotated[list[Hook], BeforeValidator(one_or_more)] = Field(
        default_factory=list, description="Webhooks: {url_env: NAME, format: slack, on: [failed]}."
    )
    schedule: Annotated[Schedule | None, BeforeValidator(unless_false)] = Field(
        None, description="When it is submitted by itself: {cron: '0 2 * * *', timezone: UTC}."
    )

    _origin: Origin = PrivateAttr(default_factory=lambda: Origin(Path("manifest.yaml")))

    @property
    def origin(self) -> Origin:
        """The file behind this manifest, and the places in it."""
        return self._origin

    @property
    def base_dir(self) -> Path:
        """The folder that relative paths start from."""
        return self._origin.path.parent

    def with_origin(self, origin: Origin) -> Manifest:
        """The same manifest, knowing where it came from."""
        copy = self.model_copy()
        copy._origin = origin
        return copy
