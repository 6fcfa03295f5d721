"""`batchq init`: a working project out of an example."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

import click

from batchq.cli.output import put, say
from batchq.errors import UsageError

_LEFT_BY_RUNS = (
    "experiments",
    "outputs",
    "data",
    ".batchq",
    "__pycache__",
    "extensions",
    "history.jsonl",
    ".lock",
)
MAIN = "manifest.yaml"


@click.command("init")
@click.argument("example", required=False)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
def init_command(example: str | None, folder: Path | None) -> None:
    """Copies EXAMPLE into FOLDER, by default one of its name; lists the examples without it.

    The copy runs as it is, without a key, against a simulated provider.
    """
    examples = _examples()
    if example is None:
        width = max(map(len, examples))
        for name, path in examples.items():
            put(f"{name:{width}}  {_title(path)}")
        say("batchq init NAME copies one here")
        return
    if example not in examples:
        near = difflib.get_close_matches(example, examples, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(examples)}"
        raise UsageError(f"no example is named {example}; {hint}")
    target = folder or Path(example)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is there already; name another folder: batchq init {example} X")
    try:
        left = shutil.ignore_patterns(*_LEFT_BY_RUNS)
        shutil.copytree(examples[example], target, ignore=left, dirs_exist_ok=True)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from error
    put(str(target))
    manifests = sorted(path.name for path in target.glob("*.yaml"))
    manifest = MAIN if MAIN in manifests else manifests[0]
    say(f"cd {target} && batchq submit {manifest}; README.md says more")


def _examples() -> dict[str, Path]:
    """Name -> folder: those of the package, or beside it where it is run from its repository."""
    package = Path(__file__).parents[1]
    folders = (package / "examples", package.parent / "examples")
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        raise UsageError("this installation of batchq has no examples; its repository has them")
    return {path.name: path for path in sorted(found.iterdir()) if any(path.glob("*.yaml"))}


def _title(path: Path) -> str:
    readme = path / "README.md"
    lines = readme.read_text(encoding="utf-8").splitlines() if readme.is_file() else [""]
    return lines[0].removeprefix("# ")
