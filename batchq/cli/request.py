"""The options that choose what of a manifest is run, shared by plan, submit and validate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batchq.actions.preflight import require_sound_simulators

if TYPE_CHECKING:
    from batchq.manifest.models import Manifest

F = TypeVar("F", bound=Callable[..., Any])


class NameValue(click.ParamType[tuple[str, str]]):
    """NAME=VALUE, as a pair."""

    name = "NAME=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Splits at the first equals sign."""
        if isinstance(value, tuple):
            return value
        key, separator, rest = str(value).partition("=")
        if not separator or not key:
            self.fail(f"{value!r} is not NAME=VALUE, such as count=5", param, ctx)
        return key, rest


class Ids(click.ParamType[tuple[str, ...]]):
    """Item ids with commas between them."""

    name = "ID,.."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Splits at commas."""
        if isinstance(value, tuple):
            return value
        ids = tuple(part.strip() for part in str(value).split(",") if part.strip())
        if not ids:
            self.fail("give at least one id", param, ctx)
        return ids


class Amount(click.ParamType[int]):
    """An amount of a budget, read as the manifest reads it."""

    def __init__(self, name: str, reader: str) -> None:
        self.name = name
        self._reader = reader

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Reads it, and says what is wrong with it in the words of the manifest."""
        if isinstance(value, int):
            return value
        from pydantic_core import PydanticCustomError  # pydantic: not for --help

        from batchq.manifest import scalars

        try:
            amount: int = getattr(scalars, self._reader)(value)
        except PydanticCustomError as error:
            self.fail(error.message(), param, ctx)
        return amount


_MANIFEST = click.Path(exists=True, dir_okay=False, path_type=Path)
manifest_argument = click.argument("file", type=_MANIFEST)
optional_manifest_argument = click.argument("file", type=_MANIFEST, required=False)
params_option = click.option(
    "-p",
    "--param",
    "params",
    type=NameValue(),
    multiple=True,
    help="Set a param of the manifest. May be given many times.",
)
concurrency_option = click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    envvar="CONCURRENCY",
    show_envvar=True,
    help="Calls in flight at a time, at most.",
)
_BUDGET = (
    click.option(
        "--max-cost",
        type=Amount("USD", "parse_usd"),
        help="Dollars that the run may cost; over it, it pauses.",
    ),
    click.option(
        "--max-tokens",
        type=Amount("N", "parse_token_budget"),
        help="Tokens that the run may use, such as 2M.",
    ),
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_CHOICES = (
    params_option,
    click.option("--status", metavar="S", help="Status of the version: draft, beta, final, ..."),
    click.option("--note", metavar="T", help="A note that is kept with the version."),
    click.option("--only", type=Ids(), help="Run these items only."),
    click.option("--skip", type=Ids(), help="Leave these items out."),
    click.option(
        "--job", "jobs", metavar="GLOB", multiple=True, help="Run these jobs of an experiment only."
    ),
    click.option("--limit", type=click.IntRange(min=1), help="Run the first N items only."),
    click.option("--steps", metavar="A..B", help="Run these steps only, by name or number."),
    click.option("--yes", is_flag=True, help="Do not ask after the canary: go on if it went well."),
    click.option("--no-cache", is_flag=True, help="Ask anew for every answer, and keep the new."),
    concurrency_option,
)


CHOICES = (
    *("params", "status", "note", "only", "skip", "jobs", "limit", "steps", "yes", "no_cache"),
    *("concurrency", "max_cost", "max_tokens"),
)
"""The names of these options, as `load_request` takes them."""


def budget_options(function: F) -> F:
    """Adds the options that set or raise a run's budget."""
    for option in reversed(_BUDGET):
        function = option(function)
    return function


def choice_options(function: F) -> F:
    """Adds the options that `load_request` takes."""
    for option in reversed((*_CHOICES, *_BUDGET)):
        function = option(function)
    return function


def load_request(
    file: Path,
    *,
    params: tuple[tuple[str, str], ...],
    status: str | None = None,
    note: str | None = None,
    only: tuple[str, ...] | None = None,
    skip: tuple[str, ...] | None = None,
    jobs: tuple[str, ...] = (),
    limit: int | None = None,
    steps: str | None = None,
    concurrency: int | None = None,
    no_cache: bool = False,
    max_cost: int | None = None,
    max_tokens: int | None = None,
    yes: bool = False,
) -> Manifest:
    """Loads a manifest with what the command line sets over it, and pins its inputs."""
    from batchq.manifest.labels import check_label
    from batchq.manifest.loader import Overrides, load_manifest  # pydantic and YAML: not for --help
    from batchq.runs.pins import pin_inputs

    if status is not None:
        check_label(status)
    overrides = Overrides(
        status=status,
        note=note,
        only=only,
        skip=skip or (),
        jobs=jobs,
        limit=limit,
        steps=steps,
        concurrency=concurrency,
        no_cache=no_cache,
        max_cost_nusd=max_cost,
        max_tokens=max_tokens,
        asks_nothing=yes,
    )
    manifest = load_manifest(file, dict(params), overrides=overrides)
    require_sound_simulators(manifest)
    return pin_inputs(manifest)
