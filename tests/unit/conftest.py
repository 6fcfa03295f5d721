"""What tests of the pages share: versions that were made without a worker, and a server."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from batchq.manifest.loader import load_manifest
from batchq.outcome import Attempt, ItemError, Outcome, State, Usage
from batchq.planning.lock import manifest_lock
from batchq.planning.planner import make_plan
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.runs.life import close_run, create_run, finish_step, open_folder, record_batch
from batchq.services import build_services
from batchq.settings import Settings

BEGAN = 1_790_000_000.0
MANIFEST = """
name: {name}
notes: {notes}
config: {{output_dir: out, batch_size: 25}}
steps:
  - name: shout
    input: {name}.json
    id_field: id
    task: "m:f"
"""


@dataclass
class PagesWorld:
    """A home folder, and versions in it that are made by the very functions of a coordinator."""

    folder: Path
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        self.settings = Settings(home=self.folder / ".batchq")
        self.services = build_services(self.settings)

    def version(
        self,
        outputs: dict[str, Any],
        *,
        name: str = "words",
        notes: str = "",
        state: RunState = RunState.COMPLETED,
        now: float = BEGAN,
    ) -> RunInfo:
        """Makes a version whose items came to these outputs; one that is an exception failed."""
        rows = [{"id": one, "word": f"word {one}"} for one in outputs]
        (self.folder / f"{name}.json").write_text(json.dumps(rows))
        path = self.folder / f"{name}.yaml"
        path.write_text(MANIFEST.format(name=name, notes=json.dumps(notes)))
        manifest = load_manifest(path)
        plan = make_plan(manifest)
        info = create_run(plan, manifest_lock(manifest, plan), self.services, now=now)
        folder, step = open_folder(info.folder), plan.step(1)
        ended = [_outcome(index, *one) for index, one in enumerate(outputs.items())]
        for number in range(0, len(ended), 25):
            batch = ended[number : number + 25]
            folder.write_batch(1, number // 25, batch, step.output)
            record_batch(info, step, number // 25, batch, self.services)
        if state.is_over:
            finish_step(info, step, self.services)
            close_run(info, state, "", self.services)
        return info


def _outcome(index: int, item: str, output: Any) -> Outcome:
    began = BEGAN + index
    error = ItemError("task", str(output)) if isinstance(output, Exception) else None
    usage = Usage(1, 10, 5, 2_000_000)
    attempt = Attempt(1, began, 0.5, 0.1, "shout", error, usage, "m")
    return Outcome(
        item,
        index,
        State.FAILED if error else State.OK,
        output=None if error else output,
        error=error,
        attempts=(attempt,),
        usage=usage,
        raw="an answer <b>as it came</b>" if error else "",
        started_at=began,
        ended_at=began + 0.5,
    )


@pytest.fixture
def world(tmp_path: Path) -> PagesWorld:
    """An empty home."""
    return PagesWorld(tmp_path)


@dataclass
class Pages:
    """A server with the pages, and somebody who looks at them."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def get(self, path: str, **options: Any) -> requests.Response:
        """Asks for a page."""
        return self.session.get(self.url + path, timeout=30, allow_redirects=False, **options)

    def post(self, path: str, on: str = "/runs", **fields: str) -> requests.Response:
        """Sends the form of a page, with the token that is in it."""
        self.get(on)
        form = {"_xsrf": self.session.cookies["_xsrf"], **fields}
        return self.session.post(self.url + path, data=form, timeout=30, allow_redirects=False)

    def said(self, path: str = "/runs") -> str:
        """What the next page tells of the last form."""
        found = re.search(r'<p class="note (?:done|refused)">(.*?)</p>', self.get(path).text, re.S)
        return found[1] if found else ""


@pytest.fixture
def serve(world: PagesWorld) -> Iterator[Callable[..., Pages]]:
    """`serve(read_only=True, ...)` starts the pages of the world."""
    from tornado.httpserver import HTTPServer
    from tornado.netutil import bind_sockets

    from batchq.web.app import MOST_BODY, Access, make_app

    with ExitStack() as stack:

        def start(settings: Settings | None = None, **access: Any) -> Pages:
            sockets = bind_sockets(0, address="127.0.0.1")
            loop = asyncio.new_event_loop()

            async def listen() -> None:
                app = make_app(settings or world.settings, Access(**access), "a secret")
                HTTPServer(app, max_body_size=MOST_BODY).add_sockets(sockets)

            def run() -> None:
                loop.run_until_complete(listen())
                loop.run_forever()

            thread = threading.Thread(target=run)
            thread.start()

            def stop() -> None:
                loop.call_soon_threadsafe(loop.stop)
                thread.join()
                loop.close()
                for one in sockets:
                    one.close()

            stack.callback(stop)
            prefix = access.get("url_prefix", "").strip("/")
            port = sockets[0].getsockname()[1]
            return Pages(f"http://127.0.0.1:{port}" + (f"/{prefix}" if prefix else ""))

        yield start
