"""The loop of seed 002: run, look, redo some items, compare, go on."""

from __future__ import annotations

import json

import pytest

HOME = "outputs/words_module_4"

COUNT = """
      - name: count
        task: "word_tasks:count"
        once: true
        output_file: count.json
"""
WORDS = ["zero", "one", "bad", "three", "four", "five", "six", "seven"]


@pytest.fixture
def words(write_words):
    return write_words(more_steps=COUNT)


@pytest.fixture
def manifest(words) -> str:
    return (words.folder / "m.yaml").read_text()


def test_redone_items_take_the_place_of_the_old_ones_in_every_step(words, calls):
    assert words.run("submit", "m.yaml").returncode == 0
    calls()
    words.write("suffix", "!")

    done = words.run(
        "rerun", "words_module_4", "w1", "w6", "--note", "Fixed it", "--status", "beta"
    )

    assert done.returncode == 0, done.stderr
    assert calls() == ["double 2", "double 7", "w1", "w6"]
    rows = words.read(f"{HOME}/v1/collated/01_upper.json")
    assert [row["text"] for row in rows] == [
        *("ZERO", "ONE!", "BAD", "THREE", "FOUR", "FIVE", "SIX!", "SEVEN")
    ]
    assert [row["number"] for row in rows] == list(range(1, 9))
    assert words.read(f"{HOME}/v1/collated/02_double.json")[6] == {
        "number": 7,
        "twice": "SIX!SIX!",
    }
    assert words.read(f"{HOME}/v1/collated/03_count.json") == {"rows": 8, "letters": 66}
    assert sorted(path.name for path in (words.folder / HOME / "v1/items").iterdir()) == [
        *("2", "7", "all", "w1", "w6")
    ]
    found = words.read(f"{HOME}/v1/metadata.json")
    expected = {
        "version": "v1",
        "mode": "rerun",
        "base_version": "v0",
        "notes": "Fixed it",
        "pipeline_status": "beta",
        "status": "completed",
    }
    assert {key: found[key] for key in expected} == expected
    assert words.read(f"{HOME}/v0/collated/01_upper.json")[1]["text"] == "ONE"


def test_the_items_that_failed_are_redone_and_fall_into_their_places(words, calls):
    words.write("strict", "")
    assert words.run("submit", "m.yaml").returncode == 3
    assert len(words.read(f"{HOME}/v0/collated/02_double.json")) == 7
    (words.folder / "strict").unlink()
    calls()

    done = words.run("rerun", "words_module_4", "--failed")

    assert done.returncode == 0, done.stderr
    assert calls() == ["double 3", "w2"]
    numbers = [row["number"] for row in words.read(f"{HOME}/v1/collated/01_upper.json")]
    assert numbers == list(range(1, 9))
    twice = [row["twice"] for row in words.read(f"{HOME}/v1/collated/02_double.json")]
    assert twice == [word.upper() * 2 for word in WORDS]
    assert not (words.folder / HOME / "v1/01_errors.json").exists()


