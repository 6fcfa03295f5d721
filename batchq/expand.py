"""Expands an experiment into its jobs: the list that is written out, and the matrix. Pure."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Method = Literal["grid", "zip", "random"]
Params = Mapping[str, Any]
Key = tuple[str | int, ...]

EXPAND_AT_MOST = 1_000_000
"""More combinations than this are refused without a look at what `exclude` leaves of them."""

_GENERIC = {"size", "count", "num", "value", "rate", "ratio"}
_SHORT_LETTERS = 6
_LABEL_LETTERS = 40
_UNSAFE = re.compile(r"[^\w.+-]+")
_FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is written out; it runs `repeats` times."""

    name: str
    params: Params = field(default_factory=dict)
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class Matrix:
    """Axes whose values are combined: all with all, side by side, or `samples` at random."""

    axes: Mapping[str, tuple[Any, ...]]
    base_params: Params = field(default_factory=dict)
    exclude: tuple[Params, ...] = ()
    include: tuple[Params, ...] = ()
    name: str = ""
    method: Method = "grid"
    samples: int | None = None
    seed: int = 0
    repeats: int = 1
    max_jobs: int = 256


@dataclass(frozen=True, slots=True)
class Experiment:
    """Jobs and a matrix over one `config`, which every job has under its own parameters."""

    config: Params = field(default_factory=dict)
    jobs: tuple[Job, ...] = ()
    matrix: Matrix | None = None


@dataclass(frozen=True, slots=True)
class NamedJob:
    """A job as it is run: its unique name, and all of its parameters.

    `setting` is what the repeats of one setting are called together; "" for a job without.
    """

    name: str
    params: Params
    setting: str = ""


class ExpandError(ValueError):
    """An experiment cannot be expanded; `key` is the place in it, `hint` what to do."""

    def __init__(self, key: Key, message: str, hint: str = "") -> None:
        self.key = key
        self.hint = hint
        super().__init__(message)


def expand(experiment: Experiment) -> list[NamedJob]:
    """Gives all jobs of an experiment, those written out first.

    Raises:
        ExpandError: there are too many, which is known before any is made, or two have one name,
            or none is left.
    """
    jobs: list[NamedJob] = []
    places: dict[str, Key] = {}
    for index, job in enumerate(experiment.jobs):
        params = {**experiment.config, **job.params}
        for named in _repeated(job.name, params, job.repeats, 0):
            _claim(places, named.name, ("jobs", index, "name"))
            jobs.append(named)
    if experiment.matrix is not None:
        for named in _of_matrix(experiment.matrix, experiment.config):
            _claim(places, named.name, ("matrix", "name"))
            jobs.append(named)
    if not jobs:
        raise ExpandError(("matrix", "exclude"), "all combinations are excluded: no job is left")
    return jobs


def warnings_of(experiment: Experiment) -> list[str]:
    """What is odd in an experiment, though it can be run: an `exclude` that matches nothing."""
    matrix = experiment.matrix
    if matrix is None:
        return []
    axes, found = matrix.axes, []
    rows = list(zip(*axes.values(), strict=True)) if matrix.method == "zip" else []
    for index, entry in enumerate(matrix.exclude):
        if rows:
            is_there = any(_matches(entry, dict(zip(axes, row, strict=True))) for row in rows)
        else:
            is_there = all(
                any(_same(value, other) for other in axes[axis]) for axis, value in entry.items()
            )
        if not is_there:
            text = json.dumps(dict(entry), ensure_ascii=False)
            found.append(f"matrix.exclude[{index}] matches no combination: {text}")
    return found


def _claim(places: dict[str, Key], name: str, key: Key) -> None:
    if name in places:
        first = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in places[name])
        hint = "put an axis that differs into `name`" if key[0] == "matrix" else ""
        raise ExpandError(key, f"two jobs are called `{name}`; the first is {first[1:]}", hint)
    places[name] = key


