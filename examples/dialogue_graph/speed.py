"""Runs the pipeline against a simulator as slow as the provider in the guide, and compares.

python speed.py 100            # seven minutes; `--times 0.1` is a tenth of the latencies
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

from beats import Setting, find_setting
from ruamel.yaml import YAML

from batchq import BatchqError, submit

GUIDE = {  # seconds that 100 tickets take with 25 in flight
    "structural_parser": 85,
    "translation_engine": 50,
    "link_stitch": 120,
    "extension_resolve": 120,
}
IN_FLIGHT = 25
MANIFEST = Path("speed.yaml")
SCRATCH = Setting("gallia", 0)
"""A copy that grows by what makes no sense, and is thrown away."""


def manifest(times: float) -> dict[str, Any]:
    """The manifest, with a provider for each step that takes as long as the guide says."""
    data = YAML(typ="safe").load(Path("manifest.yaml"))
    for step in data["steps"]:
        name = step["name"]
        if name in GUIDE:
            latency_s = GUIDE[name] / (100 / IN_FLIGHT) * times
            data["providers"][name] = {
                "kind": "simulator",
                "limits": {"concurrency": IN_FLIGHT},
                "simulator": {"latency_ms": latency_s * 1000},
            }
            step["provider"] = name
    return data


def main() -> int:
    """Runs, and prints the tickets a second of each step beside those of the guide."""
    parser = argparse.ArgumentParser(description="compares the speed with that of the guide")
    parser.add_argument("count", nargs="?", type=int, default=100, help="of each (100)")
    parser.add_argument("--times", type=float, default=1.0, help="share of the latencies (1)")
    options = parser.parse_args()
    with MANIFEST.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(manifest(options.times), file)
    shutil.copytree(find_setting("gallia").folder, SCRATCH.folder)
    try:
        with tempfile.TemporaryDirectory(prefix="speed-") as home:
            catalog = f"{home}/catalog.sqlite"
            os.environ["BATCHQ_CATALOG_URL"] = f"sqlite:///{catalog}"
            params = {"run": "speed", "setting": str(SCRATCH), "count": options.count}
            run = submit(MANIFEST, params, verbose=True)
            took_s = {name: seconds(catalog, name) for name in GUIDE}
    except BatchqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        MANIFEST.unlink()
        shutil.rmtree(SCRATCH.folder)
    print(f"{'':20} {'guide':>10} {'here':>10}   tickets a second")
    for name, guide_s in GUIDE.items():
        here = options.count / took_s[name] * options.times
        print(f"{name:20} {100 / guide_s:>10.2f} {here:>10.2f}")
    return run.exit_code or 0


def seconds(catalog: str, provider: str) -> float:
    """From the first call to the last answer, by the catalog of the run."""
    with sqlite3.connect(catalog) as database:
        (took,) = database.execute(
            "SELECT (julianday(MAX(batch_end_time)) - julianday(MIN(batch_start_time))) * 86400"
            " FROM pipeline_stats WHERE provider = ?",
            (provider,),
        ).fetchone()
    return took


if __name__ == "__main__":
    sys.exit(main())
