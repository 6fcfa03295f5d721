"""Rounds that grow something, and guided samples on the way."""

from __future__ import annotations

import json
import textwrap

GROWING = """
    import json
    from pathlib import Path

    KEPT = Path(__file__).parent / "kept.jsonl"

    def kept():
        lines = KEPT.read_text().splitlines() if KEPT.exists() else []
        return [json.loads(line) for line in lines]

    def offered():
        names = {row["name"] for row in kept()}
        rows = [{"name": f"{kind}{n}", "kind": kind} for kind in "abc" for n in range(8)]
        return [row for row in rows if row["name"] not in names]

    def keep(item, params):
        with KEPT.open("a") as file:
            file.write(json.dumps(item) + "\\n")
        marker = KEPT.with_name("turned")
        tone = "dark" if marker.exists() else item["kind"]
        return {"name": item["name"], "tone": tone, "round": params["round"]}

    def note(item):
        return item
"""
MANIFEST = """
    name: growing
    rounds: 2
    steps:
      - name: keep
        input: py:growing:offered
        id_field: name
        sample:
          n: 6
          method: guided
          by: kind
          reference: goal.json
          existing: py:growing:kept
          seed: ${params.round}
        task: growing:keep
      - name: two
        sample: {n: 2, method: guided, by: tone, reference: tones.json}
        id_field: name
        task: growing:note
"""


def test_each_round_is_planned_on_what_the_last_one_left_and_can_be_rerun(project):
    project.write("growing.py", textwrap.dedent(GROWING))
    project.write("m.yaml", textwrap.dedent(MANIFEST))
    project.write("goal.json", {"kind": {"a": 1, "b": 1, "c": 4}})
    project.write("tones.json", {"tone": {"a": 1, "b": 1}})

    planned = project.run("plan", "m.yaml", "--json")
    done = project.run("submit", "m.yaml", "--timeout", "60")
    before = project.read("outputs/growing/v1/collated/02_two.json")
    project.write("turned", "")
    redone = project.run("rerun", "growing", before[0]["name"])
    beyond = project.run("validate", "m.yaml", "-p", "round=3")

    assert json.loads(planned.stdout)["rounds"] == 2
    assert done.returncode == 0, done.stderr
    assert "round 2 of 2" in done.stderr
    rows = [project.read(f"outputs/growing/{name}/collated/01_keep.json") for name in ("v0", "v1")]
    assert [row["round"] for row in rows[0] + rows[1]] == [1] * 6 + [2] * 6
    kinds = "".join(sorted(row["tone"] for row in rows[0] + rows[1]))
    assert kinds == "aabbcccccccc", "both rounds together are spread as the reference is"
    assert sorted(row["tone"] for row in before) == ["a", "b"]
    assert redone.returncode == 0, redone.stderr
    after = project.read("outputs/growing/v2/collated/02_two.json")
    assert [row["name"] for row in after] == [row["name"] for row in before]
    assert [row["tone"] for row in after] == ["dark", before[1]["tone"]]
    assert beyond.returncode == 2
    assert "rounds: there is no round 3 (rounds are 1 to 2)" in beyond.stdout