def _of_matrix(matrix: Matrix, config: Params) -> list[NamedJob]:
    _check_names(matrix)
    _check_number(matrix, _number(matrix))
    combinations = list(_combinations(matrix))
    _check_number(matrix, len(combinations))
    originals = [dict(one) for one in combinations]
    added = _include(matrix, combinations, originals)
    _check_number(matrix, len(combinations) + len(added))
    keys = [*originals, *added]  # what names a job: not what `include` only adds to one
    params = [{**config, **matrix.base_params, **one} for one in (*combinations, *added)]
    names = _names(matrix, keys, params)
    return [
        named
        for base, one in zip(names, params, strict=True)
        for named in _repeated(base, one, matrix.repeats, matrix.seed)
    ]


def _check_names(matrix: Matrix) -> None:
    for index, entry in enumerate(matrix.exclude):
        for axis in entry:
            if axis not in matrix.axes:
                close = difflib.get_close_matches(axis, matrix.axes, n=1)
                hint = f"did you mean `{close[0]}`?" if close else f"axes: {', '.join(matrix.axes)}"
                raise ExpandError(("matrix", "exclude", index, axis), f"no axis `{axis}`", hint)
    lengths = {axis: len(values) for axis, values in matrix.axes.items()}
    if matrix.method == "zip" and len(set(lengths.values())) > 1:
        listed = ", ".join(f"{axis} {length}" for axis, length in lengths.items())
        raise ExpandError(
            ("matrix", "axes"), f"`method: zip` needs axes of one length, these have: {listed}"
        )


def _number(matrix: Matrix) -> int:
    """How many combinations there are, at most: nothing is expanded to know it."""
    if matrix.method == "zip":
        return max(map(len, matrix.axes.values()), default=0)
    whole = math.prod(map(len, matrix.axes.values())) if matrix.axes else 0
    return whole if matrix.method == "grid" else min(whole, matrix.samples or 0)


def _check_number(matrix: Matrix, combinations: int) -> None:
    number = combinations * matrix.repeats
    can_shrink = matrix.exclude and number == _number(matrix) * matrix.repeats
    if number <= (EXPAND_AT_MOST if can_shrink else min(matrix.max_jobs, EXPAND_AT_MOST)):
        return
    shape = " x ".join(str(len(values)) for values in matrix.axes.values())
    times = f" x {matrix.repeats} repeats" if matrix.repeats > 1 else ""
    if number > EXPAND_AT_MOST:
        hint = "fewer values, or `method: random` with `samples: 200`"
        raise ExpandError(
            ("matrix", "axes"),
            f"{shape}{times} makes {number:,} jobs; at most {EXPAND_AT_MOST:,} can be",
            hint,
        )
    raise ExpandError(
        ("matrix", "axes"),
        f"{shape}{times} makes {number:,} jobs, and `max_jobs` is {matrix.max_jobs:,}",
        f"if all are wanted: max_jobs: {number}; or `method: random` with `samples: 50`",
    )


def _combinations(matrix: Matrix) -> Iterator[dict[str, Any]]:
    axes = matrix.axes
    if matrix.method == "zip":
        rows: Iterable[Sequence[Any]] = zip(*axes.values(), strict=True)
    elif matrix.method == "grid":
        rows = itertools.product(*axes.values()) if axes else ()
    else:
        rows = _drawn(matrix)
    taken = (dict(zip(axes, row, strict=True)) for row in rows)
    kept = (one for one in taken if not any(_matches(entry, one) for entry in matrix.exclude))
    return itertools.islice(kept, matrix.samples) if matrix.method == "random" else kept


def _drawn(matrix: Matrix) -> Iterator[list[Any]]:
    """Combinations in random order, each once, without making a list of all."""
    values = list(matrix.axes.values())
    whole = math.prod(map(len, values))
    for number, at in enumerate(_shuffled(whole, random.Random(matrix.seed))):
        if number >= EXPAND_AT_MOST:
            return  # `exclude` leaves next to nothing
        row = []
        for axis in reversed(values):
            at, place = divmod(at, len(axis))
            row.append(axis[place])
        yield row[::-1]


