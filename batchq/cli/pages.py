"""`batchq web` and `flower`: the pages."""

from __future__ import annotations

import os
import secrets

import click

from batchq.cli.output import say
from batchq.errors import UsageError
from batchq.settings import load_settings

AUTH_VARIABLE = "BATCHQ_WEB_AUTH"


@click.command("web")
@click.option("--port", type=click.IntRange(0, 65535), default=5556, show_default=True)
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--basic-auth",
    "logins",
    multiple=True,
    metavar="USER:PASSWORD",
    help=f"Ask for a login; {AUTH_VARIABLE} keeps it off the command line.",
)
@click.option("--url-prefix", default="", metavar="P", help="Serve below /P, as a proxy forwards.")
@click.option("--read-only", is_flag=True, help="Show everything and change nothing.")
def web_command(
    port: int,
    address: str,
    logins: tuple[str, ...],
    url_prefix: str,
    read_only: bool,  # noqa: FBT001 (click passes by name)
) -> None:
    """Serves the pages of runs, items, failures, comparisons and limits, without Flower.

    Only this machine reaches them unless --address says otherwise, which takes a login.
    """
    from batchq.web.app import Access, make_app, serve

    logins = logins or tuple(filter(None, [os.environ.get(AUTH_VARIABLE, "")]))
    access = Access(list(logins), url_prefix=url_prefix, read_only=read_only)
    application = make_app(load_settings(), access, secrets.token_urlsafe(32))
    serve(application, address, port, ready=lambda at: say(f"The runs are at {at}"))


@click.command("flower", context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[FLOWER OPTIONS]...")
def flower_command(options: tuple[str, ...]) -> None:
    """Runs Flower for the broker, with the pages of `batchq web` in its menu.

    Options are Flower's, as --name=value or FLOWER_NAME: --port, --address, --basic-auth, --auth,
    --url-prefix, --read-only, ... It stays on 127.0.0.1 unless there is a login. Workers send
    events of their tasks while somebody looks at Flower's tasks; --enable-events sends them always.
    """
    settings = load_settings()
    if not settings.broker_url:
        raise UsageError(
            "no broker: set BATCHQ_BROKER_URL, such as redis://127.0.0.1:6379/0. Without one, "
            "`batchq web` shows the runs of this folder."
        )
    from batchq.web.in_flower import run_flower

    run_flower(settings, options, ready=lambda at: say(f"Flower, with the runs, is at {at}"))
