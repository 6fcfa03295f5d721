"""Runs CALLS prompts as the OpenAI cookbook's parallel script does: same arguments as peer_curator.

Written anew after its published behaviour: one asyncio loop, a budget of requests that starts with
a full minute's worth and refills with time, five tries a request, and a pause of 15 s for all after
a rate limit error. It prints how many got an answer. For the interpreter of `make bench-setup`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import aiohttp

TRIES = 5
PAUSE_S = 15.0
LOOK_EVERY_S = 0.001


@dataclass
class Request:
    """One request and the tries that it has left."""

    body: dict[str, Any]
    tries_left: int = TRIES


class Client:
    """Sends what its budget allows, and takes note of rate limit errors."""

    def __init__(self, url: str, rpm: float) -> None:
        self.url = f"{url}/v1/chat/completions"
        self.rpm = rpm
        self.budget = rpm
        self.limited_at = 0.0
        self.again: deque[Request] = deque()
        self.answers = 0
        self.open = 0

    async def run(self, bodies: list[dict[str, Any]]) -> None:
        waiting = deque(Request(body) for body in bodies)
        updated_at = time.monotonic()
        tasks = set()
        async with aiohttp.ClientSession() as session:
            while waiting or self.again or self.open:
                now = time.monotonic()
                self.budget = min(self.rpm, self.budget + (now - updated_at) * self.rpm / 60)
                updated_at = now
                if (waiting or self.again) and self.budget >= 1:
                    self.budget -= 1
                    self.open += 1
                    request = self.again.popleft() if self.again else waiting.popleft()
                    task = asyncio.create_task(self.send(session, request))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                await asyncio.sleep(LOOK_EVERY_S)
                since_s = time.monotonic() - self.limited_at
                if since_s < PAUSE_S:
                    await asyncio.sleep(PAUSE_S - since_s)

    async def send(self, session: aiohttp.ClientSession, request: Request) -> None:
        request.tries_left -= 1
        try:
            async with session.post(self.url, json=request.body) as response:
                answer = await response.json()
            error = answer.get("error")
            if error and "rate limit" in error.get("message", "").lower():
                self.limited_at = time.monotonic()
        except (aiohttp.ClientError, ValueError) as failure:
            error = failure
        if not error:
            self.answers += 1
        elif request.tries_left:
            self.again.append(request)
        self.open -= 1


def main() -> None:
    url, calls, first, rpm = sys.argv[1], *map(int, sys.argv[2:5])
    texts = [f"Say something about number {first + n}." for n in range(calls)]
    bodies = [{"model": "m", "messages": [{"role": "user", "content": text}]} for text in texts]
    client = Client(url, rpm)
    asyncio.run(client.run(bodies))
    print(json.dumps({"valid": client.answers}))


if __name__ == "__main__":
    main()
