"""The loop of seed 002 with all versions on an object store: a real S3 server over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import psutil
import pytest

from batchq.outcome import Outcome, State
from batchq.plan import (
    InputSpec,
    Item,
    OutputSpec,
    Pacing,
    Plan,
    StageSpec,
    StepPlan,
    StepSpec,
    Tolerance,
)
from batchq.store import Outputs

PLAN = Plan(
    name="base", pipeline="base", labels={}, status="beta", notes="", output_dir="outputs",
    manifest_path="m.yaml", base_dir=".", params={}, hashes={},
    steps=(
        StepPlan(
            spec=StepSpec(1, "base", (StageSpec("", "task", task="m:f"),)), input=InputSpec("x"),
            output=OutputSpec("base.json"), pacing=Pacing(), queue="cpu", needs=(),
            tolerance=Tolerance(), items=1, items_are_estimated=False, batches=1, calls=0,
            input_tokens=0, output_tokens=0, cost_usd=None, duration_s=1.0, bound_by="cpu",
        ),
    ),
)  # fmt: skip


@pytest.fixture
def words(write_words, object_store):
    return write_words(f"{object_store.bucket}/outputs")


@pytest.fixture
def read(object_store):
    """`read("v0/metadata.json")` reads an object of the pipeline."""
    home = f"{object_store.bucket}/outputs/words_module_4"
    return lambda path: json.loads(object_store.files().cat_file(f"{home}/{path}"))


def test_the_whole_loop_of_a_pipeline_runs_on_an_object_store(words, object_store, read, calls):
    words.write("strict", "")
    planned = words.run("plan", "m.yaml")
    submitted = words.run("submit", "m.yaml")

    assert f"output {object_store.bucket}/outputs/words_module_4\n" in planned.stdout
    assert submitted.returncode == 3, submitted.stderr
    home = f"{object_store.bucket}/outputs/words_module_4"
    assert f"result   {home}/v0/collated/01_upper.json" in submitted.stdout
    assert f"errors   {home}/v0/01_errors.json" in submitted.stdout
    assert read("latest.json") == {"version": "v0"}
    assert [row["number"] for row in read("v0/collated/01_upper.json")] == [1, 2, 4, 5, 6, 7, 8]
    output = {"number": 2, "source_id": "w1", "text": "ONE", "length": 3}
    assert read("v0/items/w1/01_output.json") == output
    assert not (words.folder / "outputs").exists()

    failures = words.run("failures", "words_module_4")
    assert "a bad word" in failures.stdout

    (words.folder / "strict").unlink()
    words.write("suffix", "!")
    calls("w")
    rerun = words.run("rerun", "words_module_4", "w2", "w6", "--note", "Fixed", "--status", "beta")
    assert rerun.returncode == 0, rerun.stderr
    assert calls("w") == ["w2", "w6"]
    assert read("latest.json") == {"version": "v1"}
    texts = [row["text"] for row in read("v1/collated/01_upper.json")]
    assert texts == ["ZERO", "ONE", "BAD!", "THREE", "FOUR", "FIVE", "SIX!", "SEVEN"]
    assert read("v1/metadata.json")["base_version"] == "v0"

    assert "v1 (latest)" in words.run("list", "words_module_4", "--all").stdout
    compared = words.run("compare", "words_module_4", "v0", "v1", "--detail")
    assert compared.returncode == 0, compared.stderr
    assert "SIX!" in compared.stdout
    explained = words.run("explain", "words_module_4@v1", "w1")
    assert f"{home}/v0/items/w1/01_output.json" in explained.stdout
    assert words.run("mark", "words_module_4", "w3", "bad").returncode == 0
    assert words.run("label", "words_module_4", "v1", "final").returncode == 0
    assert read("v1/metadata.json")["pipeline_status"] == "final"
    assert "step done" in words.run("logs", "words_module_4").stdout

    before = words.run("list", "words_module_4", "--all", "--json").stdout
    for path in (words.folder / ".batchq").glob("catalog.sqlite*"):
        path.unlink()
    rebuilt = words.run("catalog", "rebuild", f"{object_store.bucket}/outputs")
    assert rebuilt.stdout == "2 runs and 6 batches are in the catalog\n", rebuilt.stderr
    assert words.run("list", "words_module_4", "--all", "--json").stdout == before


SOON_DEAD = {"BATCHQ_LEASE_TTL_S": "3"}
CHAINED = """
    name: chained
    config: {output_dir: OUTPUT}
    steps:
      - {name: by_name, input: "run:base@latest", id_field: n, task: "word_tasks:double"}
      - {name: by_path, input: "OUTPUT/base/latest/collated/01_base.json", id_field: n,
         task: "word_tasks:double"}
