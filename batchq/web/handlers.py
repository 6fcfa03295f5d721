"""The handlers: a page, its JSON twin, an action. They stand on Flower's, so its login is theirs.

Each page is a function that reads a mapping; the twin is that mapping, the page is made of it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flower.views
import tornado.web
from tornado.escape import url_escape

from batchq.errors import (
    BatchqError,
    PlanError,
    QueueError,
    RunNotFound,
    StoreError,
    UsageError,
)
from batchq.web.looking import Looker, Seen
from batchq.web.query import read_query
from batchq.web.reader import Reader
from batchq.web.rendering import Templates
from batchq.web.security import HEADERS, TOKEN_HEADER, is_known_host, is_same_site

log = logging.getLogger("batchq.web")

SAID = "batchq_said"
_STATUS = {RunNotFound: 404, UsageError: 400, PlanError: 400, QueueError: 503, StoreError: 503}


@dataclass(frozen=True, slots=True)
class Site:
    """What all handlers share."""

    reader: Reader
    looker: Looker
    templates: Templates
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A page: the arguments that it knows, what reads it, and the template that shows it.

    `read` takes the reader, the parts of the path in order, and the query.
    """

    name: str
    title: str
    arguments: Sequence[str]
    read: Callable[..., dict[str, Any]]


def status_of(error: BatchqError) -> int:
    """The HTTP status that says what is wrong."""
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)


class Handler(flower.views.BaseHandler):  # type: ignore[misc]  # Flower has no types
    """What pages, twins and actions have in common."""

    site: Site
    is_json = False

    def initialize(self, site: Site, **more: Any) -> None:
        """Takes what the route gives."""
        self.site = site
        for name, value in more.items():
            setattr(self, name, value)

    def set_default_headers(self) -> None:
        """Sets what keeps others from using a page."""
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def options(self, *_: Any, **__: Any) -> None:
        """Nobody elsewhere may ask what may be asked."""
        raise tornado.web.HTTPError(405)

    def prepare(self) -> None:
        """Lets only those go on who may."""
        options = self.application.options
        has_login = bool(options.basic_auth or options.auth)
        if not has_login and not is_known_host(self.request.host):
            raise tornado.web.HTTPError(
                403,
                "Nobody has to log in here, so only this machine may ask, by the name localhost. "
                "To be reached by another name, set a login.",
            )
        if has_login and not self.current_user:
            if self.is_json or self.request.method != "GET":
                raise tornado.web.HTTPError(401)
            self.redirect(f"{self.get_login_url()}?next={url_escape(self.request.uri)}")

    def get_current_user(self) -> Any:
        """As Flower says; credentials that it stumbles over are wrong ones."""
        try:
            return super().get_current_user()
        except (TypeError, ValueError, AssertionError):
            raise tornado.web.HTTPError(401) from None

    def check_xsrf_cookie(self) -> None:
        """Refuses a form that is not of a page of ours, login or not."""
        headers = self.request.headers
        site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
        if not is_same_site(self.request.host, site, origin):
            raise tornado.web.HTTPError(403, "a form of another site")
        if headers.get(TOKEN_HEADER):
            return  # a site elsewhere cannot send this header
        tornado.web.RequestHandler.check_xsrf_cookie(self)

    @property
    def is_read_only(self) -> bool:
        """Whether nothing may be changed."""
        return bool(self.application.options.read_only)

    async def see(self, page: Page, path: Sequence[str]) -> Seen:
        """What a page shows now; raises BatchqError."""
        query = read_query(self.request.query_arguments, page.arguments)
        reader = self.site.reader
        name = json.dumps([page.name, *path, query], sort_keys=True)
        return await self.site.looker.look(name, lambda: page.read(reader, *path, query))

    def put_page(self, template: str, **values: Any) -> None:
        """Writes a page."""
        said = self.get_signed_cookie(SAID)
        if said:
            self.clear_cookie(SAID, path=f"{self.site.prefix}/")
        self.finish(
            self.site.templates.render(
                template,
                site=self.site,
                xsrf=self.xsrf_token.decode(),
                read_only=self.is_read_only,
                said=_said(said),
                path=self.request.path.removeprefix(self.site.prefix),
                **values,
            )
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Says what is wrong, without a traceback: that goes to the log."""
        if status_code == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="batchq"')
        if not hasattr(self, "_current_user"):
            self.current_user = None  # to ask again would fail again
        error = (kwargs.get("exc_info") or (None, None))[1]
        message = ""
        if isinstance(error, BatchqError):
            message = str(error)
        elif isinstance(error, tornado.web.HTTPError):
            message = error.log_message or ""
        message = message or _WORDS.get(status_code, "This did not work.")
        if self.is_json:
            self.set_header("Content-Type", "application/json")
            self.finish(json.dumps({"error": message, "status": status_code}))
            return
        self.put_page("error.html", title=str(status_code), status=status_code, message=message)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Logs what is a fault of ours, not what people typed."""
        if not isinstance(value, BatchqError | tornado.web.HTTPError):
            super().log_exception(typ, value, tb)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Gives each error of batchq the status that it means."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, BatchqError):
            status_code = status_of(error)
        super().send_error(status_code, **kwargs)


_WORDS = {
    400: "The request makes no sense.",
    401: "Log in first.",
    403: "This is not allowed.",
    404: "There is no such page.",
    405: "This page is not for that.",
    500: "This is a fault in batchq; the log of the server has the details.",
}


def _said(cookie: bytes | None) -> dict[str, str] | None:
    if not cookie:
        return None
    told = json.loads(cookie)
    return {"kind": str(told["kind"]), "text": str(told["text"])}


class PageHandler(Handler):
    """A page. `?live=1` asks for what changes in it, with a tag that says whether it has."""

    page: Page

    async def get(self, *path: str) -> None:
        """Shows it."""
        seen = await self.see(self.page, path)
        is_live = "live" in self.request.query_arguments
        if is_live:
            self.set_header("ETag", f'"{seen.tag}"')
            if self.check_etag_header():
                self.set_status(304)
                self.finish()
                return
        title = self.page.title.format(*path)
        self.put_page(
            f"{self.page.name}.html",
            title=title,
            seen=seen.told,
            tag=seen.tag,
            is_live=is_live,
            query=read_query(self.request.query_arguments, self.page.arguments),
            active=self.page.name,
        )


class TwinHandler(Handler):
    """A page for programs."""

    is_json = True
    page: Page

    async def get(self, *path: str) -> None:
        """Tells it as JSON."""
        seen = await self.see(self.page, path)
        self.set_header("ETag", f'"{seen.tag}"')
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-cache")
        if self.check_etag_header():
            self.set_status(304)
            return
        self.write(seen.text)


class NotFoundHandler(Handler):
    """What there is none of."""

    def prepare(self) -> None:
        """Says so to those who may know."""
        super().prepare()
        if not self._finished:
            raise tornado.web.HTTPError(404)

    def check_xsrf_cookie(self) -> None:
        """There is nothing that a form could do."""


class FileHandler(Handler):
    """A style sheet or a script; they hold nothing of anybody's."""

    files: dict[str, tuple[str, bytes]]

    def prepare(self) -> None:
        """Needs no login."""

    def get(self, name: str) -> None:
        """Sends it; its address names its content, so it may be kept."""
        if name not in self.files:
            raise tornado.web.HTTPError(404)
        kind, content = self.files[name]
        self.set_header("Content-Type", kind)
        self.set_header("Cache-Control", "public, max-age=86400")
        self.write(content)
