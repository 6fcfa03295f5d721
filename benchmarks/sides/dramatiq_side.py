"""dramatiq: a group with a completion callback. It keeps no results, so nothing is fanned in."""

from __future__ import annotations

import os
import sys
import uuid
from typing import Any

import dramatiq
import redis
import work
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend
from driving import URL, Job, command, serve, wait_for, workers

client = redis.Redis.from_url(os.environ[URL])
broker = RedisBroker(url=os.environ[URL])
broker.add_middleware(GroupCallbacks(RedisBackend(client=client)))
dramatiq.set_broker(broker)


@dramatiq.actor(max_retries=0)
def run(task: str, item: dict[str, Any]) -> None:
    work.CPU[task](item)


@dramatiq.actor(max_retries=0)
def collect(key: str) -> None:
    client.rpush(key, 1)


def do(job: Job) -> None:
    key = f"done:{uuid.uuid4().hex}"
    for _ in range(job.runs):
        group = dramatiq.group(run.message(job.task, item) for item in job.arguments())
        group.add_completion_callback(collect.message(key))
        group.run()
    if job.waits:
        wait_for(client, key, job.runs, job.deadline_s)


def main() -> None:
    _, kind, slots = sys.argv
    processes, threads = (slots, "1") if kind == "cpu" else ("1", slots)
    pool = ("--processes", processes, "--threads", threads)
    with workers(command("dramatiq", "dramatiq_side", *pool)):
        serve(("dramatiq", "redis"), do)


if __name__ == "__main__":
    main()
