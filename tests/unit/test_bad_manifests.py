"""Every kind of bad manifest, with exactly what its author is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchq.errors import ManifestError
from batchq.manifest.loader import check_manifest, load_manifest

SIM = "providers: {sim: {kind: simulator}}\n"
STEP = "steps:\n  - name: a\n    input: {generate: 2}\n"

BAD = {
    "not yaml": ("steps: [\n", ":2:1: not YAML: expected the node content, but found"),
    "tab": ("steps:\n\t- name: a\n", ":2:1: not YAML: found character '\\t' that cannot start"),
    "two documents": (
        "a: 1\n---\nb: 2\n",
        ":2:1: not YAML: there are two documents (a line `---` between them)",
    ),
    "empty": ("", ": the file is empty"),
    "comment only": ("# nothing\n", ": the file is empty"),
    "list": ("- a\n", ": a manifest is a mapping of keys to values; this is a list"),
    "scalar": ("hello\n", ": a manifest is a mapping of keys to values; this is a single value"),
    "no steps": ("name: a\n", ": steps: `steps` is missing"),
    "no step in steps": ("steps: []\n", ":1:1: steps: must not be empty"),
    "duplicate key": (
        f"name: a\nname: b\n{STEP}    task: m:f\n",
        ":2:1: name: this key is there twice (first in line 1)",
    ),
    "unknown key": (
        f"{STEP}    task: m:f\n    batchsize: 3\n",
        ":5:5: steps[0].batchsize: unknown key `batchsize` (did you mean `batch_size`?)",
    ),
    "key in the wrong place": (
        f"{STEP}    task: m:f\n    temperature: 0.2\n",
        "unknown key `temperature` (temperature goes under `options:`)",
    ),
    "wrong type": (
        f"{STEP}    task: m:f\n    once: perhaps\n",
        ":5:5: steps[0].once: expected true or false, found the text `perhaps`",
    ),
    "number for a name": (
        "steps:\n  - {name: 4, input: {generate: 1}, task: 'm:f'}\n",
        ":2:6: steps[0].name: expected a text, found the number `4` (put it in quotes)",
    ),
    "prompt to an API": (
        f"providers: {{weather: {{kind: api}}}}\n{STEP}    prompt: |\n      Say\n      hi\n",
        "steps[0].prompt: no prompt can be sent to `weather`: it is of `kind: api`",
    ),
    "Parquet of a function": (
        f"{STEP}    task: m:f\n    collate: m:g\n    output_file: a.parquet\n",
        "steps[0].output_file: what a collate function gives cannot be read back from Parquet",
    ),
    "bad duration": (
        f"{STEP}    task: m:f\n    timeout: soon\n",
        "steps[0].timeout: expected a duration such as 90s, 5m or 100ms, found the text `soon`",
    ),
    "bad count": (
        f"{STEP}    task: m:f\n    batch_size: 0\n",
        "steps[0].batch_size: must be at least 1, found 0",
    ),
    "negative count": (
        f"{STEP}    task: m:f\n    batch_size: -5\n",
        "steps[0].batch_size: must not be negative, found -5",
    ),
    "true is no count": (
        f"{STEP}    task: m:f\n    batch_size: true\n",
        "expected a whole number, such as 600 or 400k, found `true`",
    ),
    "batch too large": (
        f"{STEP}    task: m:f\n    batch_size: 501\n",
        "steps[0].batch_size: at most 500, found 501",
    ),
    "share over all": (
        f"{STEP}    task: m:f\n    max_failures: 120%\n",
        "steps[0].max_failures: 120% is more than all of the items",
    ),
    "nothing to do": (STEP, ":2:5: steps[0]: nothing to do: one of `prompt`, `task`, `command`"),
    "two things to do": (
        f"{STEP}    task: m:f\n    command: [ls]\n",
        "steps[0].command: only one of `prompt`, `task`, `command`, `stages` can be given",
    ),
    "bad task": (
        f"{STEP}    task: just_a_name\n",
        "steps[0].task: expected `package.module:function`, found the text `just_a_name`",
    ),
    "missing prompt file": (
        f"{SIM}{STEP}    prompt: prompts/genrate.md\n",
        (
            ":5:5: steps[0].prompt: prompts/genrate.md: no such file "
            "(did you mean prompts/generate.md?)"
        ),
    ),
    "prompt that is not utf-8": (
        f"{SIM}{STEP}    prompt: prompts/latin.md\n",
        "prompts/latin.md:2: not UTF-8: byte 0xe9 at offset 7",
    ),
    "bad jinja": (
        f"{SIM}{STEP}    prompt: prompts/bad.j2\n",
        "steps[0].prompt: prompts/bad.j2: template line 1: ",
    ),
    "missing schema": (
        f"{SIM}{STEP}    prompt: prompts/generate.md\n    output_schema: s.json\n",
        "steps[0].output_schema: s.json: no such file",
    ),
    "schema that is not json": (
        f"{SIM}{STEP}    prompt: prompts/generate.md\n    output_schema: broken.json\n",
        "steps[0].output_schema: broken.json:1:2: not JSON: ",
    ),
    "schema that is none": (
        f"{SIM}{STEP}    prompt: prompts/generate.md\n    output_schema: {{type: objekt}}\n",
        "steps[0].output_schema: not a JSON Schema: ",
    ),
    "cache that is neither yes nor no": (
        f"providers: {{o: {{kind: simulator, cache: sometimes}}}}\n{STEP}    task: m:f\n",
        "providers.o.cache: expected true, false or {max_age: 30d}, found the text `sometimes`",
    ),
    "cache with an age that is none": (
        f"providers: {{o: {{kind: simulator, cache: {{max_age: old}}}}}}\n{STEP}    task: m:f\n",
        "providers.o.cache.max_age: expected a duration such as 90s",
    ),
    "cache with another key": (
        f"providers: {{o: {{kind: simulator, cache: {{maxage: 1d}}}}}}\n{STEP}    task: m:f\n",
        "providers.o.cache.maxage: unknown key `maxage` (did you mean `max_age`?)",
    ),
    "unknown provider": (
        f"{SIM}{STEP}    prompt: prompts/generate.md\n    provider: smi\n",
        "steps[0].provider: no provider `smi` (did you mean `sim`?)",
    ),
    "no provider": (
        f"{STEP}    prompt: prompts/generate.md\n",
        "steps[0].prompt: a prompt needs a `provider` (name one under `providers:`)",
    ),
    "no model": (
        f"providers: {{o: {{kind: openai}}}}\n{STEP}    prompt: prompts/generate.md\n",
        "steps[0].prompt: no model: neither here nor in provider `o`",
    ),
    "key in place of its variable": (
        (
            "providers: {o: {kind: openai, model: m, api_key_env: sk-12-34}}\n"
            f"{STEP}    prompt: prompts/generate.md\n"
        ),
        "providers.o.api_key_env: this is the NAME of an environment variable",
    ),
    "key in the manifest": (
        (
            "providers: {o: {kind: openai, model: m, api_key: x}}\n"
            f"{STEP}    prompt: prompts/generate.md\n"
        ),
        "unknown key `api_key` (a key never stands in a manifest; name its variable",
    ),
    "secret by placeholder": (
        f"{STEP}    task: m:f\n    params: {{k: '${{env:MY_API_KEY}}'}}\n",
        "steps[0].params.k: `${env:MY_API_KEY}` looks like a secret",
    ),
    "password in a url": (
        (
            f"providers: {{o: {{kind: openai, model: m, base_url: 'https://u:p@h/v1'}}}}\n{STEP}"
            "    task: m:f\n"
        ),
        "providers.o.base_url: a URL with a user or a password would put a secret into the plan",
    ),
    "rate without a unit": (
        (
            "providers: {s: {kind: simulator, limits: {rates: [{per: 10s}]}}}\n"
            f"{STEP}    task: m:f\n"
        ),
        "providers.s.limits.rates[0]: a rate has either `requests` or `tokens`",
    ),
    "rate in no time": (
        (
            "providers: {s: {kind: simulator, limits: {rates: [{requests: 5, per: 0s}]}}}\n"
            f"{STEP}    task: m:f\n"
        ),
        "providers.s.limits.rates[0].per: must be at least 10ms, found the text `0s`",
    ),
    "unknown param": (
        f"params: {{count: 1}}\n{STEP}    task: m:f\n    limit: ${{params.cuont}}\n",
        ":6:5: steps[0].limit: `${params.cuont}`: no such param (did you mean `params.count`?)",
    ),
    "param without a value": (
        f"params: {{count: {{type: int}}}}\n{STEP}    task: m:f\n",
        ":1:10: params.count: needs a value (give one with -p count=VALUE, or a `default`)",
    ),
    "param out of bounds": (
        f"params: {{share: {{default: 1.5, min: 0, max: 1}}}}\n{STEP}    task: m:f\n",
        "params.share: the number `1.5` is out of bounds (at least 0 and at most 1)",
    ),
    "bounds of a text": (
        f"params: {{share: {{default: much, max: 1}}}}\n{STEP}    task: m:f\n",
        "params.share: `min` and `max` are for numbers, this is the text `much`",
    ),
    "param outside its choices": (
        f"params: {{m: {{default: z, choices: [x, y]}}}}\n{STEP}    task: m:f\n",
        "params.m: the text `z` is not one of its choices (choices: x, y)",
    ),
    "unset variable": (
        f"notes: ${{env:NOPE}}\n{STEP}    task: m:f\n",
        ":1:1: notes: the environment variable NOPE is not set",
    ),
    "not a placeholder": (
        f"notes: ${{count}}\n{STEP}    task: m:f\n",
        "notes: `${count}` is no placeholder",
    ),
    "unknown need": (
        f"{STEP}    task: m:f\n  - {{name: b, task: 'm:f', needs: [c]}}\n",
        "steps[1].needs: no step `c` before this one",
    ),
    "two steps of one name": (
        f"{STEP}    task: m:f\n  - {{name: a, task: 'm:f'}}\n",
        "steps[1].name: two steps are called `a`",
    ),
    "no input": ("steps: [{name: a, task: 'm:f'}]\n", "steps[0]: the first step needs an `input`"),
    "missing input": (
        "steps: [{name: a, task: 'm:f', input: item.json}]\n",
        "steps[0].input: no such file: item.json",
    ),
    "input of an unknown kind": (
        "steps: [{name: a, task: 'm:f', input: items.xml}]\n",
        "steps[0].input: expected a file that ends in .json, .jsonl, .csv",
    ),
    "bad condition": (
        f"{STEP}    stages:\n      - {{name: s, task: 'm:f', when: 'a.b == 1'}}\n",
        "steps[0].stages[0].when: `a.b` is not allowed: a field of a field is written with __",
    ),
    "two stages of one name": (
        f"{STEP}    stages: [{{name: s, task: 'm:f'}}, {{name: s, task: 'm:f'}}]\n",
        "steps[0].stages[1].name: two stages are called `s`",
    ),
    "output file in a folder": (
        f"{STEP}    task: m:f\n    output_file: ../x.json\n",
        "steps[0].output_file: a file name without folders",
    ),
    "alias beside its key": (
        f"{STEP}    task: m:f\n    id_field: x\n    batch_id_field: y\n",
        ":6:5: batch_id_field: says the same as `id_field`, which is there too; keep one",
    ),
    "alias in an error": (
        f"{STEP}    task: m:f\n    batch_id_start: x\n",
        "steps[0].batch_id_start: expected a whole number",
    ),
    "missing include": (f"include: no.yaml\n{STEP}    task: m:f\n", ":1:1: include: no such file"),
    "include of itself": (
        f"include: m.yaml\n{STEP}    task: m:f\n",
        ":1:1: include: files include each other: m.yaml -> m.yaml",
    ),
    "no schedule": (f"schedule: daily\n{STEP}    task: m:f\n", "schedule: expected a mapping"),
    "no cron expression": (
        f"schedule: {{cron: daily}}\n{STEP}    task: m:f\n",
        "schedule.cron: 'daily' is no cron expression (wrong number of fields)",
    ),
    "alias that contains itself": (
        f"notes: &a [*a]\n{STEP}    task: m:f\n",
        "notes[0]: an alias that contains itself",
    ),
    "tag": (f"notes: !!python/none x\n{STEP}    task: m:f\n", "notes: YAML tags such as"),
    "surrogate": (f'notes: "\\ud800"\n{STEP}    task: m:f\n', "notes: half of a surrogate pair"),
    "not a number": (f"labels: {{a: .nan}}\n{STEP}    task: m:f\n", "`.nan` is no number"),
}

NOT_YET = {
    "foreach": "foreach: {a: [1]}\n",
}
PROMPT = """\
providers: {s: {kind: simulator}}
steps:
  - name: a
    input: {generate: 2}
