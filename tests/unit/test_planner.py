from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from batchq.endpoint import RateLimit
from batchq.errors import PlanError, UsageError
from batchq.manifest.loader import Overrides, load_manifest
from batchq.outcome import SentPrompt
from batchq.plan import Plan, decode, encode
from batchq.planning.estimate import CALL_S
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import iter_items, make_plan, pipeline_name, render_item

TEXT = """\
name: gen
labels: {module: 4, path: a}
params: {style: short}
config: {dataset: tencent}
providers:
  paid:
    kind: openai
    model: m
    api_key_env: PAID_API_KEY
    limits: {rpm: 60, tpm: 10k, concurrency: 2, rates: [{requests: 5, per: 10s}]}
    prices: {input_per_1m: 1, output_per_1m: 2}
steps:
  - name: one
    input: rows.json
    id_field: id
    output_id_field: number
    prompt: prompts/one.md
    system: prompts/system.j2
    output_schema: schemas/one.json
    batch_size: 4
  - name: two
    prompt: prompts/two.md
  - name: three
    once: true
    task: "m:f"
    params: {dataset: mine}
"""
SCHEMA = {"type": "object", "properties": {"topic": {"enum": ["a", "b"]}}, "required": ["topic"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "schemas").mkdir()
    (tmp_path / "rows.json").write_text(json.dumps([{"id": n, "text": "x"} for n in range(10)]))
    (tmp_path / "prompts/one.md").write_text("${params.style}: {text}")
    (tmp_path / "prompts/system.j2").write_text("About {{ id }}")
    (tmp_path / "prompts/two.md").write_text("{topic}")
    (tmp_path / "schemas/one.json").write_text(json.dumps(SCHEMA))
    return tmp_path


@pytest.fixture
def plan_of(folder: Path) -> Callable[..., Plan]:
    def plan(text: str = TEXT, env: Mapping[str, str] | None = None, **overrides: object) -> Plan:
        (folder / "m.yaml").write_text(text)
        chosen = Overrides(**overrides)  # type: ignore[arg-type]
        return make_plan(load_manifest(folder / "m.yaml", overrides=chosen), env=env or {})

    return plan


def test_a_plan_counts_items_batches_and_calls(plan_of: Callable[..., Plan]) -> None:
    one, two, three = plan_of().steps

    assert (one.items, one.batches, one.calls, one.items_are_estimated) == (10, 3, 10, False)
    assert (two.items, two.batches, two.calls, two.items_are_estimated) == (10, 1, 10, True)
    assert (three.items, three.calls, three.cost_usd) == (1, 0, 0)


def test_a_plan_holds_all_that_a_worker_needs(plan_of: Callable[..., Plan]) -> None:
    stage = plan_of().step(1).spec.stages[0]

    assert (stage.prompt, stage.prompt_is_jinja) == ("short: {text}", False)
    assert (stage.system, stage.system_is_jinja) == ("About {{ id }}", True)
    assert stage.output_schema == SCHEMA
    assert stage.provider is not None
    assert stage.provider.base_url == "https://api.openai.com/v1"
    assert stage.provider.limits.rates == (
        RateLimit("rpm", "requests", 60, 60.0),
        RateLimit("tpm", "tokens", 10_000, 60.0),
        RateLimit("5 requests per 10s", "requests", 5, 10.0),
    )


def test_a_plan_survives_its_trip_as_json(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()

    assert decode(Plan, encode(plan)) == plan


def test_a_plan_and_its_lock_hold_no_key(folder: Path, plan_of: Callable[..., Plan]) -> None:
    plan = plan_of(env={"PAID_API_KEY": "sk-very-secret"})

    lock = manifest_lock(load_manifest(folder / "m.yaml", env={}), plan)

    assert b"sk-very-secret" not in encode(plan) + lock.encode()
    assert not any("PAID_API_KEY is not set" in text for text in plan.warnings)


def test_a_key_that_is_not_set_is_a_warning(plan_of: Callable[..., Plan]) -> None:
    assert any("PAID_API_KEY is not set" in text for text in plan_of().warnings)


def test_steps_are_chained_and_items_keep_their_ids(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()
    one, two, three = plan.steps

    assert (one.needs, two.needs, three.needs) == ((), ("one",), ("two",))
    assert (two.input.source, two.input.id_field) == ("", "source_id")
    assert one.output.file == "one.json"
    previous = [{"number": 1, "source_id": "7", "topic": "a"}]
    assert [item.id for item in iter_items(plan, 2, previous)] == ["7"]
    assert [item.data for item in iter_items(plan, 3, [1, 2])] == [[1, 2]]


def test_steps_that_name_one_id_field_hand_it_on(plan_of: Callable[..., Plan]) -> None:
    text = """
    name: chain
    steps:
      - {name: one, input: {generate: 2}, id_field: number, output_id_field: n, task: "m:f"}
      - {name: two, id_field: n, task: "m:f"}
      - {name: three, id_field: n, task: "m:f"}
      - {name: four, task: "m:f"}
    """

    plan = plan_of(text)

    kept = [(step.output.kept_id_field, step.output.kept_id_is_number) for step in plan.steps]
    assert kept == [("", False), ("n", True), ("n", True), ("", False)]


def test_prompts_go_to_llm_and_the_rest_to_cpu(plan_of: Callable[..., Plan]) -> None:
    assert [step.queue for step in plan_of().steps] == ["llm", "llm", "cpu"]


def test_params_come_from_config_then_params_then_the_step(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()

    assert plan.step(1).spec.params == {"dataset": "tencent", "style": "short"}
    assert plan.step(3).spec.params == {"dataset": "mine", "style": "short"}


def test_the_tightest_limit_bounds_the_time(plan_of: Callable[..., Plan]) -> None:
    fast = TEXT.replace("rates: [{requests: 5, per: 10s}]", "rates: []").replace("10k", "10M")
    delayed = fast.replace("batch_size: 4", "batch_size: 1\n    batch_delay: 60s")

    slowest = plan_of().step(1)
    by_concurrency = plan_of(fast).step(1)
    by_delay = plan_of(delayed).step(1)

    assert (slowest.bound_by, slowest.duration_s) == ("paid 5 requests per 10s", 20.0)
    assert by_concurrency.bound_by in ("paid rpm", "paid concurrency")
    assert by_concurrency.duration_s == 10.0
    assert (by_delay.bound_by, by_delay.duration_s) == ("batch_delay", 542.0)


@pytest.mark.parametrize(
    ("pacing", "calls_at_once"),
    [("batch_size: 40", 25), ("batch_size: 40, concurrent_batches: 4", 160)],
)
def test_an_estimate_has_as_many_calls_at_a_time_as_a_submit_starts_workers_for(
    folder: Path, pacing: str, calls_at_once: int
) -> None:
    (folder / "m.yaml").write_text(f"""\
name: wide
providers: {{free: {{kind: openai, model: m, base_url: "http://127.0.0.1:9"}}}}
steps:
  - {{name: one, input: {{generate: 1600}}, {pacing}, prompt: "Say {{number}}\\n."}}
""")

    step = make_plan(load_manifest(folder / "m.yaml")).step(1)

    assert step.duration_s == 1600 * CALL_S / calls_at_once


def test_the_cost_is_tokens_times_prices_and_unknown_without_prices(
    plan_of: Callable[..., Plan],
) -> None:
    priced = plan_of().step(1)
    unpriced = plan_of(TEXT.replace("    prices: {input_per_1m: 1, output_per_1m: 2}\n", ""))

    expected = (priced.input_tokens + 2 * priced.output_tokens) / 1e6
    assert priced.cost_usd == pytest.approx(expected)
    assert unpriced.step(1).cost_usd is None
    assert any("no prices for openai/m" in text for text in unpriced.warnings)


def test_max_tokens_bounds_the_answer(plan_of: Callable[..., Plan]) -> None:
    bounded = TEXT.replace("    prompt: prompts/two.md", "    prompt: prompts/two.md\n    options: "
                           "{max_tokens: 7}")  # fmt: skip

    assert plan_of(bounded).step(2).output_tokens == 70


def test_a_missing_field_is_found_on_a_sample_before_anything_runs(
    folder: Path, plan_of: Callable[..., Plan]
) -> None:
    (folder / "prompts/one.md").write_text("{texts}")

    with pytest.raises(PlanError) as caught:
        plan_of()

    assert str(caught.value) == (
        "step one: prompts/one.md: item 0: the item has no field `texts`; it has: text, id, item"
    )


def test_a_field_that_the_schema_before_does_not_have_is_a_warning(
    folder: Path, plan_of: Callable[..., Plan]
) -> None:
    (folder / "prompts/two.md").write_text("{topic} {number} {source_id} {tpoic}")

    warnings = [text for text in plan_of().warnings if "step two" in text]

    assert warnings == [
        (
            "step two: the prompt asks for `tpoic`, which the output_schema of step one does not "
            "have; it has: topic"
        )
    ]


def test_a_bad_input_names_its_step(folder: Path, plan_of: Callable[..., Plan]) -> None:
    (folder / "rows.json").write_text("[]")

    with pytest.raises(PlanError, match=r"^step one: rows\.json: no items are left"):
        plan_of()


def test_an_unknown_param_in_a_prompt_is_an_error(
    folder: Path, plan_of: Callable[..., Plan]
) -> None:
    (folder / "prompts/one.md").write_text("${params.stile}")

    with pytest.raises(PlanError, match=r"prompts/one\.md: .*did you mean `params\.style`"):
        plan_of()


def test_one_item_can_be_rendered(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()

    assert render_item(plan, 1, "3") == [SentPrompt("", "About 3\n\n---\n\nshort: x")]
    with pytest.raises(UsageError, match="step one has no item `x`; its ids are such as 0, 1"):
        render_item(plan, 1, "x")
    with pytest.raises(PlanError, match="reads the output of one"):
        render_item(plan, 2, "3")


def test_a_step_whose_input_is_left_out_cannot_run(plan_of: Callable[..., Plan]) -> None:
    with pytest.raises(PlanError, match="step two reads the output of the step before it"):
        plan_of(steps="two..three")


def test_hashes_change_with_what_they_are_of(folder: Path, plan_of: Callable[..., Plan]) -> None:
    before = plan_of().hashes
    (folder / "rows.json").write_text('[{"id": 1, "text": "y"}]')
    after = plan_of().hashes

    assert set(before) == {"manifest", "prompt:prompts/one.md", "system:prompts/system.j2",
                           "prompt:prompts/two.md", "schema:schemas/one.json",
                           "input:rows.json"}  # fmt: skip
    assert {name for name in before if before[name] != after[name]} == {"input:rows.json"}


def test_the_lock_says_what_was_run(folder: Path, plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()

    lock = YAML(typ="safe").load(manifest_lock(load_manifest(folder / "m.yaml"), plan))

    assert lock["params"] == {"style": "short"}
    assert lock["hashes"] == dict(plan.hashes)
    assert {"batchq", "python", "celery", "redis"} <= set(lock["versions"])
    assert lock["manifest"]["steps"][0]["batch_size"] == 4


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("gen", {"module": 4, "path": "a"}, "gen_module_4_path_a"),
        ("gen", {}, "gen"),
        ("../../etc", {"x": "a/b"}, "etc_x_a-b"),
        ("日本", {}, "日本"),
        ("///", {}, "pipeline"),
    ],
)
def test_the_folder_is_named_after_the_pipeline_and_its_labels(
    name: str, labels: dict[str, object], expected: str
) -> None:
    assert pipeline_name(name, labels) == expected


def test_a_stop_on_error_bears_no_failure(plan_of: Callable[..., Plan]) -> None:
    def tolerance(line: str) -> tuple[int | None, float | None]:
        step = plan_of(TEXT.replace("    batch_size: 4", f"    batch_size: 4\n    {line}")).step(1)
        return step.tolerance.max_failures, step.tolerance.max_failure_share

    assert tolerance("stop_on_error: true") == (0, None)
    assert tolerance("max_failures: 10%") == (None, 0.1)
    assert tolerance("max_failures: 3") == (3, None)
    assert tolerance("timeout: 5s") == (None, None)


def test_a_name_in_when_that_no_item_has_is_warned_of(plan_of: Callable[..., Plan]) -> None:
    stages = """\
steps:
  - name: staged
    input: rows.json
    stages:
      - {name: first, task: "m:f", when: "txt == 'x' and id > 2"}
      - {name: second, task: "m:f", when: "whatever == 1"}
"""

    warnings = plan_of("name: gen\n" + stages).warnings

    (warning,) = warnings
    assert warning == (
        "step staged: stage first: `when` asks for `txt`, which none of the first items has; "
        "it is null there: did you mean `text`?"
    )


def test_a_step_over_everything_may_give_as_many_items_as_the_next_one_takes(
    plan_of: Callable[..., Plan],
) -> None:
    more = "  - {name: four, limit: 30, task: 'm:f'}\n  - {name: five, task: 'm:f'}\n"

    plan = plan_of(TEXT + more)

    assert [step.items for step in plan.steps[2:]] == [1, 30, 30]
