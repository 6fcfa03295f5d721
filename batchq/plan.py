"""What a run will do, as frozen values: the plan, its steps, and what a worker needs to know.

Everything here travels as JSON: `plan.json` in the run folder, the step in Redis, the item in
its message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args

from batchq.endpoint import ProviderSpec
from batchq.expand import Experiment
from batchq.guided import Guide
from batchq.outcome import Json

T = TypeVar("T")

Backoff = Literal["exponential", "linear", "constant"]
Mode = Literal["online", "batch", "auto"]
Goal = Literal["min", "max"]
StageKind = Literal["prompt", "task", "command"]
Event = Literal["finished", "failed", "paused", "budget"]
EVENTS: tuple[Event, ...] = get_args(Event)
"""What somebody can be told of a run; budget: it stands still or failed at the end of its own."""

MAX_BATCH_SIZE = 500
"""Largest batch: the cost per item of a chord grows with its header (see docs/decisions.md)."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again, and how long to wait before it; seconds throughout."""

    max_retries: int = 4
    backoff: Backoff = "exponential"
    base_s: float = 2.0
    max_delay_s: float = 60.0
    jitter: bool = True


@dataclass(frozen=True, slots=True)
class Item:
    """One unit of work: `id` is its name everywhere, `index` its place in the input from 0."""

    id: str
    index: int
    data: Json


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One part of an item's work. A step without `stages` has exactly one, named "".

    Exactly one of `prompt`, `task` and `command` is set, as `kind` says. `prompt` and `system`
    are template texts, Jinja2 ones if `prompt_is_jinja` / `system_is_jinja`. `setup` is a function
    that is called once a process, before its first task.
    """

    name: str
    kind: StageKind
    prompt: str = ""
    prompt_is_jinja: bool = False
    prompt_file: str = ""
    system: str = ""
    system_is_jinja: bool = False
    provider: ProviderSpec | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    output_schema: Mapping[str, Any] | None = None
    task: str = ""
    command: tuple[str, ...] = ()
    when: str = ""
    setup: str = ""


@dataclass(frozen=True, slots=True)
class Resources:
    """What an item takes of its host: slots of its workers, bytes of its memory."""

    slots: int = 1
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """What is measured of a task: what it takes and, with `metrics`, the numbers that it gives.

    These are what `function` makes of its output, else those in the output; `only` takes some.
    """

    metrics: bool = True
    function: str = ""
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepSpec:
    """All that a worker needs to run an item of one step; `number` counts from 1.

    `params` are the parameters handed to task functions. `timeout_s` bounds one attempt.
    `providers` are those whose limits task functions may keep. `mode` is how its calls go.
    """

    number: int
    name: str
    stages: tuple[StageSpec, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    retry: RetryPolicy = RetryPolicy()
    timeout_s: float = 120.0
    save_prompts: bool = True
    resources: Resources | None = None
    stats: Stats | None = None
    providers: Mapping[str, ProviderSpec] = field(default_factory=dict)
    mode: Mode = "online"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Where a step's items come from, and which of them it takes.

    `source` is a path or glob relative to the manifest, `py:module:function`, `generate:N`, or
    "" for the collated output of the last step in `needs`, or `jobs:` for the jobs that
    `experiment` expands to. `whole` makes the entire input one
    item (`once: true` and `batch_mode: false`). `written` is what the manifest said in place of a
    `source` that was pinned to one version, such as `run:words@latest`. `guide` is what a guided
    sample goes by, as it was when the run was planned.
    """

    source: str = ""
    id_field: str = ""
    only: tuple[str, ...] | None = None
    skip: tuple[str, ...] = ()
    limit: int | None = None
    sample_n: int | None = None
    sample_method: Literal["random", "first", "guided"] = "random"
    sample_seed: int = 0
    whole: bool = False
    written: str = ""
    experiment: Experiment | None = None
    guide: Guide | None = None


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """How a step's outcomes become its collated file.

    `collate` is `module:function`, called with the list of outputs and returning the file's
    content; empty for an array in input order. `kept_id_field` is the field of the item's id that
    a later step goes by: it is added to outputs that lack it.
    """

    file: str
    id_field: str = ""
    id_start: int = 1
    source_id_field: str = ""
    kept_id_field: str = ""
    kept_id_is_number: bool = False
    dedup_by: tuple[str, ...] = ()
    dedup_keep: Literal["first", "last"] = "first"
    collate: str = ""


