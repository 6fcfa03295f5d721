"""Lets a run of `mode: auto` meet all that it is for, and looks whether each item was paid once.

    leftovers.py [--items 5000] [--seconds 300]

Items go in uploads to a simulated provider of which a fifth of the lines expires. Three of five
uploads fit into its quota at a time; the deadline comes before the others have ended, or were made,
so that the rest goes online. The coordinator is killed once while
uploads are made, and once while they are cancelled. Prints a line of JSON with what it came to,
and ends with 1 if an item is missing, was paid twice, or the price is not in the plan's range.

The deadline has to leave time for uploads to end: 5,000 calls take a minute online, by the plan.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchq.embedded.server import start_redis
from batchq.manifest.loader import load_manifest
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.progress import RunState
from batchq.queue import control
from batchq.runs.life import create_run, open_folder
from batchq.services import build_services
from batchq.settings import Settings
from batchq.store.uploads import UploadStore

LEASE_S = 3.0
PATIENCE_S = 300.0
TOKENS = 265
"""What a prompt is estimated at: so that three of five uploads are at the provider at a time."""
WAYS = ("in_uploads", "online", "expired")
MANIFEST = """
name: leftovers
providers:
  sim:
    kind: simulator
    base_url: "{url}"
    limits: {{concurrency: 1000, upload_lines: {lines}, upload_tokens: {tokens}}}
    prices: {{input_per_1m: 2, output_per_1m: 8}}
steps:
  - name: ask
    input: {{generate: {items}}}
    prompt: |
      Say something about {{number}}. %s
    output_schema: {{type: object, properties: {{answer: {{type: integer}}}}, required: [answer]}}
    mode: auto
    deadline: {seconds}s
""" % ("This is what most of the tokens are in, so that the plan can estimate them. " * 12)


class Processes:
    """The processes of one run, on a Redis of their own."""

    def __init__(self, folder: Path, broker_url: str) -> None:
        self.folder = folder
        self.broker_url = broker_url
        self.children: list[subprocess.Popen[Any]] = []

    def simulator(self, **options: Any) -> str:
        """Starts a provider; returns its URL."""
        command = [sys.executable, "-m", "batchq.simulator", "--options", json.dumps(options)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.children.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def celery(self, queues: str, slots: int) -> subprocess.Popen[Any]:
        """Starts a worker, or a coordinator."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("BATCHQ_")}
        env |= {
            "BATCHQ_BROKER_URL": self.broker_url,
            "BATCHQ_HOME": str(self.folder / ".batchq"),
            "BATCHQ_LEASE_TTL_S": str(LEASE_S),
        }
        quiet = ("-l", "warning", "--without-gossip", "--without-mingle")
        name = f"{queues.replace('.', '-')}-{len(self.children)}"
        command = [sys.executable, "-m", "celery", "-A", "batchq", "worker", "-P", "threads"]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "-n", f"{name}@here", *quiet, "-Q", queues, "-c", str(slots)],
                stdout=log,
                stderr=log,
                env=env,
                cwd=self.folder,
            )
        self.children.append(process)
        return process

    def end(self) -> None:
        """Ends all of them."""
        for process in self.children:
            process.kill()
            process.wait()


def run(folder: Path, broker_url: str, items: int, seconds: float) -> dict[str, Any]:
    """Drives the run to its end, killing coordinators on the way; returns what it came to."""
    processes = Processes(folder, broker_url)
    try:
        url = processes.simulator(
            latency_ms=20,
            batch_s=seconds * 0.3,
            batch_window_s=seconds * 0.45,
            batch_expire_rate=0.2,
            batch_duplicate_rate=0.02,
            batch_malformed_rate=0,
            batch_cancel_s=0.5,
        )
        manifest = folder / "manifest.yaml"
        bounds = {"lines": max(10, items // 5), "tokens": TOKENS * items * 7 // 10}
        manifest.write_text(MANIFEST.format(url=url, items=items, seconds=seconds, **bounds))
        settings = Settings(broker_url=broker_url, home=folder / ".batchq", lease_ttl_s=LEASE_S)
        services = build_services(settings, patience_s=20)
        loaded = load_manifest(manifest)
        plan = make_plan(loaded)
        coordinator = processes.celery("batchq.control", 1)
        processes.celery("batchq.llm", 50)
        info = create_run(plan, manifest_lock(loaded, plan), services, now=time.time())
        control.start(info, services)
        began = time.monotonic()
        uploads = UploadStore(open_folder(info.folder), 1)
        for moment in (lambda: bool(uploads.all()), lambda: uploads.online() is not None):
            wait_for(moment, "the moment to kill a coordinator")
            coordinator.kill()
            coordinator.wait()
            coordinator = processes.celery("batchq.control", 1)
        wait_for(lambda: services.ledger.state(info.run) is not RunState.RUNNING, "the end")
        with urllib.request.urlopen(f"{url.removesuffix('/v1')}/stats") as answer:
            paid = json.load(answer)["paid"]
        summary = open_folder(info.folder).summary(1)
        terms = plan.steps[0].uploads
        assert terms is not None
        return {
            "state": str(services.ledger.state(info.run)),
            "items": items,
            "seconds": round(time.monotonic() - began, 1),
            "ok": summary.ok,
            "failed": summary.failed,
            "uploads": len(uploads.all()),
            "expired": sum(one.ended.expired for one in uploads.all() if one.ended),
            "cancelled": sum(one.ended.cancelled for one in uploads.all() if one.ended),
            "in_uploads": summary.upload_calls,
            "online": summary.usage.calls - summary.upload_calls,
            "cost_usd": summary.usage.cost_usd,
            "planned_usd": [terms.cost_usd, terms.online_cost_usd],
            "provider": {
                "in_uploads": paid["batch"]["answers"],
                "online": paid["online"]["answers"],
                "twice": paid["twice"],
            },
        }
    finally:
        processes.end()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(0.05)


def problems(told: dict[str, Any]) -> list[str]:
    """What is wrong with what a run came to."""
    low, high = told["planned_usd"]
    checks = {
        "the run is not complete": told["state"] == "completed" and told["ok"] == told["items"],
        "an item was paid twice": told["provider"]["twice"] == 0,
        "more was paid than there are items": sum(
            told["provider"][way] for way in ("in_uploads", "online")
        )
        == told["items"],
        "the ways are counted wrongly": all(
            told[way] == told["provider"][way] for way in ("in_uploads", "online")
        ),
        "the price is not in the range of the plan": low <= told["cost_usd"] <= high,
        "a way was not gone": min(told[one] for one in WAYS) > 0,
    }
    return [problem for problem, is_well in checks.items() if not is_well]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--items", type=int, default=5000)
    options.add_argument("--seconds", type=float, default=300.0, help="until the deadline")
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="batchq-leftovers-"))
    (folder / "redis").mkdir()
    server = start_redis(folder / "redis", Settings())
    try:
        told = run(folder, server.url, given.items, given.seconds)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    wrong = problems(told)
    print(json.dumps(told | {"wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