"""
MODES = {
    "no mode": ("    prompt: prompts/generate.md\n    mode: x\n", "'online', 'batch' or 'auto'"),
    "a task": ("    task: m:f\n    mode: batch\n", "mode: an upload has one call for each item"),
    "stages": (
        "    stages: [{name: x, prompt: prompts/generate.md}]\n    mode: auto\n",
        "an upload has one call for each item, and this step has `stages`",
    ),
    "a deadline online": (
        "    prompt: prompts/generate.md\n    deadline: 6h\n",
        "only `mode: auto` can keep a deadline",
    ),
    "a deadline with batch": (
        "    prompt: prompts/generate.md\n    mode: batch\n    deadline: 6h\n",
        "mode: auto, or leave the deadline out",
    ),
    "a deadline that is past": (
        "    prompt: prompts/generate.md\n    mode: auto\n    deadline: 2020-01-01T00:00Z\n",
        "deadline: 2020-01-01T00:00Z is past",
    ),
    "a deadline without its zone": (
        "    prompt: prompts/generate.md\n    mode: auto\n    deadline: 2999-01-01T00:00\n",
        "a moment needs its time zone, such as 2999-01-01T00:00Z",
    ),
    "no deadline": (
        "    prompt: prompts/generate.md\n    mode: auto\n    deadline: soon\n",
        "expected a duration such as 90s",
    ),
    "no time at all": (
        "    prompt: prompts/generate.md\n    mode: auto\n    deadline: 0s\n",
        "must be longer than 0s",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/generate.md").write_text("Hello {number}")
    (tmp_path / "prompts/latin.md").write_bytes(b"line 1\n\xe9")
    (tmp_path / "prompts/bad.j2").write_text("{% if %}")
    (tmp_path / "broken.json").write_text("{x")
    return tmp_path


def problems_of(folder: Path, text: str) -> list[str]:
    path = folder / "m.yaml"
    path.write_text(text, encoding="utf-8")
    return [str(problem) for problem in check_manifest(path, env={})]


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD)
def test_a_bad_manifest_is_told_what_is_wrong_and_where(
    folder: Path, text: str, expected: str
) -> None:
    problems = problems_of(folder, text)

    assert any(expected in problem for problem in problems), problems
    assert all(problem.startswith(str(folder / "m.yaml")) for problem in problems)
    assert len(problems) <= 2, problems


@pytest.mark.parametrize(("name", "text"), NOT_YET.items(), ids=NOT_YET)
def test_a_key_that_is_not_done_yet_is_refused_by_name(folder: Path, name: str, text: str) -> None:
    problems = problems_of(folder, f"{text}{STEP}    task: m:f\n")

    assert len(problems) == 1
    assert f"`{name}` is part of the manifest format but this version of batchq" in problems[0]


@pytest.mark.parametrize(("text", "expected"), MODES.values(), ids=MODES)
def test_what_cannot_go_in_uploads_or_in_time_is_refused_with_its_place(
    folder: Path, text: str, expected: str
) -> None:
    problems = problems_of(folder, f"{PROMPT}{text}")

    assert len(problems) == 1, problems
    assert expected in problems[0]
    assert "m.yaml:" in problems[0]


def test_a_mode_of_a_provider_is_refused_for_steps_that_it_cannot_be_of(folder: Path) -> None:
    providers = "providers: {s: {kind: mine, mode: batch}}\n"
    steps = """\