@dataclass(frozen=True, slots=True)
class Pacing:
    """How a step's items are cut into batches, and how fast these go out.

    `is_chosen` tells that the manifest says how many batches are in flight: so many items are
    then wanted at once, where nothing else says how many.
    """

    batch_size: int = 50
    concurrent_batches: int = 4
    batch_delay_s: float = 0.0
    is_chosen: bool = False

    @property
    def items_at_once(self) -> int:
        """The most items that are in flight."""
        return self.batch_size * self.concurrent_batches


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many failed items a step bears: a count, or a share of its items; None is any number."""

    max_failures: int | None = None
    max_failure_share: float | None = None


@dataclass(frozen=True, slots=True)
class UploadTerms:
    """What a step costs that goes in uploads, and what it would take online.

    A deadline is so many seconds from the start of the step, or a moment since the epoch.
    """

    cost_usd: float | None
    online_cost_usd: float | None
    online_s: float
    deadline_s: float | None = None
    deadline_at: float | None = None

    def of_share(self, share: float) -> UploadTerms:
        """The same for a share of the items."""

        def part(usd: float | None) -> float | None:
            return None if usd is None else usd * share

        costs = part(self.cost_usd), part(self.online_cost_usd)
        online_s = round(self.online_s * share, 1)
        return UploadTerms(*costs, online_s, self.deadline_s, self.deadline_at)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step as it will run. Estimates of a step whose input is not there yet are marked so.

    `skip_existing` is `newest` or a version: items that have an output there are taken over.
    `uploads` is there if its mode is not online.
    """

    spec: StepSpec
    input: InputSpec
    output: OutputSpec
    pacing: Pacing
    queue: str
    needs: tuple[str, ...]
    tolerance: Tolerance
    items: int
    items_are_estimated: bool
    batches: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    duration_s: float
    bound_by: str
    skip_existing: str = ""
    uploads: UploadTerms | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What the calls of a run may use, over all hosts; None is any amount.

    `tokens` counts input and output. `on_exceeded` says what becomes of the run at its end.
    """

    nusd: int | None = None
    tokens: int | None = None
    on_exceeded: Literal["pause", "fail"] = "pause"

    def with_amounts(self, nusd: int | None, tokens: int | None) -> Budget:
        """The same budget with other amounts, where they are given."""
        return replace(
            self,
            nusd=self.nusd if nusd is None else nusd,
            tokens=self.tokens if tokens is None else tokens,
        )


@dataclass(frozen=True, slots=True)
class Canary:
    """The first `items` of the first step run alone; more failures than allowed pause the run.

    Else `then` says whether it goes on by itself or asks.
    """

    items: int
    max_failures: int = 0
    then: Literal["ask", "go"] = "ask"


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook that is told of a run; both names are of variables, of the coordinator."""

    url_env: str
    format: Literal["json", "slack"] = "json"
    on: tuple[Event, ...] = EVENTS
    token_env: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a report, and whether less or more of it is better."""

    name: str
    goal: Goal = "max"


@dataclass(frozen=True, slots=True)
class ReportSpec:
    """What a report shows: the first metric ranks the jobs, `baseline` is what they are held to.

    `formats` are written at the end of the run.
    """

    formats: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    baseline: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a submit will do. `pipeline` is the name of the output folder."""

    name: str
    pipeline: str
    labels: Mapping[str, Any]
    status: str
    notes: str
    output_dir: str
    manifest_path: str
    base_dir: str
    params: Mapping[str, Any]
    steps: tuple[StepPlan, ...]
    hashes: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    version: int = 1
    budget: Budget | None = None
    canary: Canary | None = None
    report: ReportSpec | None = None
    notify: tuple[Hook, ...] = ()
    rounds: int = 1

    def step(self, number: int) -> StepPlan:
        """The step with this number, from 1."""
        return self.steps[number - 1]


RedoKind = Literal["none", "some", "all"]


@dataclass(frozen=True, slots=True)
class Redo:
    """What a rerun does in a step: nothing, the items chosen in the step `root`, or all of them."""

    kind: RedoKind
    root: int


@dataclass(frozen=True, slots=True)
class Rerun:
    """How a version builds on the one before it.

    `chosen` holds the indexes of the redone items for each step with an input of its own; `redo`
    has an entry for every step. Everything else is taken from the version `base` in `folder`,
    which is `../v1` for one that is beside it; where not all of a step is, `kept` has the ranges of
    indexes that are, each up to its second number.
    """

    base: str
    folder: str
    chosen: Mapping[int, tuple[int, ...]]
    redo: Mapping[int, Redo]
    kept: Mapping[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)


_adapters: dict[type[Any], Any] = {}


def _adapter(kind: type[Any]) -> Any:
    if kind not in _adapters:
        from pydantic import TypeAdapter  # takes 100 ms that `batchq --help` does not have

        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def prepare(*kinds: type[Any]) -> None:
    """Does what the first `encode` or `decode` of these would: tens of ms each."""
    for kind in kinds:
        _adapter(kind)


def is_remote(path: str) -> bool:
    """Whether a path is a URL such as s3://bucket/folder."""
    return "://" in path


def encode(value: Any) -> bytes:
    """Writes one of the frozen values of a plan, or of `outcome`, as JSON."""
    return bytes(_adapter(type(value)).dump_json(value))


def decode(kind: type[T], data: bytes | str) -> T:
    """Reads what `encode` wrote; raises pydantic's ValidationError on anything else."""
    value: T = _adapter(kind).validate_json(data)
    return value