"""


def put_version(object_store, version: str, text: str) -> None:
    """Puts a complete version of a pipeline `base` of one step into the store."""
    outputs = Outputs(f"{object_store.bucket}/outputs")
    folder = outputs.create_version("base")
    assert folder.version == version
    folder.write_plan(PLAN)
    folder.freeze_items(1, iter([Item("a", 0, {})]))
    done = Outcome("a", 0, State.OK, output={"n": 1, "text": text})
    folder.write_batch(1, 0, [done], PLAN.step(1).output)
    folder.collate(1, PLAN.step(1).output)
    folder.mark_done(1)
    outputs.point_latest("base", version)


def test_a_pipeline_goes_on_from_latest_by_name_and_by_path(words, object_store):
    url = f"{object_store.bucket}/outputs"
    words.write("m.yaml", textwrap.dedent(CHAINED).replace("OUTPUT", url))
    put_version(object_store, "v0", "old")
    put_version(object_store, "v1", "new")

    done = words.run("submit", "m.yaml")

    assert done.returncode == 0, done.stderr
    files = object_store.files()
    for name in ("01_by_name", "02_by_path"):
        rows = json.loads(files.cat_file(f"{url}/chained/v0/collated/{name}.json"))
        assert rows == [{"twice": "newnew"}]
    plan = json.loads(files.cat_file(f"{url}/chained/v0/plan.json"))
    assert [step["input"]["written"] for step in plan["steps"]] == [
        *("run:base@latest", f"{url}/base/latest/collated/01_base.json")
    ]


def test_an_input_that_is_not_in_the_store_is_named(words, object_store):
    url = f"{object_store.bucket}/outputs"
    words.write("m.yaml", textwrap.dedent(CHAINED).replace("OUTPUT", url))

    done = words.run("plan", "m.yaml")

    assert done.returncode == 2
    assert f"{url}/base/latest/collated/01_base.json: no such object" in done.stderr
    assert f"no pipeline base: it has no versions in {url}" in done.stderr


SCRIPT = """
    import json, sys
    from batchq import Run, Step, run_pipeline

    step = Step(input=sys.argv[2], id_field="n", task="word_tasks:double")
    run = run_pipeline([step], pipeline_name="scripted", output_dir=sys.argv[1])
    again = run_pipeline(
        [step], pipeline_name="scripted", output_dir=sys.argv[1], rerun_items=[1]
    )
    found = Run.load("scripted@v0")
    print(json.dumps([run.name, again.name, again.collated(), found.metadata["status"]]))
