"""taskiq with a list in Redis and a counter of our own for the fan-in, as it has none."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from typing import Any

import redis
import work
from driving import URL, Job, command, serve, wait_for, workers
from redis.asyncio import Redis
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(os.environ[URL])
SENT_AT_ONCE = 500
_client: Any = None
_session: Any = None


@broker.task(task_name="run")
async def run(task: str, item: dict[str, Any], key: str, total: int) -> None:
    global _client
    if _client is None:
        _client = Redis.from_url(os.environ[URL])
    if task == "post":
        await post(item)
    else:
        work.CPU[task](item)
    if await _client.incr(f"count:{key}") == total:
        await _client.rpush(key, total)


async def post(item: dict[str, Any]) -> str:
    global _session
    if _session is None:
        import aiohttp

        _session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    async with _session.post(item["url"], json=work.chat_body(item["number"])) as answer:
        return work.text_of(await answer.read())


async def send(job: Job, key: str) -> None:
    waiting = []
    for item in job.arguments():
        waiting.append(run.kiq(job.task, item, key, job.items))
        if len(waiting) == SENT_AT_ONCE:
            await asyncio.gather(*waiting)
            waiting.clear()
    await asyncio.gather(*waiting)


def main() -> None:
    _, kind, slots = sys.argv
    client = redis.Redis.from_url(os.environ[URL])
    loop = asyncio.new_event_loop()
    loop.run_until_complete(broker.startup())

    def do(job: Job) -> None:
        keys = [f"done:{uuid.uuid4().hex}" for _ in range(job.runs)]
        for key in keys:
            loop.run_until_complete(send(job, key))
        for key in keys if job.waits else ():
            wait_for(client, key, 1, job.deadline_s)

    processes, tasks = (slots, "100") if kind == "cpu" else ("1", slots)
    pool = ("--workers", processes, "--max-async-tasks", tasks, "--log-level", "ERROR")
    with workers(command("taskiq", "worker", "taskiq_side:broker", *pool)):
        serve(("taskiq", "taskiq-redis", "redis"), do)


if __name__ == "__main__":
    main()
