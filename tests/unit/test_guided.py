from __future__ import annotations

import itertools
import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.errors import PlanError
from batchq.guided import Guide, choose, distance, shares, tally
from batchq.manifest.loader import check_manifest, load_manifest
from batchq.outcome import Json
from batchq.plan import InputSpec, Plan, decode, encode
from batchq.planning.items import read_items
from batchq.planning.planner import make_plan
from batchq.planning.reference import read_guide, values_of

EMOTIONS = ["neutral", "joy", "anger", "disgust", "fear", "sadness", "surprise"]
Walk = dict[str, Json]


def walks(number: int, seed: int) -> list[Walk]:
    """Walks whose first emotions are common and whose last ones are rare."""
    rng = random.Random(seed)
    weights = [2.0**-place for place in range(len(EMOTIONS))]
    found: list[Walk] = []
    for place in range(number):
        steps = rng.choices(EMOTIONS, weights, k=5)
        moves: list[Json] = [f"{one}>{other}" for one, other in itertools.pairwise(steps)]
        found.append({"id": f"w{place}", "transitions": moves, "arc": f"{steps[0]}..{steps[-1]}"})
    return found


def counted(rows: list[Walk], name: str) -> Counter[str]:
    return tally([values_of(row, [name]) for row in rows])[name]


@pytest.mark.parametrize("seed", range(5))
def test_a_guided_choice_comes_nearer_to_the_reference_than_a_random_one(seed: int) -> None:
    by = ("transitions", "arc")
    even = random.Random(seed)
    reference = [
        {"transitions": [f"{even.choice(EMOTIONS)}>{even.choice(EMOTIONS)}"],
         "arc": f"{even.choice(EMOTIONS)}..{even.choice(EMOTIONS)}"}
        for _ in range(300)
    ]  # fmt: skip
    pool, there = walks(2_000, seed), walks(60, seed + 100)
    goal = {name: shares(counted(reference, name)) for name in by}
    guide = Guide(goal, {name: counted(there, name) for name in by})

    values = [values_of(row, by) for row in pool]
    guided = [pool[place] for place in choose(values, 100, guide, seed)]
    drawn = random.Random(seed).sample(pool, 100)

    for name in by:
        before = distance(counted(there, name), goal[name])
        after = distance(counted([*there, *guided], name), goal[name])
        at_random = distance(counted([*there, *drawn], name), goal[name])
        assert after < at_random - 0.15, name
        assert before - after > 2 * (before - at_random), name


@given(
    values=st.lists(st.sampled_from("abcd"), min_size=1, max_size=9),
    goal=st.dictionaries(st.sampled_from("abcde"), st.integers(1, 5), min_size=1),
    n=st.integers(1, 4),
    seed=st.integers(0, 3),
)
def test_a_guided_choice_is_never_far_from_the_best_there_is(
    values: list[str], goal: dict[str, int], n: int, seed: int
) -> None:
    pool = [{"x": {value: 1}} for value in values]
    guide = Guide({"x": shares(goal)})
    total = min(n, len(pool))

    def filled(places: tuple[int, ...]) -> float:
        have = Counter(values[place] for place in places)
        return sum(min(share * total, have[value]) for value, share in guide.goal["x"].items())

    found = choose(pool, n, guide, seed)

    best = max(map(filled, itertools.combinations(range(len(pool)), total)))
    assert len(set(found)) == len(found) == total
    assert filled(tuple(found)) >= (1 - 1 / 2.718281828) * best - 1e-9
    assert found == choose(pool, n, guide, seed)


def test_gaps_that_are_filled_leave_the_rest_to_the_seed() -> None:
    pool = [{"x": {"a": 1}}] * 5 + [{"x": {"b": 1}}] * 5
    guide = Guide({"x": {"b": 1.0}})

    choices = {tuple(sorted(choose(pool, 7, guide, seed))) for seed in range(20)}

    assert all(set(range(5, 10)) < set(one) for one in choices)
    assert len(choices) > 3


def test_two_distributions_are_apart_by_half_of_what_their_shares_differ() -> None:
    assert distance({"a": 2, "b": 2}, {"a": 7, "b": 7}) == 0
    assert distance({"a": 1}, {"b": 3}) == 1
    assert distance({"a": 3, "b": 1}, {"a": 1, "b": 1}) == pytest.approx(0.25)
    assert distance({}, {"a": 1}) == 1


def test_ten_thousand_items_are_chosen_from_in_a_moment() -> None:
    pool = [values_of(row, ["transitions", "arc"]) for row in walks(10_000, 1)]
    goal = {"transitions": {f"{a}>{b}": 1 / 49 for a in EMOTIONS for b in EMOTIONS}}

    began = time.process_time()
    found = choose(pool, 500, Guide(goal), 1)

    assert len(found) == 500
    assert time.process_time() - began < 3


