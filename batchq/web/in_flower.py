"""Flower with the pages in it: one port, one login, our entry in its menu.

Flower is not changed: its application takes more handlers, and its templates are looked up by a
loader that puts one entry into the menu.
"""

from __future__ import annotations

import atexit
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flower.app
import flower.command
import flower.urls
import tornado.options
import tornado.template
from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.netutil import bind_sockets

from batchq.errors import UsageError
from batchq.monitoring.metrics import publish
from batchq.queue.names import DEFAULT_QUEUES
from batchq.settings import Settings
from batchq.web.app import MOST_BODY, make_site, require_login_form, routes
from batchq.web.menu import MENU, with_entry
from batchq.web.security import require_safe_address

MOST_TASKS = 10_000
"""Tasks that Flower remembers by default: 100,000 of them take nearly 400 MiB."""
WATCHED_S = 60.0
"""For so long after somebody looked at Flower's tasks, workers send events of them."""
LOOK_EVERY_S = 5.0
NEAR_S = 10.0
_TASK_PAGES = ("/tasks", "/task/", "/api/task")

log = logging.getLogger("batchq.web")


class MenuLoader(tornado.template.Loader):
    """Flower's templates; the menu has our entry."""

    def __init__(self, root: str, prefix: str) -> None:
        super().__init__(root)
        self._prefix = prefix

    def _create_template(self, name: str) -> tornado.template.Template:
        if name == MENU:
            text = (Path(self.root) / name).read_text(encoding="utf-8")
            menu = with_entry(text, self._prefix)
            if menu is not None:
                return tornado.template.Template(menu, name=name, loader=self)
            log.warning("Flower's menu is another one: the runs are at %s/runs", self._prefix)
        return super()._create_template(name)


class FlowerWithRuns(flower.app.Flower):  # type: ignore[misc]  # Flower has no types
    """Flower's application with our handlers before its own answer to unknown addresses.

    Events of tasks cost workers more than a tenth of their throughput, so they are asked for while
    somebody looks at tasks; `--enable_events` asks for them always.
    """

    def __init__(self, batchq_settings: Settings, *, options: Any, capp: Any, **more: Any) -> None:
        super().__init__(options=options, capp=capp, **more)
        self.site = make_site(batchq_settings, options.url_prefix or "", is_in_flower=True)
        self.add_handlers(r".*", routes(self.site))
        self.settings["template_loader"] = MenuLoader(
            flower.urls.settings["template_path"], self.site.prefix
        )
        self.site.reader.find_task = self.find_task
        self._watched_at = float("-inf")
        self._sends_events = False

    def find_handler(self, request: Any, **more: Any) -> Any:
        """Notes that somebody looks at tasks."""
        path = request.path.removeprefix(self.site.prefix)
        if path.startswith(_TASK_PAGES):
            self._watched_at = time.monotonic()
        return super().find_handler(request, **more)

    def find_task(self, item: str, began_at: float) -> str | None:
        """The task of an item that Flower remembers, by the item's id and its time.

        Messages name their item, not the run, and other runs may have items of that id.
        """
        words = f"({item!r},)"
        try:
            tasks = tuple(self.events.state.tasks.items())
        except RuntimeError:  # it grew meanwhile: the next look finds it
            return None
        near = {
            name: abs(task.started - began_at)
            for name, task in tasks
            if task.args == words and task.started
        }
        found = min(near, key=near.__getitem__, default=None)
        return found if found is not None and near[found] < NEAR_S else None

    def start_http_server(self) -> int | None:
        """Listens as Flower does; bodies have a limit."""
        options = self.options
        if options.unix_socket:
            return super().start_http_server()  # type: ignore[no-any-return]
        sockets = bind_sockets(options.port, address=options.address)
        server = HTTPServer(
            self,
            ssl_options=self.ssl_options,
            xheaders=options.xheaders,
            max_body_size=MOST_BODY,
            max_buffer_size=4 * MOST_BODY,
        )
        server.add_sockets(sockets)
        return int(sockets[0].getsockname()[1])

    def start(self) -> None:
        """Goes on until it is stopped."""
        if not self.options.enable_events:
            PeriodicCallback(self._switch_events, LOOK_EVERY_S * 1000).start()
        super().start()

    async def _switch_events(self) -> None:
        """Lets workers send events while somebody looks at tasks; new ones learn of it, too."""
        is_watched = time.monotonic() - self._watched_at < WATCHED_S
        if not is_watched and not self._sends_events:
            return
        control = self.capp.control
        switch = control.enable_events if is_watched else control.disable_events
        try:
            await self.io_loop.run_in_executor(None, switch)
            self._sends_events = is_watched
        except Exception as error:  # noqa: BLE001 (whatever the transport raises while Redis is away)
            log.warning("events of tasks were not switched: %s", error)


def run_flower(
    settings: Settings, arguments: Sequence[str], *, ready: Callable[[str], None]
) -> None:
    """Runs Flower with the pages until SIGINT or SIGTERM; `arguments` are Flower's own options.

    Raises UsageError for an option that Flower does not have, for an address that others reach
    without a login, and for one that is taken.
    """
    options = read_options(arguments)
    from batchq.queue.app import make_app

    publish(settings, DEFAULT_QUEUES)  # on its page /metrics
    application = FlowerWithRuns(
        settings, options=options, capp=make_app(settings), **flower.urls.settings
    )
    try:
        port = application.start_http_server()
    except OSError as error:
        where = options.unix_socket or f"{options.address}:{options.port}"
        raise UsageError(f"{where} cannot be listened on: {error.strerror or error}") from error
    atexit.register(application.stop)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if port is not None:
        scheme = "https" if application.ssl_options else "http"
        host = f"[{options.address}]" if ":" in options.address else options.address
        ready(f"{scheme}://{host}:{port}{application.site.prefix}/")
    else:
        ready(options.unix_socket)
    try:
        application.start()
    except (KeyboardInterrupt, SystemExit):
        return


def read_options(arguments: Sequence[str]) -> Any:
    """Reads Flower's options: defaults of ours, then FLOWER_*, its file and the command line."""
    options = tornado.options.options
    options.address, options.max_tasks, options.enable_events = "127.0.0.1", MOST_TASKS, False
    options.logging = "warning"
    for one in arguments:
        if not one.startswith("-") or not flower.command.is_flower_option(one):
            raise UsageError(f"{one}: Flower has no such option; they are --name=value")
    try:
        flower.command.apply_env_options()
        flower.command.apply_options("batchq flower", arguments)
    except (tornado.options.Error, ValueError) as error:
        raise UsageError(f"Flower's options: {error}") from error
    require_login_form(options.basic_auth or [])
    has_login = bool(options.basic_auth or options.auth)
    if not options.unix_socket:
        how = "--basic-auth=USER:PASSWORD or FLOWER_BASIC_AUTH, or --auth with OAuth"
        require_safe_address(options.address, has_login=has_login, how=how)
    flower.command.extract_settings()
    flower.command.setup_logging()
    return options
