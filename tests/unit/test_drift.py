from __future__ import annotations

from pathlib import Path

import pytest

from batchq.manifest.loader import load_manifest
from batchq.planning.drift import find_drift
from batchq.planning.planner import make_plan

MANIFEST = """
name: p
providers: {m: {kind: simulator, model: x}}
steps:
  - {name: a, input: items.json, prompt: ask, system: sys.md, output_schema: s.json}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts").mkdir()
    # A byte order mark and Windows line ends must not look like a change.
    (tmp_path / "m.yaml").write_bytes(b"\xef\xbb\xbf" + MANIFEST.replace("\n", "\r\n").encode())
    (tmp_path / "prompts/ask.md").write_bytes(b"\xef\xbb\xbfSay {x}\r\n")
    (tmp_path / "sys.md").write_text("Be kind")
    (tmp_path / "s.json").write_text('{"type": "object"}')
    (tmp_path / "items.json").write_text('[{"x": 1}]')
    return tmp_path


def test_nothing_has_drifted_right_after_the_plan(folder):
    assert find_drift(make_plan(load_manifest(folder / "m.yaml"))) == []


@pytest.mark.parametrize("name", ["m.yaml", "prompts/ask.md", "sys.md", "s.json", "items.json"])
def test_every_file_that_the_plan_was_made_from_is_watched(folder, name):
    plan = make_plan(load_manifest(folder / "m.yaml"))
    with (folder / name).open("a") as file:
        file.write(" ")

    (found,) = find_drift(plan)

    assert "changed (" in str(found)
    assert found.before != found.now


def test_a_file_that_is_gone_is_said_to_be_gone(folder):
    plan = make_plan(load_manifest(folder / "m.yaml"))
    (folder / "sys.md").unlink()

    assert [str(one) for one in find_drift(plan)] == ["sys.md is gone"]


def test_an_input_that_is_no_file_is_not_asked_again(folder):
    text = MANIFEST.replace("items.json", "{generate: 3}").replace("ask", "sys.md")
    (folder / "m.yaml").write_text(text)

    assert find_drift(make_plan(load_manifest(folder / "m.yaml"))) == []
