"""How the calls of a step go: online or in uploads, the batches of a provider, at a lower price."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema

from batchq.manifest.guards import unless_false
from batchq.manifest.scalars import parse_duration, shown, wrong
from batchq.plan import Mode

Report = Callable[[tuple[str | int, ...], str, str], None]

UPLOAD_KINDS = ("openai", "anthropic", "simulator")
"""The kinds of providers that take uploads."""
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}.*")
_EXAMPLE = "6h, or 2026-11-22T06:00+01:00"
_ONE_CALL = "an upload has one call for each item, and this step has"


def parse_deadline(value: Any) -> float | str:
    """Reads a duration as seconds, or a moment with its zone as ISO 8601 in UTC."""
    if not isinstance(value, str) or not _MOMENT.fullmatch(value.strip()):
        seconds = parse_duration(value)
        if seconds <= 0:
            raise wrong(f"must be longer than 0s, found {shown(value)}")
        return seconds
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError as error:
        raise wrong(f"expected a deadline such as {_EXAMPLE}, found {shown(value)}") from error
    if moment.tzinfo is None:
        raise wrong(f"a moment needs its time zone, such as {value.strip()}Z, found {shown(value)}")
    return moment.astimezone(UTC).isoformat()


Deadline = Annotated[
    float | str,
    BeforeValidator(parse_deadline),
    WithJsonSchema({"type": ["string", "number"], "examples": ["6h", "2026-11-22T06:00+01:00"]}),
]
ModeKey = Annotated[
    Literal["online", "batch", "auto"] | None,
    BeforeValidator(unless_false),
]


def mode_of(levels: Sequence[Any]) -> Mode:
    """The mode that counts, of parts of a manifest from the step to its provider."""
    return next((one.mode for one in levels if one.mode is not None), "online")


def deadline_of(levels: Sequence[Any]) -> float | str | None:
    """The deadline that counts: seconds or a moment; None if there is none."""
    return next((one.deadline for one in levels if one.deadline is not None), None)


def check_modes(data: Mapping[str, Any], now: datetime, report: Report) -> None:
    """Reports steps that cannot go in uploads, and deadlines that make no sense."""
    config, providers = _mapping(data.get("config")), _mapping(data.get("providers"))
    levels: list[tuple[tuple[str | int, ...], Mapping[str, Any]]] = [(("config",), config)]
    levels += [(("providers", name), _mapping(one)) for name, one in providers.items()]
    steps = data.get("steps") if isinstance(data.get("steps"), list) else []
    levels += [(("steps", index), _mapping(step)) for index, step in enumerate(steps or ())]
    for key, part in levels:
        _check_deadline((*key, "deadline"), part.get("deadline"), now, report)
    for index, raw in enumerate(steps or ()):
        _check_step(("steps", index), _mapping(raw), config, providers, report)
    if not steps and config.get("mode") in ("batch", "auto"):
        report(("config", "mode"), f"{_ONE_CALL} a `task`", "only prompts go in uploads")


def _check_step(
    key: tuple[str | int, ...],
    step: Mapping[str, Any],
    config: Mapping[str, Any],
    providers: Mapping[str, Any],
    report: Report,
) -> None:
    name = step.get("provider") or config.get("provider")
    if name is None and len(providers) == 1:
        name = next(iter(providers))
    provider = _mapping(providers.get(name)) if isinstance(name, str) else {}
    levels = ((key, step), (("config",), config), (("providers", str(name)), provider))
    at, mode = _first(levels, "mode")
    deadline_at, deadline = _first(levels, "deadline")
    if mode != "auto" and deadline is not None and deadline_at[0] == "steps":
        hint = "mode: auto" if mode != "batch" else "mode: auto, or leave the deadline out"
        report(deadline_at, "only `mode: auto` can keep a deadline: it goes online in time", hint)
    if mode not in ("batch", "auto"):
        return
    where = at if at[0] == "steps" else (*key, "name")
    said = "" if at[0] == "steps" else f"`mode: {mode}` of {at[0]}: "
    for kind in ("stages", "task", "command"):
        if step.get(kind) is not None:
            parts = "`stages`" if kind == "stages" else f"a `{kind}`"
            report(where, f"{said}{_ONE_CALL} {parts}", "mode: online here")
            return
    endpoint = provider.get("kind")
    if isinstance(endpoint, str) and endpoint not in UPLOAD_KINDS:
        known = ", ".join(UPLOAD_KINDS)
        message = f"{said}`{name}` is of `kind: {endpoint}`, which takes no uploads"
        report(where, message, f"mode: online here; kinds that do: {known}")


def _check_deadline(key: tuple[str | int, ...], value: Any, now: datetime, report: Report) -> None:
    if not isinstance(value, str):
        return
    try:
        deadline = parse_deadline(value)
    except ValueError:
        return  # told with the types
    if isinstance(deadline, str) and datetime.fromisoformat(deadline) <= now:
        report(key, f"{value} is past", "a later moment, or how long from the start: 6h")


def _first(
    levels: Sequence[tuple[tuple[str | int, ...], Mapping[str, Any]]], name: str
) -> tuple[tuple[str | int, ...], Any]:
    for key, part in levels:
        if part.get(name) not in (None, False):
            return (*key, name), part[name]
    return (), None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
