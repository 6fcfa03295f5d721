"""The steps of the pipeline that are no calls: what is sampled, compiled, linked and extended."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import networkx as nx
from beats import (
    InputError,
    changing,
    find_setting,
    keep_extensions,
    load_graph,
    read_extensions,
    reference,
    reference_walks,
    size,
)
from figures import arc, arcs, distances, transition, transitions
from topology import choose_pairs

Params = dict[str, Any]


def walks(params: Params) -> Iterator[dict[str, Any]]:
    """The input of the translation: all walks of five beats through the reference.

    `transitions` are those that the graph would gain by it.
    """
    setting, goal = find_setting(params["setting"]), reference()
    graph, found = load_graph(setting), [*reference_walks()]
    if params["count"] > len(found):
        raise InputError(f"the reference has {len(found)} walks, not {params['count']}")
    for walk in found:
        about = [goal.nodes[beat] for beat in walk]
        edges = [*pairwise(walk)]
        new = [edge for edge in edges if not graph.has_edge(*map(translated, edge))]
        yield {
            "walk": "-".join(walk),
            "world": setting.world,
            "beats": [{key: one[key] for key in ("speaker", "emotion", "text")} for one in about],
            "transitions": [transition(goal, *edge) for edge in new or edges[1:3]],
            "arc": arc(one["emotion"] for one in about),
        }


def wanted() -> list[dict[str, list[str]]]:
    """What guided sampling comes near to: the transitions and arcs of the reference."""
    return [_held(reference())]


def held(params: Params) -> list[dict[str, list[str]]]:
    """What the graph has of them already."""
    return [_held(load_graph(find_setting(params["setting"])))]


def _held(graph: nx.DiGraph) -> dict[str, list[str]]:
    return {"transitions": [*transitions(graph).elements()], "arc": [*arcs(graph).elements()]}


def keep_walk(item: dict[str, Any]) -> dict[str, Any]:
    """Hands on to the translation what the structural parser was asked of."""
    names = ("walk", "world", "beats", "functions", "tension")
    return {name: item[name] for name in names}


def translated(beat: str) -> str:
    """The name of the node that a beat of the reference becomes."""
    return f"t-{beat}"


def compile_translations(items: list[dict[str, Any]], params: Params) -> dict[str, Any]:
    """Adds translated walks to the graph; beats that it has, by source or by words, are reused.

    A walk that was there before, edge by edge, gives its middle beat in other words. A run that
    compiles again (after a crash, or a rerun of items) changes only beats of its own.
    """
    setting, goal = find_setting(params["setting"]), reference()
    with changing(setting, params["run"], "compile") as graph:
        growth = _Growth(graph, params)
        for item in items:
            walk = item["walk"].split("-")
            names = [*map(translated, walk)]
            lines = [
                {**line, "emotion": goal.nodes[beat]["emotion"], "source": beat}
                for beat, line in zip(walk, item["lines"], strict=True)
            ]
            middle = len(walk) // 2
            if growth.has_from_before(names):
                name = growth.put(_name("v", growth.stamp, item["walk"]), lines[middle], "variant")
                growth.lead([names[middle - 1], name, names[middle + 1]])
            else:
                growth.lead(
                    [growth.put(*one, "translation") for one in zip(names, lines, strict=True)]
                )
        return growth.report() | {"beats": sum(len(item["lines"]) for item in items)}


class _Growth:
    """What a step of a run adds to a graph."""

    def __init__(self, graph: nx.DiGraph, params: Params) -> None:
        self.graph = graph
        self.stamp = f"{params['run']}/{params.get('round', 1)}"
        self._before = size(graph)
        self._by_words = {_words(about): name for name, about in graph.nodes(data=True)}

    def has_from_before(self, path: list[str]) -> bool:
        """Whether a path was there when the run began."""
        return all(
            self.graph.has_edge(*edge) and self.graph.edges[edge].get("run") != self.stamp
            for edge in pairwise(path)
        )

    def put(self, name: str, about: dict[str, Any], kind: str) -> str:
        """Adds a beat unless one like it is there; returns the name of that which stands for it."""
        is_own = name in self.graph and self.graph.nodes[name]["run"] == self.stamp
        if name in self.graph and not is_own:
            return name
        alike = self._by_words.setdefault(_words(about), name)
        if alike != name and not is_own:
            return alike
        self.graph.add_node(name, **about, kind=kind, run=self.stamp)
        return name

    def lead(self, path: list[str]) -> None:
        """Adds the edges of a path; a beat that stands twice in it would make a loop."""
        for edge in pairwise(dict.fromkeys(path)):
            if not self.graph.has_edge(*edge):
                self.graph.add_edge(*edge, run=self.stamp)

    def report(self) -> dict[str, Any]:
        """How the graph has grown."""
        sizes = {"before": self._before, "after": size(self.graph)}
        return sizes | {"distance_to_reference": distances(self.graph)}


def _words(about: dict[str, Any]) -> tuple[str, str]:
    return about["emotion"], " ".join(re.findall(r"\w+", about["text"].lower()))


def _about(graph: nx.DiGraph, name: str) -> dict[str, str]:
    return {key: graph.nodes[name][key] for key in ("speaker", "emotion", "text")}


def _taken_in(graph: nx.DiGraph, params: Params, step: str) -> random.Random:
    """The luck of a step; a graph that has grown has another."""
    return random.Random(f"{params['seed']}/{params['round']}/{step}/{size(graph)}")


def link_candidates(_: Any, params: Params) -> list[dict[str, Any]]:
    """Chooses what to link: at random, or so that topology and transitions near the reference."""
    setting = find_setting(params["setting"])
    graph = load_graph(setting)
    rng = _taken_in(graph, params, "link")
    pairs = choose_pairs(graph, params["count"], rng, is_guided=params["sampling"] == "guided")
    if not pairs:
        raise InputError(f"{setting} has no two beats that could be linked")
    return [
        {
            "link": f"{source}~{target}",
            "world": setting.world,
            "before": [_about(graph, one) for one in list(graph.predecessors(source))[:1]],
            "source": _about(graph, source),
            "target": _about(graph, target),
        }
        for source, target in pairs
    ]


def apply_links(items: list[dict[str, Any]], params: Params) -> dict[str, Any]:
    """Adds the links that were found good, with a bridge where one is needed.

    The ideas for what else could follow a beat are kept as extension candidates of the run.
    """
    setting = find_setting(params["setting"])
    candidates = []
    with changing(setting, params["run"], "link") as graph:
        growth = _Growth(graph, params)
        for item in items:
            source, target = item["link"].split("~")
            if item["verdict"] == "direct":
                growth.lead([source, target])
            elif item["verdict"] == "bridge":
                name = growth.put(_name("b", growth.stamp, item["link"]), item["bridge"], "bridge")
                growth.lead([source, name, target])
            candidates += [{"node": source, **idea} for idea in item["extensions"]]
        keep_extensions(setting, params["run"], candidates)
        verdicts = [item["verdict"] for item in items]
        counts = {one: verdicts.count(one) for one in sorted({*verdicts})}
        return growth.report() | {"verdicts": counts, "extensions": len(candidates)}


def _name(letter: str, *parts: object) -> str:
    text = "/".join(map(str, parts))
    return f"{letter}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def extension_candidates(_: Any, params: Params) -> list[dict[str, Any]]:
    """Chooses from the candidates that a run's links brought, and where each leads back to."""
    setting = find_setting(params["setting"])
    candidates = read_extensions(setting, params["source_run"] or params["run"])
    graph = load_graph(setting)
    rng = _taken_in(graph, params, "extend")
    left = [one for one in candidates if one["node"] in graph]
    rng.shuffle(left)
    if params["sampling"] == "guided":
        goal, there = transitions(reference()), transitions(graph)
        lacks = {key: goal[key] / goal.total() - there[key] / there.total() for key in goal}
        left.sort(key=lambda one: -lacks.get(_first(graph, one), 0.0))
    tickets = []
    for number, one in enumerate(left[: params["count"]]):
        target = rng.choice([name for name in sorted(graph) if name != one["node"]])
        tickets.append(
            {
                "extension": f"{one['node']}~{target}~{number}",
                "world": setting.world,
                "source": _about(graph, one["node"]),
                "target": _about(graph, target),
                "emotion": one["emotion"],
                "idea": one["idea"],
            }
        )
    return tickets


def _first(graph: nx.DiGraph, candidate: dict[str, Any]) -> str:
    return f"{graph.nodes[candidate['node']]['emotion']}>{candidate['emotion']}"


def apply_extensions(items: list[dict[str, Any]], params: Params) -> dict[str, Any]:
    """Adds the beats that lead from one that is there to another."""
    setting = find_setting(params["setting"])
    with changing(setting, params["run"], "extend") as graph:
        growth = _Growth(graph, params)
        for item in items:
            source, target, _ = item["extension"].split("~")
            names = [
                growth.put(_name("x", growth.stamp, item["extension"], at), beat, "extension")
                for at, beat in enumerate(item["beats"])
            ]
            growth.lead([source, *names, target])
        return growth.report()