"""


def test_a_script_runs_and_reruns_on_an_object_store(words, object_store):
    url = f"{object_store.bucket}/outputs"
    put_version(object_store, "v0", "new")
    words.write("script.py", textwrap.dedent(SCRIPT))

    done = subprocess.run(
        [sys.executable, "script.py", url, "run:base@latest"],
        cwd=words.folder, capture_output=True, text=True, timeout=90,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    rows = [{"twice": "newnew"}]
    assert json.loads(done.stdout) == ["scripted@v0", "scripted@v1", rows, "completed"]


def test_a_run_that_was_killed_goes_on_from_what_the_object_store_has(
    words, wait_for, object_store, read, calls
):
    manifest = (words.folder / "m.yaml").read_text()
    words.write("m.yaml", manifest.replace("word_tasks:upper", "word_tasks:wait"))
    process = words.start("submit", "m.yaml", env=SOON_DEAD)
    started = words.folder / "calls.txt"
    record = f"{object_store.bucket}/outputs/words_module_4/v0/state/01_batches/000000.jsonl"
    wait_for(
        lambda: object_store.files().exists(record) and "w5" in started.read_text(),
        "the sixth item, and the first batch in the store",
        60,
    )
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(one.is_running() for one in family), "all have ended", 10)
    words.write("go", "")

    resumed = words.run("resume", "words_module_4", env=SOON_DEAD)

    assert resumed.returncode == 0, resumed.stderr
    done = calls("w")
    assert sorted(set(done)) == [f"w{n}" for n in range(8)]
    assert [done.count(f"w{n}") for n in range(3)] == [1, 1, 1]
    assert len(read("v0/collated/01_upper.json")) == 8
    assert read("latest.json") == {"version": "v0"}


def test_a_run_goes_through_where_every_fifth_call_to_the_store_fails(
    words, object_store, read, calls
):
    object_store.refuse = lambda _: "" if len(object_store.requests) % 5 else "InternalError"

    done = words.run("submit", "m.yaml")

    object_store.refuse = lambda _: ""
    assert done.returncode == 0, done.stderr
    assert calls("w") == [f"w{n}" for n in range(8)]
    assert len(read("v0/collated/02_double.json")) == 8


def test_a_run_whose_store_takes_nothing_more_pauses_and_goes_on_without_new_calls(
    words, object_store, read, calls
):
    def refuse(request: str) -> str:
        is_record = request.startswith("PUT") and "/v0/state/01_batches/000001" in request
        return "AccessDenied" if is_record else ""

    object_store.refuse = refuse
    paused = words.run("submit", "m.yaml", env={"BATCHQ_LEASE_TTL_S": "2"})
    object_store.refuse = lambda _: ""
    before = calls("w")

    done = words.run("resume", "words_module_4")

    assert paused.returncode == 5, paused.stderr
    assert "these keys may not do that" in paused.stdout
    assert done.returncode == 0, done.stderr
    assert {"w3", "w4", "w5"} <= set(before)  # their answers had no place to go to
    assert sorted(before + calls("w")) == [f"w{n}" for n in range(8)]
    assert len(read("v0/collated/02_double.json")) == 8


PLACES = {
    "NoSuchBucket": ("s3://no-such-bucket/x", {}, "make the bucket, or mend `output_dir`"),
    "NoCredentials": (
        "",
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "AccessDenied": ("", {}, "allow s3:ListBucket, s3:GetObject, s3:PutObject"),
    "InvalidAccessKeyId": ("", {}, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "Unreachable": (
        "",
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "2"},
        "check the network and AWS_ENDPOINT_URL",
    ),
}


@pytest.mark.parametrize("case", PLACES)
def test_a_store_that_cannot_be_used_is_one_message_before_anything_is_queued(
    words, object_store, case, calls
):
    url, env, advice = PLACES[case]
    if url:
        text = (words.folder / "m.yaml").read_text()
        words.write("m.yaml", text.replace(f"{object_store.bucket}/outputs", url))
    if case in ("AccessDenied", "InvalidAccessKeyId"):
        object_store.refuse = lambda _: case

    done = words.run("submit", "m.yaml", env=env)

    assert done.returncode == 6, done.stderr
    assert advice in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert calls("w") == []


def test_a_missing_client_is_asked_for_by_the_name_of_the_extra(words):
    words.write("s3fs.py", "raise ImportError('no module named s3fs')")

    process = words.start("submit", "m.yaml", is_cold=True)  # others have it imported
    _, said = process.communicate(timeout=60)

    assert process.returncode == 6, said
    assert "the package for s3:// is missing: pip install 'batchq[s3]'" in said


def test_doctor_tries_whether_the_store_can_be_written(words, object_store):
    sound = words.run("doctor", "m.yaml")
    object_store.refuse = lambda request: "AccessDenied" if request.startswith("PUT") else ""

    denied = words.run("doctor", "m.yaml")

    assert f"{object_store.bucket}/outputs can be written" in sound.stdout
    assert "allow s3:ListBucket" in denied.stdout
    assert object_store.files().ls(object_store.bucket) == []
