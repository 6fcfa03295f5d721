"""An API key is in no file, log or message that a run leaves, though providers repeat it."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KEY = "sk-proj-4f9d2c7e1b8a6053-very-secret"
MANIFEST = """
version: 1
name: talk
providers:
  sim: {{kind: openai, base_url: "{url}", model: any, api_key_env: STUDIO_KEY}}
steps:
  - name: ask
    input: {{generate: 6}}
    prompt: |
      Say something about number {{number}}.
    retry: {{max_retries: 1, base: 10ms}}
"""


class Gossip(http.server.BaseHTTPRequestHandler):
    """A provider that repeats the key it was given in every error, as some do."""

    calls = 0

    def do_POST(self) -> None:
        told = self.headers["Authorization"].removeprefix("Bearer ")
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).calls += 1
        status = 401 if self.calls > 4 else 500 if self.calls % 2 else 400
        body = {"error": {"message": f"Incorrect API key provided: {told}", "type": told}}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-request-id", told)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gossip() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gossip)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_key_that_the_provider_repeats_is_nowhere_in_what_a_run_leaves(
    project: Any, gossip: str
) -> None:
    project.write("m.yaml", MANIFEST.format(url=gossip))
    env = {"STUDIO_KEY": KEY, "BATCHQ_LOG_LEVEL": "debug"}

    told = project.run("submit", "m.yaml", "--concurrency", "1", env=env)
    shown = [project.run(*words, env=env) for words in (("show", "talk@v0"), ("logs", "talk@v0"))]

    assert told.returncode == 5, told.stderr  # the 401 paused it, so its Redis is kept
    assert Gossip.calls > 4
    files = [path for path in project.folder.rglob("*") if path.is_file()]
    repeated = [path for path in files if b"Incorrect API key provided" in path.read_bytes()]
    assert {"appendonlydir", "items", "logs"} & {part for path in repeated for part in path.parts}
    assert any("appendonlydir" in str(path) for path in files)
    assert [str(path) for path in files if holds_key(path)] == []
    assert not any(KEY in one.stdout + one.stderr for one in (told, *shown))


def holds_key(path: Path) -> bool:
    data = path.read_bytes()
    plain = KEY.encode()
    return any(form in data for form in (plain, base64.b64encode(plain)[:-4]))