def test_items_are_chosen_by_their_output_and_a_rerun_of_a_rerun_builds_on_it(words):
    words.run("submit", "m.yaml")
    words.write("suffix", "!")
    words.run("rerun", "words_module_4", "w0")
    words.write("suffix", "?")

    done = words.run("rerun", "words_module_4", "--where", "twice == 'SIXSIX'", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == "v2"
    rows = words.read(f"{HOME}/v2/collated/01_upper.json")
    assert [rows[0]["text"], rows[6]["text"], rows[1]["text"]] == ["ZERO!", "SIX?", "ONE"]
    assert words.read(f"{HOME}/v2/metadata.json")["base_version"] == "v1"


def test_an_older_version_and_another_manifest_can_be_named(words, manifest):
    words.run("submit", "m.yaml")
    words.write("suffix", "!")
    words.run("rerun", "words_module_4", "w0")
    other = manifest.replace("double.json", "twice.json")
    words.write("other.yaml", other)

    done = words.run("rerun", "words_module_4", "w1", "--from", "v0", "--manifest", "other.yaml")

    assert done.returncode == 0, done.stderr
    rows = words.read(f"{HOME}/v2/collated/01_upper.json")
    assert [row["text"] for row in rows[:2]] == ["ZERO", "ONE!"]
    assert len(words.read(f"{HOME}/v2/collated/02_twice.json")) == 8


def test_a_dry_run_tells_what_would_be_redone_and_does_nothing(words):
    words.run("submit", "m.yaml")

    done = words.run("rerun", "words_module_4", "w1", "w2", "--dry-run")

    assert done.returncode == 0
    assert "would redo w1, w2 of words_module_4@v0" in done.stdout
    assert "count: all of it" in done.stdout
    assert not (words.folder / HOME / "v1").exists()


def test_versions_that_build_on_one_another_can_be_moved_together(words):
    words.run("submit", "m.yaml")
    words.write("suffix", "!")
    words.run("rerun", "words_module_4", "w1")
    (words.folder / "outputs").rename(words.folder / "archive")
    words.run("catalog", "rebuild", "archive")

    shown = words.run("show", "words_module_4@v1", "w0", "--json")
    compared = words.run("compare", "words_module_4", "v0", "v1", "--step", "upper", "--json")
    done = words.run("rerun", "words_module_4", "w2", "--from", "v1")

    assert shown.returncode == 0, shown.stderr
    assert compared.returncode == 0, compared.stderr
    assert done.returncode == 0, done.stderr
    rows = words.read(f"{HOME}/v0/collated/01_upper.json")
    assert [row["text"] for row in rows[:4]] == ["ZERO", "ONE!", "BAD!", "THREE"]


def test_a_label_that_is_misspelt_is_refused_before_anything_runs(words):
    words.run("submit", "m.yaml", "--only", "w1,w2")

    commands = [("submit", "m.yaml", "--only", "w1"), ("rerun", "words_module_4", "w1")]
    for number, command in enumerate(commands, start=1):
        refused = words.run(*command, "--status", "fnal")
        done = words.run(*command, "--status", "shown_to_anna")

        assert refused.returncode == 2
        assert "did you mean final?" in refused.stderr
        assert done.returncode == 0, done.stderr
        metadata = words.read(f"{HOME}/v{number}/metadata.json")
        assert metadata["pipeline_status"] == "shown_to_anna"


def test_a_rerun_of_what_is_not_there_is_refused(words):
    words.run("submit", "m.yaml", "--only", "w1,w2")

    for arguments, code, words_said in (
        (["words_module_4", "w99"], 7, "has no item `w99`; ids are such as w1, w2"),
        (["word_module_4", "w1"], 7, "words_module_4"),
        (["words_module_4", "w1", "--from", "v9"], 7, "v9"),
        (["words_module_4"], 2, "name the items, or use one of"),
        (["words_module_4", "--where", "length <"], 2, "--where length <"),
        (["words_module_4", "--where", "lenght < 3"], 2, "lenght"),
    ):
        done = words.run("rerun", *arguments)

        assert done.returncode == code, done.stderr
        assert words_said in done.stderr
        assert "Traceback" not in done.stderr
        assert not (words.folder / HOME / "v1").exists()


def test_a_retry_runs_what_failed_in_the_same_version_and_what_follows_from_it(words, calls):
    words.write("strict", "")
    assert words.run("submit", "m.yaml").returncode == 3
    (words.folder / "strict").unlink()
    calls()

    preview = words.run("retry", "words_module_4", "--dry-run")
    done = words.run("retry", "words_module_4")

    assert "would retry 1 of words_module_4@v0 (failed items: 1 task)" in preview.stderr
    assert done.returncode == 0, done.stderr
    assert calls() == ["double 3", "w2"]
    twice = [row["twice"] for row in words.read(f"{HOME}/v0/collated/02_double.json")]
    assert twice == [word.upper() * 2 for word in WORDS]
    assert words.read(f"{HOME}/v0/collated/03_count.json")["rows"] == 8
    assert words.read(f"{HOME}/v0/metadata.json")["totals"]["failed"] == 0
    assert not (words.folder / HOME / "v0/01_errors.json").exists()
    assert words.run("retry", "words_module_4").returncode == 0
    assert not (words.folder / HOME / "v1").exists()


def test_a_retry_of_another_kind_of_failure_leaves_things_as_they_are(words):
    words.write("strict", "")
    words.run("submit", "m.yaml")

    done = words.run("retry", "words_module_4", "--kind", "rate_limit")

    assert done.returncode == 0
    assert "nothing to retry (failed items: 1 task)" in done.stderr
    assert len(words.read(f"{HOME}/v0/01_errors.json")) == 1


def test_a_resume_refuses_files_that_changed_until_it_is_told_to_go_on(words, manifest):
    words.write("strict", "")
    stopping = manifest.replace("output_file: upper.json", "stop_on_error: true")
    words.write("m.yaml", stopping)
    assert words.run("submit", "m.yaml").returncode == 4
    (words.folder / "strict").unlink()
    words.write("m.yaml", stopping + "# a remark\n")

    refused = words.run("resume", "words_module_4")
    done = words.run("resume", "words_module_4", "--accept-drift")

    assert refused.returncode == 2
    assert "the manifest changed (" in refused.stderr
    assert "--accept-drift" in refused.stderr
    assert done.returncode == 3, done.stderr
    assert len(words.read(f"{HOME}/v0/collated/02_double.json")) == 7
