"""Tunes a hierarchy of terms: what the threshold and the size of the leaves do to it.

The terms are the names of the symbols of Unicode (over 5,000), which Python brings along.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from scipy.cluster.hierarchy import linkage
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

HERE = Path(__file__).parent
TERMS = 5500
DIMENSIONS = 48
ALIKE = 0.2
"""A term whose likeness to the middle of its leaf is less than this is an outlier."""


@dataclass
class Model:
    """What does not depend on a setting, so that a process makes it once."""

    terms: list[str]
    vectors: np.ndarray
    key: str  # what is cached of these terms


@dataclass
class Node:
    """A part of the hierarchy: terms, or nodes below it."""

    members: list[int]
    children: list[Node] = field(default_factory=list)


def symbols(count: int) -> list[str]:
    """The names of symbols, spread over all of them."""
    kinds = ("So", "Sm", "Sc")
    letters = map(chr, range(0x2000, 0x1FB00))
    names = [unicodedata.name(one, "") for one in letters if unicodedata.category(one) in kinds]
    return spread(sorted({name.lower() for name in names if name}), count)


def spread(terms: list[str], count: int) -> list[str]:
    """So many of the terms, evenly."""
    return terms[:: max(1, len(terms) // count)][:count]


def terms_of(dataset: str, count: int) -> list[str]:
    """The terms of a dataset: `symbols`, or a text file with a term a line."""
    if dataset == "symbols":
        return symbols(count)
    path = HERE / dataset
    if not path.is_file():
        raise FileNotFoundError(f"no dataset {dataset}: symbols, or a text file with a term a line")
    lines = (line.strip().lower() for line in path.read_text("utf-8").splitlines())
    return spread(sorted({line for line in lines if line}), count)


def load(params: dict[str, Any]) -> Model:
    """The setup of a process: terms as vectors of the n-grams of their letters."""
    dataset = params.get("dataset", "symbols")
    terms = terms_of(dataset, params.get("terms", TERMS))
    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    reduced = TruncatedSVD(DIMENSIONS, random_state=0).fit_transform(grams.fit_transform(terms))
    digest = hashlib.sha256("\n".join(terms).encode()).hexdigest()[:16]
    return Model(terms, normalize(reduced), f"wildcards:{digest}")


def generate(config: dict[str, Any], _: dict[str, Any], context: Any) -> dict[str, Any]:
    """A job: builds the hierarchy of one setting, writes it, and lints it."""
    model: Model = context.state
    tree = None
    if config.get("smart", True):
        # The clustering does not depend on the setting: whoever comes first makes it for all jobs.
        tree = np.array(context.cache.fetch(model.key, lambda: merges(model).tolist()))
    context.progress(1, 3)
    root = build(config, model, tree)
    context.progress(2, 3)
    found, outliers = statistics(root, model), lint(root, model)
    write(context.output / "wildcards.yaml", as_mapping(root, model.terms))
    write(context.output / "outliers.yaml", [model.terms[member] for member in outliers])
    return {"file": "wildcards.yaml", **found, "outliers": len(outliers)}


def build(config: dict[str, Any], model: Model, tree: np.ndarray | None) -> Node:
    """The hierarchy of a setting: by likeness, or by the alphabet where it is not `smart`."""
    least = config["min_leaf_size"]
    if tree is None:
        order = list(range(len(model.terms)))
        leaves = [order[at : at + least] for at in range(0, len(order), least)]
        return Node(order, [Node(members) for members in leaves])
    return hierarchy(tree, config["semantic_threshold"], least)


def write(path: Path, content: Any) -> None:
    """Writes YAML."""
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def merges(model: Model) -> np.ndarray:
    """Agglomerative clustering by the mean cosine distance: which two clusters become one."""
    return linkage(model.vectors, method="average", metric="cosine")


def hierarchy(tree: np.ndarray, threshold: float, least: int) -> Node:
    """Splits from the top until a part is alike enough, or would become too small."""
    count = len(tree) + 1

    def members(node: int) -> list[int]:
        stack, found = [node], []
        while stack:
            one = stack.pop()
            if one < count:
                found.append(one)
            else:
                stack += map(int, tree[one - count][:2])
        return found

    def size(node: int) -> int:
        return 1 if node < count else int(tree[node - count][3])

    def built(node: int) -> Node:
        """A loop, and not a recursion, where only one side is large enough to go on with."""
        whole, at = members(node), node
        while at >= count and 1 - tree[at - count][2] < threshold:
            left, right = map(int, tree[at - count][:2])
            sides = [one for one in (left, right) if size(one) >= least]
            if len(sides) == 2:
                return Node(whole, [built(one) for one in sides])
            if not sides:
                break
            at = sides[0]
        return Node(whole)

    return built(2 * count - 2)


def leaves(node: Node) -> list[Node]:
    """The nodes without nodes below them."""
    return [leaf for child in node.children for leaf in leaves(child)] or [node]


def nodes(node: Node) -> int:
    """How many nodes there are, leaves and all."""
    return 1 + sum(nodes(child) for child in node.children)


def depth(node: Node) -> int:
    """How many nodes are above each other."""
    return 1 + max((depth(child) for child in node.children), default=0)


def nearness(leaf: Node, model: Model) -> np.ndarray:
    """How like each term of a leaf is to the middle of it."""
    vectors = model.vectors[leaf.members]
    return vectors @ normalize(vectors.mean(axis=0).reshape(1, -1))[0]


def lint(root: Node, model: Model) -> list[int]:
    """The terms that have no place in their leaf."""
    return [
        member
        for leaf in leaves(root)
        for member, near in zip(leaf.members, nearness(leaf, model), strict=True)
        if near < ALIKE
    ]


def statistics(root: Node, model: Model) -> dict[str, float]:
    """What there is to compare settings by: shape, and how alike a leaf's terms are."""
    found = leaves(root)
    alike = sum(float(nearness(leaf, model).sum()) for leaf in found)
    return {
        "coherence": round(alike / sum(len(leaf.members) for leaf in found), 4),
        "nodes": nodes(root),
        "leaves": len(found),
        "depth": depth(root),
        "largest_leaf": max(len(leaf.members) for leaf in found),
    }


def as_mapping(node: Node, terms: list[str]) -> Any:
    """A node as wildcards want it: names over names, and lists of terms at the end."""
    if not node.children:
        return sorted(terms[member] for member in node.members)
    found: dict[str, Any] = {}
    for child in node.children:
        name = title([terms[member] for member in child.members])
        while name in found:
            name += "_more"
        found[name] = as_mapping(child, terms)
    return found


def title(terms: list[str]) -> str:
    """The two words that most of the terms have."""
    words = Counter(word for term in terms for word in set(term.split()) if len(word) > 2)
    return "_".join(word for word, _ in words.most_common(2)) or "others"
