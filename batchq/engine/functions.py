"""Calls the Python functions of a manifest: tasks, and what is set up for them once a process."""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any
from weakref import WeakKeyDictionary

from batchq.engine.context import TaskContext
from batchq.engine.measure import Meter, numbers_in
from batchq.errors import LimitError, ProviderError, TaskError
from batchq.host.timelimit import TimeIsUp, time_limit
from batchq.outcome import Json
from batchq.plan import Item, StageSpec, Stats, StepSpec

_arities: WeakKeyDictionary[Callable[..., Any], int] = WeakKeyDictionary()
_states: dict[tuple[str, str], Any] = {}


def call_task(
    stage: StageSpec, item: Item, step: StepSpec, context: TaskContext, allowed: Sequence[str]
) -> Json:
    """Calls a task with as many of (item, params, context) as it takes.

    Raises TaskError; its `kind` is "task_not_allowed", "task_not_found", "setup", "task",
    "timeout" or "not_serializable".
    """
    function = find_function(stage.task, allowed)
    if stage.setup:
        context.state = _state_of(stage, step, allowed)
    meter = Meter()
    with context:
        if step.stats:
            context.begin()
        try:
            with meter if step.stats else nullcontext():
                value = _called(function, stage, step, [item.data, dict(step.params), context])
            found = as_json(context.as_value(value), stage.task, bears_nan=bool(step.stats))
        except TaskError:
            if step.stats:
                context.measured = meter.measured()
            raise
        kept = found
        if step.stats:
            kept = without_nan(found)
            metrics, problem = _metrics(step.stats, found, context, allowed)
            context.measured = meter.measured(_size(kept, context), metrics, problem)
        context.publish()
    return kept


def _size(value: Json, context: TaskContext) -> int:
    """The bytes of the files of a task, or of its output if it has none."""
    files = context.files()
    return sum(path.stat().st_size for path in files) if files else len(json.dumps(value))


def _metrics(
    stats: Stats, value: Json, context: TaskContext, allowed: Sequence[str]
) -> tuple[dict[str, float | None], str]:
    """The metrics of an output; hours of work are not failed for a fault in their function."""
    if not stats.metrics:
        return {}, ""
    if not stats.function:
        return numbers_in(value, stats.only), ""
    try:
        function = find_function(stats.function, allowed)
        arguments = [without_nan(value), context.params, context]
        found = as_json(function(*arguments[: _arity(function)]), stats.function, bears_nan=True)
    except TaskError as error:
        return {}, str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (user code may raise anything)
        return {}, f"{stats.function}: {type(error).__name__}: {error}"
    return numbers_in(found, stats.only), ""


def _called(
    function: Callable[..., Any], stage: StageSpec, step: StepSpec, arguments: list[Any]
) -> Any:
    """What a function gives, unless it waited in vain: what it made of that is no answer."""
    context: TaskContext = arguments[-1]
    try:
        return _answered(function, stage, step, arguments)
    finally:
        if context.halted is not None:
            raise context.halted


def _answered(
    function: Callable[..., Any], stage: StageSpec, step: StepSpec, arguments: list[Any]
) -> Any:
    try:
        with time_limit(step.timeout_s):
            return function(*arguments[: _arity(function)])
    except (ProviderError, TaskError, LimitError):
        raise
    except TimeIsUp as error:
        message = f"{stage.task} did not end within {step.timeout_s:g} s"
        raise TaskError(message, kind="timeout", retryable=True) from error
    except SystemExit as error:
        message = f"{stage.task} called sys.exit({error.code!r})"
        raise TaskError(message, kind="task") from error
    except MemoryError as error:
        raise TaskError(_no_memory(stage.task, error), kind="memory") from error
    except Exception as error:
        # The border to user code: whatever it raises is data about this item.
        message = f"{type(error).__name__}: {error}"
        raise TaskError(message, kind="task", retryable=True) from error


def _no_memory(task: str, error: MemoryError) -> str:
    """Python says nothing of how much it wanted, NumPy does."""
    return f"{task} ran out of memory" + (f": {error}" if str(error) else "")


def _state_of(stage: StageSpec, step: StepSpec, allowed: Sequence[str]) -> Any:
    """What the setup function gave in this process; it is called once for the same parameters."""
    key = (stage.setup, json.dumps(dict(step.params), sort_keys=True, default=str))
    if key not in _states:
        function = find_function(stage.setup, allowed)
        arguments = [dict(step.params)]
        try:
            _states[key] = function(*arguments[: _arity(function)])
        except (Exception, SystemExit) as error:  # user code, which may raise anything
            message = f"{stage.setup}: {type(error).__name__}: {error}"
            raise TaskError(message, kind="setup", retryable=True) from error
    return _states[key]


def as_json(value: Any, source: str, *, bears_nan: bool = False) -> Json:
    """Checks that a value is JSON and returns it as JSON reads it back (tuples as lists).

    Arrays and numbers of NumPy, and what else has a `tolist`, are what that gives.
    """
    try:
        text = json.dumps(value, allow_nan=bears_nan, ensure_ascii=False, default=_listed)
        return json.loads(text.encode())
    except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
        message = f"{source} returned something that is not JSON: {error}"
        raise TaskError(message, kind="not_serializable") from error


def _listed(value: Any) -> Any:
    give = getattr(value, "tolist", None)
    if callable(give):
        return give()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def without_nan(value: Json) -> Json:
    """The same value with null for what is NaN or infinite: a job of hours is not lost for it."""
    text = json.dumps(value)
    if "NaN" not in text and "Infinity" not in text:
        return value
    return json.loads(text, parse_constant=lambda _: None)


def find_function(reference: str, allowed: Sequence[str]) -> Callable[..., Any]:
    """Imports `module:function` if one of the patterns allows it; raises TaskError if not."""
    module_name, _, name = reference.partition(":")
    if not any(
        fnmatch.fnmatchcase(part, pattern)
        for pattern in allowed
        for part in (module_name, reference)
    ):
        raise TaskError(
            f"this worker may not run {reference}: start it with "
            f"BATCHQ_TASKS='[\"{module_name}\"]' or add the module to `tasks` in batchq.toml",
            kind="task_not_allowed",
        )
    try:
        function = getattr(importlib.import_module(module_name), name)
    except Exception as error:
        raise TaskError(
            f"cannot import {reference} on this worker: {type(error).__name__}: {error}; "
            "install the module there or put its folder on PYTHONPATH",
            kind="task_not_found",
        ) from error
    if not callable(function):
        raise TaskError(f"{reference} is not a function", kind="task_not_found")
    return function  # type: ignore[no-any-return]  # callable() narrows Any to no signature


def _arity(function: Callable[..., Any]) -> int:
    """How many of (item, params, context) a function takes; looked at once, it takes 50 us."""
    try:
        return _arities[function]
    except (KeyError, TypeError):  # a callable may have no hash, or bear no reference
        found = _looked_up(function)
    with suppress(TypeError):
        _arities[function] = found
    return found


def _looked_up(function: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return 3
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return min(3, sum(p.kind in positional for p in parameters))
