"""What tests of versions share: eight words, functions that note who called them, a manifest."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import pytest

WORDS = ["zero", "one", "bad", "three", "four", "five", "six", "seven"]

TASKS = """
    import time
    from pathlib import Path

    HERE = Path(__file__).parent

    def note(text):
        with open(HERE / "calls.txt", "a") as calls:
            calls.write(text + "\\n")

    def upper(item):
        note(item["id"])
        if (HERE / "strict").exists() and item["word"] == "bad":
            raise ValueError("a bad word")
        suffix = (HERE / "suffix").read_text() if (HERE / "suffix").exists() else ""
        return {"text": item["word"].upper() + suffix, "length": len(item["word"])}

    def wait(item):
        note(item["id"])
        while item["id"] == "w5" and not (HERE / "go").exists():
            time.sleep(0.02)
        return {"text": item["word"]}

    def double(item):
        if "number" in item:
            note("double " + str(item["number"]))
        return {"twice": item["text"] * 2}

    def count(rows):
        return {"rows": len(rows), "letters": sum(len(row["twice"]) for row in rows)}
"""

MANIFEST = """
    name: words
    labels: {module: 4}
    notes: First run
    config: {output_dir: OUTPUT}
    steps:
      - name: upper
        input: words.json
        id_field: id
        output_id_field: number
        task: "word_tasks:upper"
        output_file: upper.json
        batch_size: 3
        retry: {max_retries: 0}
      - name: double
        id_field: number
        task: "word_tasks:double"
        output_file: double.json
"""


@pytest.fixture
def write_words(project: Any) -> Callable[..., Any]:
    """`write_words(output_dir, more_steps)` fills the project's folder and returns the project."""

    def write(output_dir: str = "outputs", more_steps: str = "") -> Any:
        project.write("words.json", [{"id": f"w{n}", "word": word} for n, word in enumerate(WORDS)])
        project.write("word_tasks.py", textwrap.dedent(TASKS))
        manifest = MANIFEST.replace("OUTPUT", output_dir) + more_steps
        project.write("m.yaml", textwrap.dedent(manifest))
        return project

    return write


@pytest.fixture
def calls(project: Any) -> Callable[..., list[str]]:
    """`calls()` takes the calls noted since the last look; `calls("w")` those that begin so."""

    def look(prefix: str = "") -> list[str]:
        path = project.folder / "calls.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return sorted(line for line in lines if line.startswith(prefix))

    return look
