"""The command lines of the design document.

python wildcards_gen.py batch experiments.yaml --workers 4
python wildcards_gen.py dataset tree.yaml --min-leaf-size 20 --semantic-threshold 0.1
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import wildcards


def batch(told: argparse.Namespace, more: list[str]) -> int:
    """Runs all jobs of a manifest in parallel; further options are those of `batchq submit`."""
    workers = [] if told.workers is None else ["--workers", str(told.workers)]
    command = [sys.executable, "-m", "batchq", "submit", told.manifest, *workers, *more]
    return subprocess.run(command, check=False).returncode


def dataset(told: argparse.Namespace) -> int:
    """Makes one hierarchy here and now, without batchq."""
    model = wildcards.load({"dataset": told.dataset, "terms": told.terms})
    config = {
        "min_leaf_size": told.min_leaf_size,
        "semantic_threshold": told.semantic_threshold,
    }
    tree = None if told.flat else wildcards.merges(model)
    root = wildcards.build(config, model, tree)
    wildcards.write(told.output, wildcards.as_mapping(root, model.terms))
    for name, value in wildcards.statistics(root, model).items():
        print(f"{name:14} {value}")
    print(f"{'outliers':14} {len(wildcards.lint(root, model))}")
    return 0


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="wildcards-gen", description="Tunes hierarchies.")
    commands = parser.add_subparsers(dest="command", required=True)
    many = commands.add_parser("batch", help="run the jobs of a manifest")
    many.add_argument("manifest")
    many.add_argument("--workers", type=int, help="processes; default: one a core")
    one = commands.add_parser("dataset", help="make one hierarchy")
    one.add_argument("output", type=Path)
    one.add_argument("--dataset", default="symbols")
    one.add_argument("--terms", type=int, default=wildcards.TERMS)
    one.add_argument("--min-leaf-size", type=int, default=20)
    one.add_argument("--semantic-threshold", type=float, default=0.1)
    one.add_argument("--flat", action="store_true", help="by the alphabet, not by likeness")
    told, more = parser.parse_known_args()
    if told.command == "batch":
        return batch(told, more)
    if more:
        parser.error(f"unknown: {' '.join(more)}")
    return dataset(told)


if __name__ == "__main__":
    sys.exit(main())