def _shuffled(number: int, rng: random.Random) -> Iterator[int]:
    """Gives 0 to number - 1 in random order; holds only what it has given (Fisher-Yates)."""
    moved: dict[int, int] = {}
    for last in range(number - 1, -1, -1):
        at = rng.randrange(last + 1)
        at_last = moved.pop(last, last)
        if at == last:
            yield at_last
        else:
            yield moved.get(at, at)
            moved[at] = at_last


def _include(
    matrix: Matrix, combinations: list[dict[str, Any]], originals: Sequence[Params]
) -> list[dict[str, Any]]:
    """Adds each entry to the combinations that it fits, else as one of its own.

    It fits where it changes no value of an axis, as in a matrix of GitHub Actions.
    """
    added = []
    for entry in matrix.include:
        own = {axis: value for axis, value in entry.items() if axis in matrix.axes}
        fits = [one for one, was in zip(combinations, originals, strict=True) if _matches(own, was)]
        for one in fits:
            one.update(entry)
        if not fits:
            added.append(dict(entry))
    return added


def _matches(entry: Params, combination: Params) -> bool:
    return all(_same(value, combination[axis]) for axis, value in entry.items())


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 is 1.0, but not true."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _repeated(name: str, params: Params, repeats: int, seed: int) -> Iterator[NamedJob]:
    """The repeats of a job. Each has a `seed` of its own, which all settings share.

    So the second repeats of two settings differ in the setting alone.
    """
    if repeats == 1:
        yield NamedJob(name.replace("{repeat}", "1"), dict(params))
        return
    setting = name.replace("{repeat}", "*")
    base = params.get("seed", seed)
    for number in range(1, repeats + 1):
        digest = hashlib.sha256(f"{base}/{number}".encode()).digest()
        own = int.from_bytes(digest[:4], "big") >> 1  # 31 bits: what every generator takes
        given = name.replace("{repeat}", str(number)) if "{repeat}" in name else f"{name}_r{number}"
        yield NamedJob(given, {**params, "seed": own}, setting)


def _names(matrix: Matrix, keys: Sequence[Params], params: Sequence[Params]) -> list[str]:
    if matrix.name:
        return [_filled(matrix.name, one) for one in params]
    shorts = Counter(map(short_name, matrix.axes))

    def short(axis: str) -> str:
        name = short_name(axis)
        return axis if shorts[name] > 1 else name

    for word in (short, str):
        names = [_joined(one, word) for one in keys]
        if len(set(names)) == len(names):
            return names
    seen: Counter[str] = Counter()
    unique = []
    for name in names:  # values that differ only in what a name cannot hold
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return unique


def _joined(values: Params, word: Callable[[str], str]) -> str:
    return "_".join(["matrix", *(f"{word(axis)}{_label(value)}" for axis, value in values.items())])


def short_name(axis: str) -> str:
    """The word of an axis in names of jobs: `leaf` of min_leaf_size, `thresh` of a threshold."""
    words = [word for word in re.split(r"[\W_]+", axis) if word] or [axis]
    if len(words) > 1 and words[-1].lower() in _GENERIC:
        words.pop()
    return words[-1][:_SHORT_LETTERS]


def _label(value: Any) -> str:
    """A value in a name: short, and safe in a file's name."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _UNSAFE.sub("-", text)[:_LABEL_LETTERS] or "empty"


def _filled(template: str, params: Params) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return match[0][0]
        if name == "repeat":
            return match[0]  # known when the repeats are made
        if name not in params:
            close = difflib.get_close_matches(name, params, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"there are: {', '.join(params)}"
            raise ExpandError(("matrix", "name"), f"a job has no `{name}`", hint)
        return _label(params[name])

    return _FIELD.sub(fill, template)
