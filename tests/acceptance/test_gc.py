"""`batchq gc` on versions in a folder."""

from __future__ import annotations

import json
import shutil

MANIFEST = """
name: numbers
steps:
  - {name: twice, input: {generate: 2}, task: "my_tasks:twice"}
"""


def copy_version(home, number: int, **changes: str) -> None:
    """Makes a version out of v0."""
    folder = home / f"v{number}"
    shutil.copytree(home / "v0", folder)
    metadata = json.loads((folder / "metadata.json").read_bytes())
    metadata |= {"version": f"v{number}", "run": f"{number:012d}", **changes}
    (folder / "metadata.json").write_text(json.dumps(metadata))


def test_old_versions_go_and_what_is_needed_stays(project):
    project.write("my_tasks.py", "def twice(item):\n    return {'n': 1}\n")
    project.write("m.yaml", MANIFEST)
    assert project.run("submit", "m.yaml").returncode == 0
    home = project.folder / "outputs/numbers"
    copy_version(home, 1)
    copy_version(home, 2, pipeline_status="final")
    copy_version(home, 3)
    copy_version(home, 4, base_version="v1", mode="rerun")
    assert project.run("catalog", "rebuild").returncode == 0
    shutil.rmtree(home / "v3")

    shown = project.run("gc", "--keep", "1", "--dry-run")
    unsure = project.run("gc", "--keep", "1")
    before = sorted(path.name for path in home.glob("v*"))
    done = project.run("gc", "--keep", "1", "--yes")
    again = project.run("gc", "--keep", "1", "--yes", "--json")

    assert [line.split("  ")[:2] for line in shown.stdout.splitlines()] == [
        ["numbers@v4", "stays: it is the latest"],
        ["numbers@v3", "goes: its folder is gone"],
        ["numbers@v2", "stays: its label is final"],
        ["numbers@v1", "stays: v4 builds on it"],
        ["numbers@v0", "goes"],
    ]
    assert "2 versions, " in shown.stderr
    assert unsure.returncode == 2
    assert "--yes" in unsure.stderr
    assert before == ["v0", "v1", "v2", "v4"]
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in home.glob("v*")) == ["v1", "v2", "v4"]
    assert [one["kept_for"] for one in json.loads(again.stdout)] == [
        *("it is the latest", "its label is final", "v4 builds on it")
    ]
    assert "nothing to remove" in again.stderr
    assert "v0" not in project.run("list", "numbers", "--all").stdout
    near = project.run("gc", "nubers", "--dry-run")
    assert near.returncode == 7
    assert "did you mean numbers" in near.stderr
