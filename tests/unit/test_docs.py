from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from batchq.manifest.endpoints import Limits, Provider
from batchq.manifest.loader import check_manifest, load_manifest
from batchq.manifest.models import (
    STEP_ALIASES,
    TOP_ALIASES,
    Config,
    Manifest,
    Part,
    Retry,
    Stage,
    Step,
)
from batchq.planning.planner import make_plan
from batchq.settings import Settings
from batchq.simulator import SimulatorOptions

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```yaml manifest\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
TEST_NAME = re.compile(r"`(test_\w+)`")

FILES = {
    "tickets.jsonl": '{"id": "t1", "text": "My parcel is late."}\n',
    "inputs/reviews.csv": "review_id,text\n1,good\n2,mauvais\n",
    "prompts/classify.md": "Classify: {text}\n",
    "prompts/report.md": "Report on {item}\n",
    "prompts/language.md": "What language is this?\n{text}\n",
    "prompts/grade.j2": "Grade {{ text }}\n",
    "prompts/letter.md": "Write to them: {item}\n",
    "schemas/grade.json": '{"type": "object", "required": ["grade"]}',
}


def _manifests() -> list[tuple[str, str]]:
    return [
        (f"{path.relative_to(ROOT)} {number}", text)
        for path in DOCS
        for number, text in enumerate(FENCE.findall(path.read_text("utf-8")), 1)
    ]


def test_the_documents_show_manifests() -> None:
    assert [name for name, _ in _manifests()] == [
        "README.md 1",
        "docs/batch_mode.md 1",
        "docs/experiments.md 1",
        "docs/manifest.md 1",
        "docs/manifest.md 2",
    ]


@pytest.mark.parametrize(
    "text", [text for _, text in _manifests()], ids=[n for n, _ in _manifests()]
)
def test_a_manifest_in_the_documents_is_valid_and_can_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    file = tmp_path / "manifest.yaml"
    file.write_text(text)
    monkeypatch.setenv("DEEPSEEK_API_KEY", "none")

    problems = check_manifest(file)

    assert problems == []
    assert make_plan(load_manifest(file)).warnings == ()


@pytest.mark.parametrize("part", [Manifest, Config, Provider, Limits, Retry, Step, Stage])
def test_every_key_of_a_manifest_is_in_its_reference(part: type[Part]) -> None:
    text = (ROOT / "docs/manifest.md").read_text("utf-8")

    missing = [key for key in part.model_fields if not re.search(rf"[`{{. ]{key}[`:,}}]", text)]

    assert missing == []


def test_every_alias_is_in_the_reference() -> None:
    text = (ROOT / "docs/manifest.md").read_text("utf-8")

    assert [name for name in (*STEP_ALIASES, *TOP_ALIASES) if f"`{name}`" not in text] == []


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs/operations.md").read_text("utf-8")

    assert [name for name in Settings.model_fields if f"| `{name}` |" not in text] == []


def test_every_option_of_the_simulator_is_documented() -> None:
    text = (ROOT / "docs/simulator.md").read_text("utf-8")

    assert [name for name in SimulatorOptions.model_fields if f"`{name}`" not in text] == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_link_between_the_documents_leads_somewhere(path: Path) -> None:
    links = [link for link in LINK.findall(path.read_text("utf-8")) if "://" not in link]

    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_exists(path: Path) -> None:
    named = set(TEST_NAME.findall(path.read_text("utf-8")))
    sources = [file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py")]
    modules = {file.stem for file in (ROOT / "tests").rglob("test_*.py")}

    missing = {
        name for name in named - modules if not any(f"def {name}(" in source for source in sources)
    }

    assert missing == set()


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/docs"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
