"""Classifies indicators: `python run.py random 20`, `python run.py all`, `python run.py all 40`.

`python run.py store` adds what a run that was resumed has classified.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from pathlib import Path

from indicators import store
from progress import Progress

from batchq import BatchqError, Run, submit

DATABASE = Path("data/classify-workflow-local-dev.db")  # batchq.toml names it, too
INPUT = Path("inputs/indicators.csv")


def main() -> int:
    """Reads the options, runs, and adds the results to the database."""
    os.chdir(Path(__file__).parent)
    parser = argparse.ArgumentParser(description="classifies indicators")
    parser.add_argument("which", choices=["random", "all", "store"], help="random or first ones")
    parser.add_argument("count", nargs="?", type=int, help="how many; all: every one")
    parser.add_argument("--provider", default="simulator", help="openai, anthropic, local")
    parser.add_argument("--concurrent-batches", default=4, type=int, help="batches of 5 (4)")
    parser.add_argument("--seed", default=1, type=int, help="draws other random ones (1)")
    options = parser.parse_args()
    try:
        if options.which == "store":
            return keep(Run.load("indicators"))
        with INPUT.open(encoding="utf-8", newline="") as file:
            there = sum(1 for _ in csv.DictReader(file))
        count = there if options.count is None else options.count
        if not 0 < count <= there:
            parser.error(f"count: there are {there} indicators, {count} cannot be taken")
        return keep(classify(options, count))
    except KeyboardInterrupt:
        print("paused; `batchq resume indicators` goes on with it, then `python run.py store`")
        return 130
    except BatchqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2


def classify(options: argparse.Namespace, count: int) -> Run:
    """Runs, and says what is done meanwhile."""
    params = {
        "count": count,
        "order": "random" if options.which == "random" else "first",
        "provider": options.provider,
        "concurrent_batches": options.concurrent_batches,
        "seed": options.seed,
    }
    size = os.environ.get("INTERNAL_EMIT_BATCH", "5")
    at_once = max(1, options.concurrent_batches)
    with Progress(DATABASE, count, max(1, int(size)) if size.isdecimal() else 5, at_once):
        return submit("manifest.yaml", params)


def keep(run: Run) -> int:
    """Adds the results of a run to the database."""
    if run.state != "completed":
        print(f"{run.name} {run.state}: {run.reason}", file=sys.stderr)
        return run.exit_code or 1
    store(run, DATABASE)
    print(f"{run.name}: {run.summary.ok} classified, {run.summary.failed} failed; {DATABASE}")
    return run.exit_code or 0


if __name__ == "__main__":
    sys.exit(main())