def test_a_reference_is_items_or_counts_and_a_list_counts_each_of_its_members(
    tmp_path: Path,
) -> None:
    rows = [{"m": ["a", "b"], "deep": {"n": 1}}, {"m": ["a"], "deep": {"n": 2}}, {"other": 1}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "rows.csv").write_text("m,deep__n\na,1\na,2\nb,\n")
    (tmp_path / "counts.json").write_text(json.dumps({"m": {"a": 4, "b": 2}, "deep__n": {"1": 3}}))
    (tmp_path / "mine_of_reference.py").write_text(
        "def rows(params):\n    return [{'m': params['m']}]\n"
    )
    by = ("m", "deep__n")

    for name in ("rows.json", "rows.jsonl"):
        guide = read_guide(by, name, "counts.json", tmp_path, {})
        assert guide.goal == {"m": {"a": 2 / 3, "b": 1 / 3}, "deep__n": {"1": 0.5, "2": 0.5}}
        assert guide.there == {"m": {"a": 4, "b": 2}, "deep__n": {"1": 3}}
    assert read_guide(["m"], "rows.csv", None, tmp_path, {}).goal["m"] == {"a": 2 / 3, "b": 1 / 3}
    asked = read_guide(["m"], "py:mine_of_reference:rows", None, tmp_path, {"m": "z"})
    assert asked.goal == {"m": {"z": 1.0}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"tone": "x"}]', "sample: the reference ref.json has nothing in `emotion`"),
        ('{"emotion": {"joy": -1}}', "ref.json: emotion: `joy` needs a count of 0 or more"),
        ('{"emotion": {"joy": "many"}}', "`joy` needs a count of 0 or more, this is a text"),
        ("[", "ref.json:1:2: not JSON"),
    ],
)
def test_a_broken_reference_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "ref.json").write_text(content)

    with pytest.raises(PlanError, match=message.replace("[", r"\[")):
        read_guide(["emotion"], "ref.json", None, tmp_path, {})


MANIFEST = """\
params: {{method: guided}}
steps:
  - name: a
    input: rows.json
    id_field: id
    sample: {{n: {n}, method: "${{params.method}}", by: [transitions, arc], reference: ref.json}}
    task: m:f
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.json").write_text(json.dumps(walks(200, 3)))
    (tmp_path / "ref.json").write_text(
        json.dumps({"transitions": {"fear>fear": 1}, "arc": {"fear..fear": 1}})
    )
    (tmp_path / "m.yaml").write_text(MANIFEST.format(n=12))
    return tmp_path


def planned(folder: Path, **params: str) -> Plan:
    return make_plan(load_manifest(folder / "m.yaml", params))


def test_a_plan_keeps_what_it_was_guided_by_and_takes_the_same_items_again(folder: Path) -> None:
    plan = decode(Plan, encode(planned(folder)))
    (folder / "ref.json").write_text("{}")

    spec = plan.steps[0].input
    items = list(read_items(spec, folder))

    assert plan.steps[0].items == len(items) == 12
    assert [item.index for item in items] == sorted(item.index for item in items)
    holding = [row for row in walks(200, 3) if "fear>fear" in str(row["transitions"])]
    taken = [item for item in items if "fear>fear" in item.data["transitions"]]
    assert len(taken) == min(12, len(holding))
    assert "reference:ref.json" in plan.hashes


def test_one_manifest_samples_both_ways_by_a_param(folder: Path) -> None:
    guided, drawn = planned(folder), planned(folder, method="random")

    assert guided.steps[0].input.guide is not None
    assert drawn.steps[0].input.guide is None
    assert drawn.steps[0].items == 12


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("{n: 2, method: guided, reference: ref.json}", "sample.method: `guided` needs `by`"),
        ("{n: 2, method: guided, by: [arc]}", "sample.method: `guided` needs a `reference`"),
        (
            "{n: 2, method: guided, by: [arc], reference: rf.json}",
            "sample.reference: no such file: rf.json (did you mean ref.json?)",
        ),
        (
            "{n: 2, method: guided, by: [arc], reference: ref.json, existing: 'run:x@latest'}",
            "sample.existing: expected a file, a glob or py:module:function",
        ),
        ("{n: 2, by: [arc, arc]}", "sample.by: expected names of fields, each once"),
        ("{n: 2, method: gided}", "sample.method: expected"),
    ],
)
def test_a_guided_sample_that_lacks_something_is_refused(
    folder: Path, sample: str, message: str
) -> None:
    text = f"steps: [{{name: a, input: rows.json, task: 'm:f', sample: {sample}}}]\n"
    (folder / "m.yaml").write_text(text)

    problems = [str(one) for one in check_manifest(folder / "m.yaml")]

    assert len(problems) == 1, problems
    assert message in problems[0]


def test_a_field_that_no_item_has_is_told_with_those_there_are(folder: Path) -> None:
    spec = InputSpec("rows.json", sample_n=2, sample_method="guided", guide=Guide({"tone": {}}))

    with pytest.raises(PlanError, match="none of the items has `tone`; they have: id, transi"):
        list(read_items(spec, folder))
