"""Raw Celery: one chord over all items, whose tasks store their results.

With Celery's defaults it acknowledges early, fetches four messages a slot ahead, and loses what a
killed worker held. With SIDE_LATE it loses nothing either, at Celery's price.
"""

from __future__ import annotations

import os
import sys
import uuid
from typing import Any

import redis
import work
from celery import Celery, chord
from driving import URL, Job, command, serve, wait_for, workers

app = Celery("raw", broker=os.environ.get(URL), backend=os.environ.get(URL))
app.conf.update(result_backend_thread_safe=True, broker_connection_retry_on_startup=True)
if os.environ.get("SIDE_LATE"):
    app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)
_session: Any = None


@app.task(name="raw.run")
def run(task: str, item: dict[str, Any]) -> Any:
    return post(item) if task == "post" else work.CPU[task](item)


@app.task(name="raw.collect", ignore_result=True)
def collect(results: list[Any], key: str) -> None:
    app.backend.client.rpush(key, len(results))


def post(item: dict[str, Any]) -> str:
    global _session
    if _session is None:
        import requests

        _session = requests.Session()
        _session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=2000))
    return work.text_of(_session.post(item["url"], json=work.chat_body(item["number"])).content)


def do(job: Job) -> None:
    client, key = redis.Redis.from_url(os.environ[URL]), f"done:{uuid.uuid4().hex}"
    for _ in range(job.runs):
        chord(run.s(job.task, item) for item in job.arguments())(collect.s(key))
    if job.waits:
        wait_for(client, key, job.runs, job.deadline_s)


def main() -> None:
    _, kind, slots = sys.argv
    pool = ("-P", "prefork" if kind == "cpu" else "threads", "-c", slots)
    options = (*pool, "--without-gossip", "--without-mingle", "-l", "error")
    with workers(command("celery", "-A", "celery_side", "worker", *options)):
        serve(("celery", "kombu", "redis"), do)


if __name__ == "__main__":
    main()