steps:
  - {name: a, input: {generate: 2}, prompt: prompts/generate.md, model: m}
  - {name: b, prompt: prompts/generate.md, model: m, mode: online}
"""

    (problem,) = problems_of(folder, providers + steps)

    assert "`mode: batch` of providers: `s` is of `kind: mine`, which takes no uploads" in problem


def test_without_pyarrow_parquet_is_refused_with_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("batchq.manifest.checks.has_parquet", lambda: False)

    found = problems_of(
        folder, "steps: [{name: a, task: 'm:f', input: x.parquet, output_file: y.parquet}]\n"
    )

    assert len(found) == 2
    assert all("Parquet needs pyarrow: pip install 'batchq[parquet]'" in one for one in found)


def test_s3_is_sound_for_outputs_and_inputs(folder: Path) -> None:
    step = "steps: [{name: a, task: 'm:f', input: 's3://b/p/latest/collated/01_a.jsonl'}]\n"

    assert problems_of(folder, f"config: {{output_dir: 's3://b/x'}}\n{step}") == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://x/y.json", "https:// cannot be read (name a file, or s3://bucket/key)"),
        ("s3://b/x.txt", "expected an object that ends in .json, .jsonl, .csv, .parquet"),
        (
            "s3://b/*.json",
            "expected an object that ends in .json, .jsonl, .csv, .parquet (without wild",
        ),
    ],
)
def test_an_input_by_url_that_cannot_be_read_is_refused(
    folder: Path, source: str, message: str
) -> None:
    problems = problems_of(folder, f"steps: [{{name: a, task: 'm:f', input: '{source}'}}]\n")

    assert len(problems) == 1
    assert message in problems[0]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://b/x", "outputs cannot be kept at gs:// (name a folder, or s3://bucket/prefix)"),
        ("s3://", "there is no bucket in it"),
        ("s3://key:secret@b/x", "keys do not belong in a URL (set AWS_ACCESS_KEY_ID"),
        ("s3://b/x*", "would be taken for a pattern"),
    ],
)
def test_an_output_dir_that_no_store_can_be_is_refused(
    folder: Path, url: str, message: str
) -> None:
    problems = problems_of(folder, f"config: {{output_dir: '{url}'}}\n{STEP}    task: m:f\n")

    assert len(problems) == 1
    assert message in problems[0]


def test_a_key_that_is_not_done_yet_may_ask_for_nothing(folder: Path) -> None:
    text = f"foreach: false\nproviders: {{s: {{kind: simulator, cache: false}}}}\n{STEP}"

    assert problems_of(folder, f"{text}    task: m:f\n    mode: false\n") == []


def test_a_manifest_with_jobs_is_not_asked_for_steps(folder: Path) -> None:
    assert problems_of(folder, "task: m:f\njobs: [{name: a}]\n") == []


def test_all_problems_come_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = (
        "nmae: x\nname: a\nname: b\nnotes: ${params.x}\n"
        "providers: {o: {kind: openai, model: m, limits: {rpm: fast}}}\n"
        "steps:\n  - name: a\n    input: no.json\n    prompt: no.md\n    timeout: long\n"
        "    stages: [{name: s, task: x, when: '1 +'}]\n"
    )

    problems = problems_of(folder, text)

    lines = [int(problem.split(":")[1]) for problem in problems]
    assert lines == sorted(lines)
    assert set(lines) == {1, 3, 4, 5, 8, 9, 10, 11}


def test_a_key_by_mistake_is_never_repeated(folder: Path) -> None:
    text = f"providers: {{o: {{kind: openai, api_key_env: sk-secret-1}}}}\n{STEP}    task: m:f\n"

    assert "sk-secret-1" not in "\n".join(problems_of(folder, text))


def test_a_bomb_of_aliases_is_refused(folder: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 9):
        inner = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} [{inner}]")

    problems = problems_of(folder, "\n".join(lines))

    assert "over 200,000 values once its aliases are expanded" in problems[0]


def test_a_tower_of_brackets_is_refused(folder: Path) -> None:
    assert problems_of(folder, "a: " + "[" * 5000) != []
    assert "levels deep" in problems_of(folder, "a: " + "[" * 80 + "]" * 80)[0]


def test_a_file_that_is_not_utf_8_points_at_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_bytes(b"name: a\nnotes: \xff\n")

    assert str(check_manifest(path)[0]) == f"{path}:2:1: not UTF-8: byte 0xff at offset 15"


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    assert "this is a folder" in str(check_manifest(tmp_path)[0])
    assert "no such file" in str(check_manifest(tmp_path / "none.yaml")[0])


def test_loading_raises_all_problems(folder: Path) -> None:
    (folder / "m.yaml").write_text("nmae: a\n")

    with pytest.raises(ManifestError) as caught:
        load_manifest(folder / "m.yaml")

    assert len(caught.value.problems) == 2
    assert caught.value.exit_code == 2


def test_a_wrong_value_in_an_included_file_points_into_that_file(folder: Path) -> None:
    (folder / "base.yaml").write_text("config:\n  batch_size: many\n")

    problems = problems_of(folder, f"include: base.yaml\n{STEP}    task: m:f\n")

    assert problems[0].startswith(f"{folder / 'base.yaml'}:2:3: config.batch_size: ")


def test_an_input_by_generate_takes_only_a_number(folder: Path) -> None:
    text = json.dumps({"steps": [{"name": "a", "task": "m:f", "input": {"generate": "x"}}]})

    assert "generate: expected a number of at least 1" in problems_of(folder, text)[0]
