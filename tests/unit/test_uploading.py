"""What fits into an upload, when it is looked at, and when the rest has to go online."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchq.engine.canary import judge_canary
from batchq.engine.uploading import (
    Bounds,
    Load,
    index_of,
    line_id,
    look_after_s,
    retry_after_s,
    tag_of,
)
from batchq.manifest.loader import load_manifest
from batchq.outcome import Outcome, State, Usage
from batchq.planning.planner import make_plan
from batchq.planning.uploads import online_by

HOUR_S = 3600.0


def test_a_line_is_known_by_its_tag_and_no_other_one_is() -> None:
    tag = tag_of("a1b2", 1, 10)

    assert index_of(tag, line_id(tag, 7)) == 7
    assert index_of(tag, line_id(tag_of("a1b2", 1, 1), 7)) is None
    assert index_of(tag, "") is None
    assert index_of(tag, f"{tag}-x") is None


@pytest.mark.parametrize(
    ("bounds", "full_by", "lines"),
    [
        (Bounds(lines=2, bytes=100), "lines", 2),
        (Bounds(lines=9, bytes=35), "bytes", 3),
        (Bounds(lines=9, bytes=100, tokens=10), "tokens", 2),
        (Bounds(lines=9, bytes=100, need_nusd=13), "budget", 1),
        (Bounds(lines=9, bytes=100, need_tokens=29), "budget", 4),
    ],
)
def test_an_upload_takes_what_fits_by_each_of_its_bounds(
    bounds: Bounds, full_by: str, lines: int
) -> None:
    load, need = Load(bounds), Usage(1, 5, 2, 7)

    taken = [load.add(index, 10, need) for index in range(lines + 1)]

    assert taken == [True] * lines + [False]
    assert (load.full_by, load.indexes) == (full_by, [*range(lines)])
    assert load.need == Usage(lines, 5 * lines, 2 * lines, 7 * lines)


def test_an_upload_is_looked_at_less_often_as_it_gets_older() -> None:
    assert [look_after_s(age) for age in (0.0, 60.0, HOUR_S)] == [1.0, 6.0, 60.0]


def test_a_provider_without_room_is_asked_less_and_less_often() -> None:
    assert [retry_after_s(tries) for tries in (0, 1, 2, 100)] == [5.0, 10.0, 20.0, 600.0]


def test_the_rest_goes_online_while_there_is_time_for_it_and_for_a_cancel() -> None:
    begun, deadline = 1000.0, 1000.0 + 6 * HOUR_S

    assert online_by(begun, deadline, rest_s=HOUR_S) == deadline - 1.25 * HOUR_S - 600.0
    assert online_by(0.0, 20.0, rest_s=4.0) == 20.0 - 5.0 - 2.0


@pytest.mark.parametrize(("mode", "share"), [("online", 1.0), ("batch", 0.5)])
def test_what_the_others_cost_after_a_canary_is_the_price_of_their_way(
    tmp_path: Path, mode: str, share: float
) -> None:
    (tmp_path / "m.yaml").write_text(f"""\
name: up
canary: {{items: 2}}
providers: {{s: {{kind: simulator, prices: {{input_per_1m: 2, output_per_1m: 8}}}}}}
steps:
  - {{name: ask, input: {{generate: 10}}, prompt: "Say {{number}}\\n.", mode: {mode}}}
""")
    plan = make_plan(load_manifest(tmp_path / "m.yaml"))
    first = [Outcome(str(i), i, State.OK, usage=Usage(1, 10, 5, 1_000)) for i in range(2)]

    report = judge_canary(plan, first, 10)

    assert report.rest_cost_usd == pytest.approx(8 * 1e-6 * share)
