"""The graphs of dialogue beats, one folder a setting and version, and the reference corpus."""

from __future__ import annotations

import csv
import difflib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx

HERE = Path(__file__).parent
SYNTHETIC = HERE / "synthetic"
CORPUS = HERE / "reference/corpus.csv"
WORLDS = HERE / "worlds.json"
WALK = 5
"""Beats in a walk through the reference."""

_FOLDER = re.compile(r"(?P<name>[a-z]+)_v(?P<version>\d+)")


class InputError(ValueError):
    """What was asked for is not there; the message says what is."""


@dataclass(frozen=True)
class Setting:
    """A graph: `gallia:4` is in `synthetic/gallia_v4/`."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def label(self) -> str:
        """Its name in names of folders and runs."""
        return f"{self.name}_v{self.version}"

    @property
    def folder(self) -> Path:
        """Where it is."""
        return SYNTHETIC / self.label

    @property
    def world(self) -> str:
        """What its dialogues are to be like."""
        return json.loads(WORLDS.read_text(encoding="utf-8"))[self.name]


def known_settings() -> dict[str, list[int]]:
    """The versions that there are, by name."""
    found: dict[str, list[int]] = {}
    for folder in sorted(SYNTHETIC.iterdir()):
        match = _FOLDER.fullmatch(folder.name)
        if match and (folder / "graph.json").is_file():
            found.setdefault(match["name"], []).append(int(match["version"]))
    return {name: sorted(versions) for name, versions in found.items()}


def find_setting(spec: str) -> Setting:
    """Reads `gallia`, whose latest version it is, or `gallia:4`."""
    name, colon, version = spec.strip().partition(":")
    known = known_settings()
    listed = ", ".join(f"{one}:{number}" for one, numbers in known.items() for number in numbers)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"no setting is called {name!r}; {hint}there are: {listed}")
    if not colon:
        return Setting(name, known[name][-1])
    if not version.isdecimal():
        raise InputError(f"{spec}: expected a number as version, such as {name}:{known[name][-1]}")
    if int(version) not in known[name]:
        raise InputError(f"{name} has no version {version}; there are: {listed}")
    return Setting(name, int(version))


def find_settings(specs: str) -> list[Setting]:
    """Reads `gallia:4,marmotte:2`; each graph may be named once."""
    found = [find_setting(spec) for spec in specs.split(",")]
    twice = next((one for one in found if found.count(one) > 1), None)
    if twice:
        raise InputError(f"{specs}: {twice} is there twice")
    return found


def load_graph(setting: Setting) -> nx.DiGraph:
    """Reads a graph."""
    path = setting.folder / "graph.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        graph = nx.DiGraph()
        graph.add_nodes_from((node.pop("id"), node) for node in data["nodes"])
        graph.add_edges_from((one, other, {"run": run}) for one, other, run in data["edges"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a graph: {error}; restore the file") from error
    return graph


@contextmanager
def changing(setting: Setting, run: str, step: str) -> Iterator[nx.DiGraph]:
    """Gives a graph to be changed, and writes it: nobody else changes it meanwhile.

    The file is replaced as a whole, so that a reader sees the old graph or the new one. What has
    become of it is added to `history.jsonl`.
    """
    with (setting.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        graph = load_graph(setting)
        before = size(graph)
        yield graph
        _write(setting.folder / "graph.json", as_data(graph))
        change = {"at": time.strftime("%Y-%m-%dT%H:%M:%S"), "run": run, "step": step}
        with (setting.folder / "history.jsonl").open("a", encoding="utf-8") as history:
            history.write(json.dumps({**change, "before": before, "after": size(graph)}) + "\n")


def size(graph: nx.DiGraph) -> dict[str, int]:
    """How many nodes and edges a graph has."""
    return {"nodes": graph.number_of_nodes(), "edges": graph.number_of_edges()}


def as_data(graph: nx.DiGraph) -> dict[str, Any]:
    """A graph as its file holds it."""
    nodes = [{"id": name, **graph.nodes[name]} for name in sorted(graph)]
    return {"nodes": nodes, "edges": sorted(map(list, graph.edges(data="run")))}


def _write(path: Path, data: Any) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")
    temporary.replace(path)


def keep_extensions(setting: Setting, run: str, candidates: list[dict[str, Any]]) -> None:
    """Keeps the extension candidates that the links of a run brought."""
    folder = setting.folder / "extensions"
    folder.mkdir(exist_ok=True)
    _write(folder / f"{run}.json", candidates)


def read_extensions(setting: Setting, run: str) -> list[dict[str, Any]]:
    """Reads the extension candidates of a run."""
    folder = setting.folder / "extensions"
    path = folder / f"{run}.json"
    if not path.is_file():
        runs = ", ".join(sorted(one.stem for one in folder.glob("*.json"))) or "none"
        raise InputError(
            f"{run} brought no extension candidates for {setting}; runs that did: {runs}"
        )
    candidates = json.loads(path.read_text(encoding="utf-8"))
    if not candidates:
        raise InputError(f"the links of {run} brought no extension candidate")
    return candidates


@cache
def reference() -> nx.DiGraph:
    """The reference corpus as a graph, with the same attributes of a node as the others."""
    graph = nx.DiGraph()
    with CORPUS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            about = {key: row[key] for key in ("speaker", "emotion", "text", "scene")}
            graph.add_node(row["beat"], **about)
            graph.add_edges_from((row["beat"], other) for other in row["next"].split())
    return graph


def reference_walks() -> Iterator[tuple[str, ...]]:
    """Every walk of five beats through the reference, in the order of the corpus."""
    graph = reference()

    def onward(walk: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if len(walk) == WALK:
            yield walk
            return
        for beat in graph.successors(walk[-1]):
            yield from onward((*walk, beat))

    for beat in graph:
        yield from onward((beat,))
