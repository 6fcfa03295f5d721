"""`batchq plan --out` and `submit --plan`: what was shown is what runs."""

from __future__ import annotations

import json

import pytest

MANIFEST = """
name: greet
params: {count: {type: int, default: 3}}
providers:
  sim: {kind: simulator, model: m, prices: {input_per_1m: 1, output_per_1m: 2}}
steps:
  - {name: hello, provider: sim, prompt: p.md, input: x.json, id_field: id}
  - {name: count, task: "my_tasks:count"}
"""


@pytest.fixture
def greet(project):
    project.write("m.yaml", MANIFEST)
    project.write("x.json", [{"id": "a"}, {"id": "b"}, {"id": "c"}])
    project.write("p.md", "Hi {{id}}")
    project.write("my_tasks.py", "def count(item):\n    return {'n': 1}\n")
    return project


def keep(project, *choices: str) -> str:
    planned = project.run("plan", "m.yaml", *choices, "--out")
    assert planned.returncode == 0, planned.stderr
    return planned.stdout.split()[-1]


def test_a_kept_plan_is_run_with_all_that_was_chosen(greet):
    name = keep(greet, "--limit", "2", "--note", "As shown", "-p", "count=4")

    done = greet.run("submit", "--plan", name)

    assert done.returncode == 0, done.stderr
    assert len(greet.read("outputs/greet/v0/collated/02_count.json")) == 2
    assert greet.read("outputs/greet/v0/metadata.json")["notes"] == "As shown"
    assert greet.read("outputs/greet/v0/plan.json")["params"]["count"] == 4


def test_what_changed_since_is_told_and_nothing_runs(greet):
    name = keep(greet)
    greet.write("x.json", [{"id": "a"}])
    greet.write("p.md", "Hello {{id}}")
    greet.write("m.yaml", MANIFEST.replace("put_per_1m: 1", "put_per_1m: 3"))

    done = greet.run("submit", "--plan", name)

    assert done.returncode == 2
    assert "the manifest changed (" in done.stderr
    assert "p.md changed (" in done.stderr
    assert "x.json changed (" in done.stderr
    assert "hello: items 3 -> 1" in done.stderr
    assert "hello: stages[0].provider.prices.input_per_1m 1.0 -> 3.0" in done.stderr
    assert not (greet.folder / "outputs").exists()


def test_what_does_not_go_with_a_kept_plan_is_refused(greet):
    name = keep(greet)
    path = greet.folder / f".batchq/plans/{name}.json"
    assert json.loads(greet.run("plan", "m.yaml", "--out", "--json").stdout)["plan"] == name

    chosen = greet.run("submit", "m.yaml", "--plan", name, "--limit", "1")
    unknown = greet.run("submit", "--plan", "../../m")
    neither = greet.run("submit")
    part = greet.run("plan", "m.yaml", "--out", "--item", "a")
    path.write_text(path.read_text().replace('"made_by":"', '"made_by":"9'))
    old = greet.run("submit", "--plan", name)
    path.write_text("{}")
    broken = greet.run("submit", "--plan", name)

    results = (chosen, unknown, neither, part, old, broken)
    assert {one.returncode for one in results} == {2}
    assert "leave out FILE, --limit, or plan anew" in chosen.stderr
    assert f"no plan ../../m is kept here; the newest are {name}" in unknown.stderr
    assert "Give a manifest FILE, or --plan ID" in neither.stderr
    assert "leave out --explain, --item and --items" in part.stderr
    assert "was made by batchq 9" in old.stderr
    assert "is no plan any more" in broken.stderr


def test_a_plan_that_takes_items_over_is_void_when_there_is_a_newer_version(greet):
    greet.write("m.yaml", MANIFEST.replace("id_field: id}", "id_field: id, skip_existing: true}"))
    name = keep(greet)
    assert greet.run("submit", "--plan", name).returncode == 0
    again = keep(greet, "--note", "again")
    greet.write("x.json", [{"id": "a"}, {"id": "b"}, {"id": "c"}, {"id": "d"}])
    assert greet.run("submit", "m.yaml").returncode == 0
    greet.write("x.json", [{"id": "a"}, {"id": "b"}, {"id": "c"}])

    done = greet.run("submit", "--plan", again)

    assert done.returncode == 2
    assert "items would be taken over from greet@v1, not from greet@v0" in done.stderr
