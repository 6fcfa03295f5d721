from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.store.listing import BatchSpan
from batchq.web.drawing import bar_parts, columns
from batchq.web.reader import Look
from batchq.web.run_page import _latency
from batchq.web.throughput import live_spans, spread

TIMES = st.floats(0, 100_000, allow_nan=False)
SPANS = st.lists(
    st.builds(
        lambda start, took, ok, failed: BatchSpan(1, start, start + took, ok, failed),
        TIMES, st.floats(0, 5000), st.integers(0, 500), st.integers(0, 50),
    ),
    min_size=1, max_size=20,
)  # fmt: skip


@given(SPANS)
def test_no_item_is_lost_however_batches_lie(spans: Sequence[BatchSpan]) -> None:
    found = spread(spans, spans[0].start, spans[-1].end)

    assert sum(found.ok) == pytest.approx(sum(one.ok for one in spans), abs=1e-3)
    assert sum(found.failed) == pytest.approx(sum(one.failed for one in spans), abs=1e-3)
    assert len(found.ok) <= 62
    assert min(found.ok) >= 0


def test_a_run_that_is_watched_is_drawn_by_what_was_seen_of_it() -> None:
    batches = [BatchSpan(1, 0.0, 10.0, 20, 0), BatchSpan(1, 8.0, 30.0, 20, 4)]
    looks = [Look(20.0, 30, 2), Look(22.0, 30, 2), Look(24.0, 40, 4)]

    found = live_spans(batches, looks, 0.0)

    assert found == [
        BatchSpan(1, 0.0, 10.0, 20, 0),
        BatchSpan(0, 10.0, 20.0, 10, 2),
        BatchSpan(0, 22.0, 24.0, 10, 2),
    ]


def test_nothing_is_drawn_below_the_ground_where_a_retry_takes_failures_back() -> None:
    looks = [Look(20.0, 30, 2), Look(22.0, 32, 0)]

    found = live_spans([], looks, 0.0)

    assert [(one.ok, one.failed) for one in found] == [(30, 2), (2, 0)]


@given(st.fixed_dictionaries({name: st.integers(0, 10**7) for name in
                              ("ok", "cached", "failed", "running", "rest")}))  # fmt: skip
def test_a_bar_is_never_longer_than_it_is_and_shows_all_that_there_is(bar: dict[str, int]) -> None:
    parts = bar_parts(bar | {"total": sum(bar.values())})

    assert sum(one.width for one in parts) <= 100.1
    assert {one.kind for one in parts} == {name for name in bar if bar[name] and name != "rest"}
    assert all(one.width > 0 for one in parts)


def test_columns_of_nothing_are_drawn_all_the_same() -> None:
    assert columns([0.0, 0.0]).most == 0
    assert [one.low for one in columns([1, 4], [1, 0]).columns] == [25.0, 100.0]


def colours(text: str) -> list[dict[str, str]]:
    """The colours of a style, light and dark."""
    light, _, dark = text.partition("prefers-color-scheme: dark")
    return [dict(re.findall(r"(--[a-z]+): (#\w+)", one)) for one in (light, dark)]


@pytest.mark.parametrize("place", ["report/style.css", "cli/comparison.html.j2"])
def test_pages_and_reports_have_the_same_colours(place: str) -> None:
    package = files("batchq")
    ours = colours(package.joinpath("web/static/palette.css").read_text("utf-8"))
    theirs = colours(package.joinpath(place).read_text("utf-8"))

    for mine, other in zip(ours, theirs, strict=True):
        assert len(mine.keys() & other.keys()) > 5
        assert {name: mine[name] for name in mine if name in other} == {
            name: other[name] for name in mine if name in other
        }


@pytest.mark.parametrize(
    ("durations", "longest", "bars"),
    [([0.0] * 9, 0.0, [9]), ([*([0.001] * 97), 5.0, 6.0, 20.0], 20.0, [97, 0, 0, 0, 3])],
)
def test_latency_is_drawn_where_items_take_no_time_and_where_few_take_long(
    durations: list[float], longest: float, bars: list[int]
) -> None:
    step = SimpleNamespace(number=1, collated=1, state="done")
    listing = SimpleNamespace(durations=lambda _run, _step: durations)

    told = _latency(
        SimpleNamespace(listing=listing), SimpleNamespace(run="r"), SimpleNamespace(steps=[step])
    )

    assert told is not None
    assert told["longest_s"] == longest
    counts = [one["count"] for one in told["bars"]]
    assert (counts[0], counts[-1], sum(counts)) == (bars[0], bars[-1], len(durations))
