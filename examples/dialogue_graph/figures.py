"""What a graph of beats is like: transitions of emotions, shapes of arcs, topology."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import networkx as nx
from beats import WALK, Setting, load_graph, reference, size

VALENCE = {
    "joy": 1,
    "neutral": 0,
    "surprise": 0,
    "anger": -1,
    "disgust": -1,
    "fear": -1,
    "sadness": -1,
}
EMOTIONS = tuple(VALENCE)


def transition(graph: nx.DiGraph, one: str, other: str) -> str:
    """The emotions of two beats, such as anger>disgust."""
    return f"{graph.nodes[one]['emotion']}>{graph.nodes[other]['emotion']}"


def transitions(graph: nx.DiGraph) -> Counter[str]:
    """How often each transition of emotions is an edge."""
    return Counter(transition(graph, *edge) for edge in graph.edges)


def arc(emotions: Iterable[str]) -> str:
    """The shape of a walk: its turns, such as fall-rise."""
    shape: tuple[str, ...] = ()
    for one, other in pairwise(emotions):
        shape = _turned(shape, one, other)
    return "-".join(shape) or "flat"


def _turned(shape: tuple[str, ...], one: str, other: str) -> tuple[str, ...]:
    change = VALENCE[other] - VALENCE[one]
    turn = "rise" if change > 0 else "fall"
    return shape if change == 0 or shape[-1:] == (turn,) else (*shape, turn)


def arcs(graph: nx.DiGraph) -> Counter[str]:
    """How often each shape is that of a walk of five beats; walks are counted, not made."""
    emotion = graph.nodes(data="emotion")
    ends = Counter((beat, ()) for beat in graph)
    for _ in range(WALK - 1):
        further: Counter[tuple[str, tuple[str, ...]]] = Counter()
        for (beat, shape), count in ends.items():
            for other in graph.successors(beat):
                further[other, _turned(shape, emotion[beat], emotion[other])] += count
        ends = further
    found: Counter[str] = Counter()
    for (_, shape), count in ends.items():
        found["-".join(shape) or "flat"] += count
    return found


def kind(into: int, out: int) -> str:
    """What a beat is in the graph, by how many edges lead to it and from it."""
    if not into or not out:
        return "alone" if not (into or out) else "start" if out else "end"
    if into == 1:
        return "line" if out == 1 else "branch"
    return "merge" if out == 1 else "hub"


def topology(graph: nx.DiGraph) -> Counter[str]:
    """How many beats are of which kind."""
    return Counter(kind(graph.in_degree(beat), graph.out_degree(beat)) for beat in graph)


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """How far two distributions are apart, from 0 to 1 (total variation)."""
    first, second = max(1, sum(one.values())), max(1, sum(other.values()))
    keys = {*one, *other}
    return sum(abs(one.get(key, 0) / first - other.get(key, 0) / second) for key in keys) / 2


def distances(graph: nx.DiGraph) -> dict[str, float]:
    """How far a graph is from the reference."""
    goal = reference()
    return {
        made.__name__: round(distance(made(graph), made(goal)), 4)
        for made in (transitions, arcs, topology)
    }


def stats(setting: Setting) -> dict[str, Any]:
    """What `stats` and the API tell of a graph."""
    graph = load_graph(setting)
    return {
        "setting": setting.name,
        "version": setting.version,
        **size(graph),
        "components": nx.number_weakly_connected_components(graph),
        "emotions": dict(Counter(nx.get_node_attributes(graph, "emotion").values()).most_common()),
        "kinds": dict(Counter(nx.get_node_attributes(graph, "kind").values()).most_common()),
        "topology": dict(topology(graph).most_common()),
        "arcs": dict(arcs(graph).most_common()),
        "transitions": dict(transitions(graph).most_common()),
        "distance_to_reference": distances(graph),
    }
