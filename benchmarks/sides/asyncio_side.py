"""A script with asyncio and aiohttp, as one writes it by hand: no queue, no Redis, no memory.

It holds as many calls at a time as it has slots, and appends each answer to a file. With
SIDE_COOKBOOK it is the way of the OpenAI cookbook's parallel script instead, see peer_cookbook.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile

import aiohttp
import work
from driving import CHAT, HERE, Job, serve

sys.path.append(str(HERE.parent))
import peer_cookbook

SLOTS = int(sys.argv[2])


async def by_hand(job: Job) -> None:
    free = asyncio.Semaphore(SLOTS)
    connector = aiohttp.TCPConnector(limit=0)
    with tempfile.TemporaryFile("w") as out:
        async with aiohttp.ClientSession(connector=connector) as session:

            async def one(number: int) -> None:
                body = work.chat_body(number)
                async with free, session.post(job.url + CHAT, json=body) as answer:
                    said = work.text_of(await answer.read())
                out.write(json.dumps({"number": number, "text": said}) + "\n")

            await asyncio.gather(*(one(item["number"]) for item in job.arguments()))


async def by_cookbook(job: Job) -> None:
    client = peer_cookbook.Client(job.url, rpm=SLOTS * 300)
    await client.run([work.chat_body(item["number"]) for item in job.arguments()])
    assert client.answers == job.items


def do(job: Job) -> None:
    if job.url:
        how = by_cookbook if os.environ.get("SIDE_COOKBOOK") else by_hand
        asyncio.run(how(job))


if __name__ == "__main__":
    serve(("aiohttp",), do)
