from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchq.errors import ManifestError, UsageError
from batchq.manifest.endpoints import Cache
from batchq.manifest.loader import (
    Overrides,
    check_environment,
    check_manifest,
    explain,
    json_schema,
    load_manifest,
)
from batchq.manifest.models import Manifest

TEXT = """\
pipeline_name: demo
module_number: 4
path_letter: a
params:
  count: 5
  ratio: {type: float, default: 1, choices: [1, 2]}
  names: {type: list, default: [a]}
config:
  retry: {max_retries: 2}
  batch_size: 7
  options: {temperature: 0}
  dataset: tencent
providers:
  sim: {kind: simulator, api_key_env: SIM_KEY, limits: {rpm: 600, tpm: 400k}}
steps:
  - name: one
    input_file: {generate: "${params.count}"}
    batch_id_field: number
    batch_only_items: [007, 3]
    prompt: |
      Say {number}
    retry: {base: 5s}
    options: {max_tokens: 9}
  - {name: two, task: "m:f", emit_delay: 100ms, batch_size: 3}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "demo.yaml"
    file.write_text(TEXT)
    return file


def test_the_names_of_seed_002_are_accepted(path: Path) -> None:
    manifest = load_manifest(path)

    assert manifest.name == "demo"
    assert manifest.labels == {"module": 4, "path": "a"}
    assert manifest.steps[0].id_field == "number"
    assert manifest.steps[1].batch_delay == 0.1


def test_ids_stay_as_they_were_written(path: Path) -> None:
    assert load_manifest(path).steps[0].only == ["007", "3"]


def test_config_stands_under_every_step_and_merges_retry_and_options(path: Path) -> None:
    one, two = load_manifest(path).steps

    assert (one.retry.max_retries, one.retry.base) == (2, 5.0)
    assert one.options == {"temperature": 0, "max_tokens": 9}
    assert (one.batch_size, two.batch_size) == (7, 3)


def test_a_placeholder_that_is_a_whole_value_keeps_its_type(path: Path) -> None:
    assert load_manifest(path, {"count": "9"}).steps[0].input == "generate:9"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"count": "x"}, "params.count: -p count: expected a whole number, found the text `x`"),
        ({"ratio": "nan"}, "-p ratio: expected"),
        ({"ratio": "3"}, "params.ratio: the number `3.0` is not one of its choices"),
        ({"cuont": "3"}, "-p cuont: no such param (did you mean `count`?)"),
    ],
)
def test_a_bad_param_is_a_problem_of_its_declaration(
    path: Path, given: dict[str, str], expected: str
) -> None:
    problems = [str(problem) for problem in check_manifest(path, given)]

    assert any(expected in problem for problem in problems), problems


def test_lists_are_given_by_commas_or_as_json(path: Path) -> None:
    assert load_manifest(path, {"names": "x, y"}).origin.params["names"] == ["x", "y"]
    assert load_manifest(path, {"names": '["x,y"]'}).origin.params["names"] == ["x,y"]


def test_includes_are_merged_under_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/base.yaml").write_text(
        "include: more.yaml\nconfig: {batch_size: 3, queue: q}\nlabels: {a: 1}\n"
    )
    (tmp_path / "sub/more.yaml").write_text("notes: deep\nconfig: {timeout: 9s}\n")
    (tmp_path / "m.yaml").write_text(
        "include: sub/base.yaml\nconfig: {batch_size: 4}\n"
        "steps: [{name: a, task: 'm:f', input: {generate: 1}}]\n"
    )

    manifest = load_manifest(tmp_path / "m.yaml")

    step = manifest.steps[0]
    assert (step.batch_size, step.queue, step.timeout) == (4, "q", 9.0)
    assert (manifest.notes, manifest.labels) == ("deep", {"a": 1})


def test_the_environment_fills_placeholders_and_defaults(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(
        "notes: by ${env:WHO} at ${env:WHERE:-home} for $${5}\n"
        "steps: [{name: a, task: 'm:f', input: {generate: 1}}]\n"
    )

    assert load_manifest(tmp_path / "m.yaml", env={"WHO": "me"}).notes == "by me at home for ${5}"


def test_a_key_that_is_not_set_is_a_warning_with_its_place(path: Path) -> None:
    manifest = load_manifest(path)

    (problem,) = check_environment(manifest, {})
    assert str(problem).startswith(f"{path}:14:26: providers.sim.api_key_env: the variable SIM_KEY")
    assert check_environment(manifest, {"SIM_KEY": "x"}) == []


def test_the_command_line_wins(path: Path) -> None:
    chosen = Overrides(status="beta", note="n", only=("1",), limit=2, concurrency=4)

    manifest = load_manifest(path, overrides=chosen)

    one, two = manifest.steps
    assert (manifest.status, manifest.notes, one.only, one.limit) == ("beta", "n", ["1"], 2)
    assert manifest.providers["sim"].limits.concurrency == 4
    assert two.batch_size * two.concurrent_batches <= 4
    assert one.batch_size == 7


@pytest.mark.parametrize(
    ("wanted", "names"),
    [("two", ["two"]), ("1..2", ["one", "two"]), ("..one", ["one"]), ("2..", ["two"])],
)
def test_a_range_of_steps_is_taken_by_name_or_number(
    path: Path, wanted: str, names: list[str]
) -> None:
    manifest = load_manifest(path, overrides=Overrides(steps=wanted))

    assert [step.name for step in manifest.steps] == names


@pytest.mark.parametrize("wanted", ["three", "two..one", "0", "1..9"])
def test_a_range_that_names_no_step_is_refused(path: Path, wanted: str) -> None:
    with pytest.raises(UsageError, match="--steps"):
        load_manifest(path, overrides=Overrides(steps=wanted))


@pytest.mark.parametrize(
    ("written", "cache"),
    [
        ("", None),
        (", cache: false", None),
        (", cache: true", Cache(max_age=None)),
        (", cache: {}", Cache(max_age=None)),
        (", cache: {max_age: 30d}", Cache(max_age=30 * 86400.0)),
    ],
)
def test_a_cache_is_off_unless_asked_for(path: Path, written: str, cache: Cache | None) -> None:
    path.write_text(TEXT.replace("tpm: 400k}", f"tpm: 400k}}{written}"))

    assert load_manifest(path).providers["sim"].cache == cache


def test_no_cache_asks_anew_where_there_is_a_cache_and_says_so(path: Path) -> None:
    text = TEXT.replace("tpm: 400k}", "tpm: 400k}, cache: {max_age: 1d}")
    text = text.replace("  sim:", "  plain: {kind: openai, model: m}\n  sim:")
    path.write_text(text.replace("prompt: |", "provider: sim\n    prompt: |"))

    manifest = load_manifest(path, overrides=Overrides(no_cache=True, concurrency=3))

    assert manifest.providers["sim"].cache == Cache(max_age=0.0)
    assert manifest.providers["sim"].limits.concurrency == 3
    assert manifest.providers["plain"].cache is None
    assert explain(manifest, "cache")[0] == "providers.sim.cache = {max_age: 0s} (command line)"


def test_explain_says_where_a_value_came_from(path: Path) -> None:
    manifest = load_manifest(path, {"count": "6"})

    assert explain(manifest, "batch_size")[:2] == [
        f"one.batch_size = 7 (config, {path}:10:3)",
        f"two.batch_size = 3 (the step, {path}:24:49, over config, {path}:10:3)",
    ]
    assert explain(manifest, "two.timeout") == ["two.timeout = 120.0 (the default)"]
    assert explain(manifest, "params.count")[0] == "params.count = 6 (command line)"
    with pytest.raises(UsageError, match="did you mean `batch_size`"):
        explain(manifest, "batch_sise")


def test_the_schema_that_ships_is_up_to_date() -> None:
    shipped = Path(__file__).parents[2] / "batchq/manifest/manifest.schema.json"

    assert json.loads(shipped.read_text()) == json_schema(), "run scripts/schema"


def test_the_schema_accepts_a_manifest_with_old_and_new_names() -> None:
    from jsonschema import Draft202012Validator
    from ruamel.yaml import YAML

    validator = Draft202012Validator(json_schema())

    assert list(validator.iter_errors(YAML(typ="safe").load(TEXT))) == []
    assert list(validator.iter_errors({"steps": [{"name": "a", "tsak": 1}]})) != []


def test_every_key_of_the_schema_says_what_it_is() -> None:
    schema = json_schema()
    parts = [schema, *schema["$defs"].values()]

    silent = [
        f"{part['title']}.{name}"
        for part in parts
        for name, value in part["properties"].items()
        if "description" not in value and not value.get("deprecated")
    ]
    assert silent == []


def test_a_manifest_survives_a_round_trip_through_json(path: Path) -> None:
    manifest = load_manifest(path)

    again = Manifest.model_validate(json.loads(manifest.model_dump_json(exclude_none=True)))

    assert again.steps[0].prompt == manifest.steps[0].prompt


FUZZ = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(content=st.binary(max_size=200))
def test_any_bytes_give_problems_and_no_traceback(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "fuzz.yaml"
    file.write_bytes(content)

    assert check_manifest(file, env={}) != []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["${params.x}", "${env:X}", "steps", "{a}", "1 +"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*Manifest.model_fields, "name", "prompt", "when"]), inner),
    max_leaves=12,
)  # fmt: skip


@FUZZ
@given(data=st.dictionaries(st.sampled_from(list(Manifest.model_fields)), VALUES, min_size=1))
def test_any_shape_of_values_gives_problems_and_no_traceback(
    tmp_path: Path, data: dict[str, object]
) -> None:
    file = tmp_path / "fuzz.yaml"
    file.write_text(json.dumps(data))

    try:
        load_manifest(file, env={})
    except ManifestError as error:
        assert error.problems  # noqa: PT017 (a sound one is right too)


def test_an_anchor_may_be_set_anew(path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path.write_text(TEXT.replace("default: [a]", "default: [&x a, *x, &x b, *x]"))

    manifest = load_manifest(path)

    assert manifest.params["names"].default == ["a", "a", "b", "b"]
    assert not recwarn.list
