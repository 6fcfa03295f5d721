"""RQ: one job that depends on all the others, with workers that do not fork for each job."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import Any

import redis
import work
from driving import URL, Job, serve, wait_for, workers
from rq import Queue

client = redis.Redis.from_url(os.environ[URL])


def run(task: str, item: dict[str, Any]) -> Any:
    return work.CPU[task](item)


def collect(key: str) -> None:
    client.rpush(key, 1)


def do(job: Job) -> None:
    queue, key = Queue(connection=client), f"done:{uuid.uuid4().hex}"
    for _ in range(job.runs):
        wanted = [
            Queue.prepare_data("rq_side.run", (job.task, item), result_ttl=600)
            for item in job.arguments()
        ]
        queue.enqueue("rq_side.collect", key, depends_on=queue.enqueue_many(wanted))
    if job.waits:
        wait_for(client, key, job.runs, job.deadline_s)


def main() -> None:
    _, kind, slots = sys.argv
    assert kind == "cpu", "RQ has neither threads nor greenlets"
    pool = ("-n", slots, "-w", "rq.worker.SimpleWorker", "-u", os.environ[URL], "-q")
    with workers([str(Path(sys.executable).with_name("rq")), "worker-pool", *pool]):
        serve(("rq", "redis"), do)


if __name__ == "__main__":
    main()
