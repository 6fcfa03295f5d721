"""The addresses of the pages, and the server that has nothing but them."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import tornado.web
from ruamel.yaml import YAML
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import url

from batchq.errors import UsageError
from batchq.settings import Settings
from batchq.web.actions import ActionHandler, LimitHandler
from batchq.web.handlers import (
    FileHandler,
    NotFoundHandler,
    Page,
    PageHandler,
    Site,
    TwinHandler,
)
from batchq.web.item_pages import ARGUMENTS as ITEM_ARGUMENTS
from batchq.web.item_pages import read_item, read_items
from batchq.web.limits_page import read_limits
from batchq.web.looking import Looker
from batchq.web.reader import Reader
from batchq.web.rendering import Templates, static_files
from batchq.web.review_pages import COMPARE_ARGUMENTS, read_comparison, read_failures
from batchq.web.run_list import ARGUMENTS as RUN_ARGUMENTS
from batchq.web.run_list import read_runs
from batchq.web.run_page import read_run
from batchq.web.security import require_safe_address

MOST_BODY = 1024 * 1024
"""Most bytes of a form: who sends more is cut off before it is read."""

_RUN = r"/runs/([^/]+)"
PAGES: Sequence[tuple[str, Page]] = (
    (r"/runs", Page("runs", "Runs", RUN_ARGUMENTS, read_runs)),
    (_RUN, Page("run", "{}", (), read_run)),
    (rf"{_RUN}/items", Page("items", "Items of {}", ITEM_ARGUMENTS, read_items)),
    (rf"{_RUN}/item", Page("item", "Item of {}", ("id",), read_item)),
    (rf"{_RUN}/failures", Page("failures", "Failures of {}", (), read_failures)),
    (r"/compare", Page("compare", "Compare", COMPARE_ARGUMENTS, read_comparison)),
    (r"/limits", Page("limits", "Limits", (), read_limits)),
)


def make_site(settings: Settings, prefix: str = "", *, is_in_flower: bool = False) -> Site:
    """What the handlers of one server share."""
    prefix = f"/{prefix.strip('/')}" if prefix.strip("/") else ""
    return Site(Reader(settings), Looker(), Templates(prefix, is_in_flower=is_in_flower), prefix)


def routes(site: Site) -> list[Any]:
    """The addresses of the pages, their twins and the actions, below the site's prefix."""
    prefix, shared = re.escape(site.prefix), {"site": site}
    for_programs = shared | {"is_json": True}
    found: list[Any] = []
    for path, page in PAGES:
        more = {"page": page}
        found.append(url(f"{prefix}{path}", PageHandler, shared | more))
        found.append(url(f"{prefix}/api/batchq{path}", TwinHandler, shared | more))
    for start, options in ((prefix, shared), (f"{prefix}/api/batchq", for_programs)):
        found.append(url(rf"{start}/limits/set", LimitHandler, options))
        found.append(url(rf"{start}{_RUN}/do/([a-z]+)", ActionHandler, options))
    described = shared | {"files": {"openapi.json": ("application/json", openapi())}}
    found.append(url(rf"{prefix}/api/batchq/(openapi\.json)", FileHandler, described))
    found.append(url(rf"{prefix}/api/batchq/.*", NotFoundHandler, for_programs))
    styles = shared | {"files": static_files()}
    found.append(url(rf"{prefix}/batchq/files/([a-z.]+)", FileHandler, styles))
    return found


def openapi() -> bytes:
    """The description of what programs are told, as OpenAPI."""
    text = files("batchq.web").joinpath("openapi.yaml").read_text(encoding="utf-8")
    return json.dumps(YAML(typ="safe", pure=True).load(text), ensure_ascii=False).encode()


@dataclass
class Access:
    """Who may do what, under the names that Flower's handlers know."""

    basic_auth: list[str] = field(default_factory=list)
    auth: str = ""
    url_prefix: str = ""
    read_only: bool = False
    debug: bool = False


def require_login_form(logins: Sequence[str]) -> None:
    """Raises UsageError for what is no USER:PASSWORD."""
    for one in logins:
        if not all(one.partition(":")[::2]) or not one.isascii():
            raise UsageError("a login of --basic-auth is USER:PASSWORD, in ASCII")


def make_app(settings: Settings, access: Access, cookie_secret: str) -> tornado.web.Application:
    """The pages as an application of their own."""
    require_login_form(access.basic_auth)
    site = make_site(settings, access.url_prefix)
    to_first = {"url": site.templates.url("runs"), "permanent": False}
    application = tornado.web.Application(
        [
            url(rf"{re.escape(site.prefix)}/?", tornado.web.RedirectHandler, to_first),
            *routes(site),
        ],
        default_handler_class=NotFoundHandler,
        default_handler_args={"site": site},
        cookie_secret=cookie_secret,
        xsrf_cookies=True,
        xsrf_cookie_kwargs={"httponly": True, "samesite": "Strict"},
        log_function=lambda _: None,
    )
    application.options = access  # type: ignore[attr-defined]  # where Flower's handlers look
    return application


def serve(
    application: tornado.web.Application,
    address: str,
    port: int,
    *,
    ready: Callable[[str], None],
) -> None:
    """Answers until SIGINT or SIGTERM; `ready` is told the address.

    Raises UsageError for an address that is taken, or that others reach without a login.
    """
    access: Access = application.options  # type: ignore[attr-defined]
    how = "--basic-auth USER:PASSWORD, or BATCHQ_WEB_AUTH"
    require_safe_address(address, has_login=bool(access.basic_auth), how=how)

    async def run() -> None:
        try:
            sockets = bind_sockets(port, address=address)
        except OSError as error:
            raise UsageError(f"{address}:{port} cannot be listened on: {error.strerror}") from error
        server = HTTPServer(application, max_body_size=MOST_BODY, max_buffer_size=4 * MOST_BODY)
        server.add_sockets(sockets)
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        host = f"[{address}]" if ":" in address else address
        prefix = f"/{access.url_prefix.strip('/')}" if access.url_prefix.strip("/") else ""
        ready(f"http://{host}:{sockets[0].getsockname()[1]}{prefix}/")
        await ended.wait()
        server.stop()

    asyncio.run(run())
