"""Classifies indicators: `python run.py random 20`, `python run.py all`, `python run.py all 40`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from indicators import store

from batchq import BatchqError, submit

DATABASE = Path("data/classify-workflow-local-dev.db")
INPUT = Path("inputs/indicators.csv")


def run() -> int:
    """Reads the options, runs, and adds the results to the database."""
    there = len(INPUT.read_text(encoding="utf-8").splitlines()) - 1
    parser = argparse.ArgumentParser(description="classifies indicators")
    parser.add_argument("which", choices=["random", "all"], help="random ones or the first ones")
    parser.add_argument("count", nargs="?", type=int, default=there, help=f"1 to {there}")
    parser.add_argument("--provider", default="simulator", help="openai, anthropic, local")
    parser.add_argument("--concurrent-batches", default=4, type=int, help="batches of 5 (4)")
    parser.add_argument("--seed", default=1, type=int, help="draws other random ones (1)")
    options = parser.parse_args()
    if not 0 < options.count <= there:
        parser.error(f"count: there are {there} indicators, {options.count} cannot be taken")
    DATABASE.parent.mkdir(exist_ok=True)
    os.environ.setdefault("BATCHQ_CATALOG_URL", f"sqlite:///{DATABASE.absolute()}")
    params = {
        "count": options.count,
        "order": "random" if options.which == "random" else "first",
        "provider": options.provider,
        "concurrent_batches": options.concurrent_batches,
        "seed": options.seed,
    }
    try:
        done = submit("manifest.yaml", params, verbose=True)
    except BatchqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if done.state != "completed":
        print(f"{done.name} {done.state}: {done.reason}", file=sys.stderr)
        return done.exit_code or 1
    store(done, DATABASE)
    print(f"{done.name}: {done.summary.ok} classified, {done.summary.failed} failed; {DATABASE}")
    return done.exit_code or 0


if __name__ == "__main__":
    sys.exit(run())
