"""Chooses which beats to link: any, or those that bring the graph's topology to the reference's."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import networkx as nx
from beats import reference
from figures import distance, kind, topology, transition, transitions

SOURCES, TARGETS = 8, 10
"""How many pairs are compared for a link: so many beats, with so many others each."""


def choose_pairs(
    graph: nx.DiGraph, count: int, rng: random.Random, *, is_guided: bool
) -> list[tuple[str, str]]:
    """Up to `count` pairs of beats without an edge; beats where a dialogue ends come first."""
    beats = sorted(graph)
    rng.shuffle(beats)
    beats.sort(key=lambda beat: graph.out_degree(beat) > 0)
    grown = nx.DiGraph(graph)
    choose = _Nearest(grown).choose if is_guided else next
    pairs = []
    while len(pairs) < count:
        pair = choose(_offered(grown, beats, rng), None)
        if pair is None:
            break
        pairs.append(pair)
        grown.add_edge(*pair)
        beats.remove(pair[0])
        beats.append(pair[0])  # another beat's turn
    return pairs


def possible_pairs(graph: nx.DiGraph) -> int:
    """How many links a graph has room for."""
    nodes = graph.number_of_nodes()
    return nodes * (nodes - 1) - graph.number_of_edges()


def _offered(graph: nx.DiGraph, beats: list[str], rng: random.Random) -> Iterator[tuple[str, str]]:
    """Pairs in the order of their sources, with targets at random."""
    for source in beats:
        targets = [one for one in beats if one != source and not graph.has_edge(source, one)]
        for target in rng.sample(targets, min(TARGETS, len(targets))):
            yield source, target


class _Nearest:
    """Takes of the first pairs the one that leaves the graph nearest to the reference."""

    def __init__(self, graph: nx.DiGraph) -> None:
        goal = reference()
        self._graph = graph
        self._goals = topology(goal), transitions(goal)

    def choose(self, offered: Iterator[tuple[str, str]], nothing: None) -> tuple[str, str] | None:
        there = topology(self._graph), transitions(self._graph)
        pairs = [pair for pair, _ in zip(offered, range(SOURCES * TARGETS), strict=False)]
        return min(pairs, key=lambda pair: self._far(pair, *there), default=nothing)

    def _far(self, pair: tuple[str, str], kinds: Counter[str], moves: Counter[str]) -> float:
        """How far from the reference the graph is with one more edge."""
        source, target = pair
        degrees = self._graph.in_degree, self._graph.out_degree
        into, out = ([degree(beat) for beat in pair] for degree in degrees)
        kinds, moves = Counter(kinds), Counter(moves)
        kinds.subtract([kind(into[0], out[0]), kind(into[1], out[1])])
        kinds.update([kind(into[0], out[0] + 1), kind(into[1] + 1, out[1])])
        moves[transition(self._graph, source, target)] += 1
        return sum(map(distance, (kinds, moves), self._goals))
