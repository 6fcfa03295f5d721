"""batchq: a run, submitted as a program does it, with a coordinator and one worker.

It does more than the others: a claim and a commit for every item, its outcome in a folder, records
in the catalog, and no item lost with a worker.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from driving import HERE, URL, Job, Late, command, serve, workers

import batchq
from batchq.progress import RunState
from batchq.services import build_services
from batchq.settings import load_settings

BATCH, WINDOW = 500, 6
LOOK_EVERY_S = 0.02
UP_WITHIN_S = 240.0
MANIFEST = """
name: {name}
config: {{output_dir: out}}
{more}
steps:
  - {{name: all, input: {input}, {work}, batch_size: {batch}, concurrent_batches: {window}}}
"""
PROVIDER = "providers: {{slow: {{kind: openai, model: m, base_url: '{url}/v1', api_key_env: KEY}}}}"


def manifest_of(job: Job, folder: Path, name: str) -> Path:
    """Writes a manifest; items of some size come from a file, as they would."""
    made = f"{{generate: {job.items}}}"
    if job.size:
        made = f"items{job.size}_{job.items}.jsonl"
        if not (folder / made).exists():
            with (folder / made).open("w") as file:
                file.writelines(json.dumps(item) + "\n" for item in job.arguments())
    work, more = f'task: "work:{job.task}"', ""
    if job.url:
        work = 'prompt: "Say something about\\nnumber {number}."'
        more = PROVIDER.format(url=job.url)
    values = {"name": name, "input": made, "work": work, "more": more}
    path = folder / f"{name}.yaml"
    path.write_text(MANIFEST.format(**values, batch=BATCH, window=WINDOW))
    return path


def main() -> None:
    _, kind, slots = sys.argv
    pool = "prefork" if kind == "cpu" else os.environ.get("SIDE_POOL", "threads")
    with tempfile.TemporaryDirectory(prefix="bq") as name:
        folder = Path(name)
        os.environ.update(
            BATCHQ_BROKER_URL=os.environ[URL],
            BATCHQ_HOME=str(folder / ".batchq"),
            BATCHQ_TASKS='["work"]',
            KEY="none",
        )
        os.chdir(folder)
        sys.path.append(str(HERE))
        ledger = build_services(load_settings()).ledger

        def do(job: Job) -> None:
            names = [f"run{time.monotonic_ns()}x{number}" for number in range(job.runs)]
            paths = [manifest_of(job, folder, name) for name in names]
            runs = [batchq.submit(path, wait=False).id for path in paths]
            end = time.monotonic() + job.deadline_s
            while job.waits and runs:
                if ledger.state(runs[0]) is RunState.COMPLETED:
                    runs.pop(0)
                elif time.monotonic() > end:
                    raise Late
                else:
                    time.sleep(LOOK_EVERY_S)

        with workers(
            command("batchq", "worker", "--pool", pool, "-c", slots),
            command("batchq", "coordinator"),
        ):
            wait_until_up(ledger.alive)
            serve(("batchq", "celery", "kombu", "redis"), do)


def wait_until_up(alive: Callable[[], Mapping[str, Mapping[str, Any]]]) -> None:
    """Returns when a worker and a coordinator are there: a submit would warn of what lacks."""
    end = time.monotonic() + UP_WITHIN_S
    while {"worker", "coordinator"} - {one.get("role") for one in alive().values()}:
        if time.monotonic() > end:
            raise Late
        time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    main()
