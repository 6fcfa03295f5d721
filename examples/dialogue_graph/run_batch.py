"""The command lines of the guide, each as runs of batchq.

python run_batch.py full gallia:4,marmotte:2 100 --parallel --guided
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from beats import (
    InputError,
    Setting,
    find_settings,
    load_graph,
    read_extensions,
    reference_walks,
)
from figures import stats
from topology import possible_pairs

HERE = Path(__file__).parent
OUTPUTS = HERE / "outputs"
STEPS = {
    "full": "",
    "translate": "structural_parser..compile",
    "link": "link_candidates..apply_links",
    "extend": "extension_candidates..apply_extensions",
}
PREFIXES = {"full": "full", "translate": "run", "link": "link", "extend": "ext", "compile": "comp"}
TRANSLATIONS = "02_translation_engine.json"
PRINTING = threading.Lock()


def read_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; a wrong one ends the script with code 2."""
    parser = argparse.ArgumentParser(description="grows graphs of dialogue beats")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in (*STEPS, "compile"):
        command = commands.add_parser(name)
        command.add_argument("settings", help="gallia, gallia:4 or gallia:4,marmotte:2")
        if name != "compile":
            command.add_argument("count", type=int, help="walks, links and extensions")
            command.add_argument(
                "--guided", action="store_true", help="close gaps to the reference"
            )
            command.add_argument("--concurrency", help="calls in flight (25)")
            command.add_argument("--provider", help="simulator, or deepseek if its key is set")
            command.add_argument("--seed", type=int, default=random.randrange(10**6))
        if name == "full":
            command.add_argument("--rounds", type=int, default=1, help="how often in a row (1)")
        if name in ("extend", "compile"):
            command.add_argument("--source-run", required=True, help="a folder in outputs/")
        command.add_argument("--parallel", action="store_true", help="all settings at once")
    commands.add_parser("stats").add_argument("settings", help="gallia or gallia:4")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs a command for each of its settings; returns the first exit code that is not 0."""
    options = read_options(argv)
    try:
        if options.command == "stats" and "API_BASE" in os.environ:
            print(asked_stats(os.environ["API_BASE"], options.settings))
            return 0
        settings = find_settings(options.settings)
        if options.command == "stats":
            for setting in settings:
                print(json.dumps(stats(setting), indent=2))
            return 0
        check(options, settings)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    started = time.strftime("%Y%m%d_%H%M%S")
    at_once = len(settings) if options.parallel else 1
    with ThreadPoolExecutor(at_once) as pool:
        runs = [pool.submit(grow, options, setting, started) for setting in settings]
        try:
            codes = [run.result() for run in runs]
        except KeyboardInterrupt:  # which the runs got as well: each pauses, or ends at the second
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            pool.shutdown(cancel_futures=True)
            return 130
    return next((code for code in codes if code), 0)


def check(options: argparse.Namespace, settings: list[Setting]) -> None:
    """Finds out what cannot be done before anything is begun; raises InputError."""
    for setting in settings:
        if options.command == "compile":
            source_of(options.source_run)
            continue
        if options.count < 1:
            raise InputError(f"count: {options.count} is nothing to do, expected 1 or more")
        room = {
            "full": lambda _: len([*reference_walks()]),
            "translate": lambda _: len([*reference_walks()]),
            "link": lambda one: possible_pairs(load_graph(one)),
            "extend": lambda one: len(read_extensions(one, options.source_run)),
        }[options.command](setting)
        if options.count > room:
            there = {
                "link": f"{setting} has room for {room} links",
                "extend": f"that run brought {room} extension candidates for {setting}",
            }.get(options.command, f"the reference has {room} walks")
            raise InputError(f"count: {there}, not {options.count}")


def source_of(run: str) -> str:
    """Finds the newest version of a run that has translations, as RUN@VERSION."""
    name, _, version = run.partition("@")
    found = [
        path.parents[1].name
        for path in OUTPUTS.glob(f"{name}/v*/collated/{TRANSLATIONS}")
        if version in ("", path.parents[1].name)
    ]
    if not found:
        there = sorted({path.parents[2].name for path in OUTPUTS.glob(f"*/*/*/{TRANSLATIONS}")})
        listed = ", ".join(there) or "none yet"
        raise InputError(f"--source-run {run}: no such run with translations; there are: {listed}")
    return f"{name}@{max(found, key=lambda one: int(one[1:]))}"


def grow(options: argparse.Namespace, setting: Setting, started: str) -> int:
    """Submits the run of one setting, says what it says, and how the graph has grown."""
    run = f"{PREFIXES[options.command]}_{started}_{setting.label}"
    before = load_graph(setting)
    command, params = ["submit", "manifest.yaml"], {"run": run, "setting": str(setting)}
    if options.command == "compile":
        command = ["submit", "compile.yaml"]
        params["source"] = source_of(options.source_run)
    else:
        has_key = "DEEPSEEK_API_KEY" in os.environ
        params["provider"] = options.provider or ("deepseek" if has_key else "simulator")
        params["count"], params["seed"] = options.count, options.seed
        params["sampling"] = "guided" if options.guided else "random"
        params["rounds"] = getattr(options, "rounds", 1)
        params["source_run"] = getattr(options, "source_run", "")
        command += ["--steps", STEPS[options.command]] if STEPS[options.command] else []
        command += ["--concurrency", options.concurrency] if options.concurrency else []
    for name, value in params.items():
        command += ["-p", f"{name}={value}"]
    code = said(run, [sys.executable, "-m", "batchq", *command])
    after = load_graph(setting)
    tell(
        run,
        f"{setting}: {before.number_of_nodes()} -> {after.number_of_nodes()} nodes, "
        f"{before.number_of_edges()} -> {after.number_of_edges()} edges",
    )
    return code


def said(run: str, command: list[str]) -> int:
    """Runs a command; each of its lines is said with the name of its run."""
    with subprocess.Popen(
        command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tell(run, line.rstrip())
    return process.returncode


def tell(run: str, line: str) -> None:
    """Prints a line as a whole, whoever else prints."""
    with PRINTING:
        print(f"{run} | {line}", flush=True)


def asked_stats(base: str, setting: str) -> str:
    """Asks the API server (`python api_server.py`) for the stats of a graph."""
    url = f"{base.rstrip('/')}/api/synthetic-graph/{urllib.parse.quote(setting)}/stats"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: Any = json.load(answer)
    except urllib.error.HTTPError as error:
        raise InputError(json.load(error)["error"]) from error
    except (OSError, ValueError) as error:
        raise InputError(f"API_BASE: nobody answers at {url}: {error}") from error
    return json.dumps(found, indent=2)


if __name__ == "__main__":
    sys.exit(main())
