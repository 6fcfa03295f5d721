"""Reads a step's items from where they come from, one by one, each with its id and position."""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from batchq.errors import PlanError
from batchq.guided import Guide, choose, pool_size
from batchq.outcome import Json
from batchq.plan import InputSpec, Item, Plan
from batchq.planning.reference import values_of
from batchq.planning.seen import Seen
from batchq.planning.sources import Row, kind_of, read_rows
from batchq.text.prompts import flatten

WHOLE_ID = "all"


def read_items(
    spec: InputSpec,
    base_dir: Path | str,
    previous: Iterable[Json] | None = None,
    *,
    params: Mapping[str, Any] | None = None,
) -> Iterator[Item]:
    """Reads the items that a step takes, in input order; JSONL, CSV and files are streamed.

    Args:
        spec: Where they come from and which are taken: `only` and `skip`, then `sample`, then
            `limit`.
        base_dir: The folder that relative paths start from.
        previous: The collated output that a step without an input of its own reads.
        params: Handed to a `py:` source that takes an argument.

    Raises:
        PlanError: the input is missing, broken or empty, or an id is missing or there twice.
    """
    name = spec.source or "the output before it"

    def again() -> Iterator[Row]:
        return read_rows(spec, Path(base_dir), previous, params or {})

    rows = again()
    if spec.whole:
        yield _whole(spec, name, rows)
        return
    count = 0
    for item in _taken(spec, _identified(spec, rows, again if previous is None else None)):
        count += 1
        yield item
    if count == 0:
        raise PlanError(f"{name}: no items are left to run: it is empty, or all are skipped")


def _whole(spec: InputSpec, name: str, rows: Iterator[Row]) -> Item:
    """The entire input as one item; its data is the array of what `only` and the rest leave."""
    if not (spec.only is not None or spec.skip or spec.limit or spec.sample_n):
        found = list(rows)
        if [place for place, _ in found] == [spec.source]:  # one JSON document that is no array
            return Item(WHOLE_ID, 0, found[0][1])
        values = [value for _, value in found]
    else:
        values = [item.data for item in _taken(spec, _identified(spec, rows))]
    if not values:
        raise PlanError(f"{name}: the input is empty")
    return Item(WHOLE_ID, 0, values)


def _taken(spec: InputSpec, items: Iterator[Item]) -> Iterator[Item]:
    chosen = _chosen(spec, items)
    if spec.sample_n is not None:
        if spec.guide is not None:
            chosen = iter(_guided(chosen, spec.sample_n, spec.sample_seed, spec.guide))
        elif spec.sample_method == "random":
            chosen = iter(_sample(chosen, spec.sample_n, spec.sample_seed))
        else:
            chosen = islice(chosen, spec.sample_n)
    return islice(chosen, spec.limit)


def _sample(items: Iterator[Item], n: int, seed: int) -> list[Item]:
    """Takes n at random in one pass, holding no more than n (algorithm R), in input order."""
    rng = random.Random(seed)
    kept: list[Item] = []
    for number, item in enumerate(items):
        if number < n:
            kept.append(item)
        elif (place := rng.randrange(number + 1)) < n:
            kept[place] = item
    return sorted(kept, key=lambda item: item.index)


def _guided(items: Iterator[Item], n: int, seed: int, guide: Guide) -> list[Item]:
    """Takes the n that come nearest to the reference, in input order."""
    pool = _sample(items, pool_size(n), seed)
    values = [values_of(item.data, guide.by) for item in pool]
    for name in guide.by:
        if pool and not any(name in one for one in values):
            known = [key for key in flatten(pool[0].data) if key != "item"]
            raise PlanError(
                f"sample: by: none of the items has `{name}`; they have: "
                f"{', '.join(known[:30]) or 'no fields at all'}"
            )
    places = choose(values, n, guide, seed)
    return [pool[place] for place in sorted(places)]


def _chosen(spec: InputSpec, items: Iterator[Item]) -> Iterator[Item]:
    only = None if spec.only is None else set(spec.only)
    skip = set(spec.skip)
    unseen = (only or set()) | skip
    seen: list[str] = []
    for item in items:
        if unseen:
            seen.append(item.id)
            unseen.discard(item.id)
        if item.id not in skip and (only is None or item.id in only):
            yield item
    if unseen:
        wanted = sorted(unseen)[0]
        close = difflib.get_close_matches(wanted, seen, n=3, cutoff=0.5)
        hint = f"nearest: {', '.join(close)}" if close else f"ids are such as {', '.join(seen[:5])}"
        where = "only" if only and wanted in only else "skip"
        more = f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""
        raise PlanError(f"{where}: no item has the id `{wanted}`{more}; {hint}")


def _identified(
    spec: InputSpec, rows: Iterator[Row], again: Callable[[], Iterator[Row]] | None = None
) -> Iterator[Item]:
    """Gives each row its id; where rows can be read `again`, ids take no memory to speak of."""
    if not spec.id_field or spec.experiment is not None:  # positions and names are unique
        for index, (place, value) in enumerate(rows):
            yield Item(str(index) if spec.experiment is None else place, index, value)
        return
    seen, places = Seen(), dict[str, str]()
    for index, (place, value) in enumerate(rows):
        item_id = _id(spec.id_field, place, value)
        if again is None:
            first = places.get(item_id)
            places[item_id] = place
        else:
            first = _first(spec, again(), item_id, index) if seen.add(item_id) else None
        if first is not None:
            raise PlanError(
                f"{place}: the id `{_short(item_id)}` is there twice, first at {first}; ids must "
                "be unique, or leave out `id_field`"
            )
        yield Item(item_id, index, value)


def _first(spec: InputSpec, rows: Iterator[Row], item_id: str, before: int) -> str | None:
    """The place of the first row with an id, of so many rows; None if only its hash was there."""
    for place, value in islice(rows, before):
        if _id(spec.id_field, place, value) == item_id:
            return place
    return None


def _id(id_field: str, place: str, value: Json) -> str:
    if not isinstance(value, Mapping):
        raise PlanError(
            f"{place}: `id_field: {id_field}` needs objects, this is {kind_of(value)}; "
            "leave `id_field` out to use the position"
        )
    found = value[id_field] if id_field in value else flatten(value).get(id_field)
    if id_field == "item" and id_field not in value:
        found = None
    if found is None:
        names = [name for name in flatten(value) if name != "item"]
        close = difflib.get_close_matches(id_field, names, n=1)
        hint = f"did you mean `{close[0]}`? " if close else ""
        raise PlanError(
            f"{place}: no field `{id_field}` to take the id from; {hint}it has: "
            f"{', '.join(names[:30]) or 'no fields at all'}"
        )
    if isinstance(found, bool | Mapping | list):
        raise PlanError(
            f"{place}: the id in `{id_field}` is {kind_of(found)}; use a text or a number"
        )
    item_id = str(found)
    if not item_id.strip():
        raise PlanError(f"{place}: the id in `{id_field}` is empty")
    return item_id


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def without_sample(plan: Plan, number: int) -> Plan:
    """The same plan, with a step that takes all that `only` and `skip` leave."""
    steps = tuple(
        replace(step, input=replace(step.input, sample_n=None, limit=None, guide=None))
        if step.spec.number == number
        else step
        for step in plan.steps
    )
    return replace(plan, steps=steps)
