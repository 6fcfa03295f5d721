"""`batchq compare`."""

from __future__ import annotations

import re

import click

from batchq.cli.output import put, put_json, say
from batchq.cli.request import Ids, json_option
from batchq.errors import UsageError
from batchq.services import COMMAND_PATIENCE_S, build_services
from batchq.settings import load_settings

_VERSION = re.compile(r"v\d+|latest")


@click.command("compare")
@click.argument("pipeline")
@click.argument("old", metavar="vA")
@click.argument("new", metavar="vB")
@click.option("--detail", is_flag=True, help="Every field that differs, old and new.")
@click.option("--items", type=Ids(), help="Look at these items alone.")
@click.option("--only-changed", is_flag=True, help="Leave out what is the same.")
@click.option("--step", metavar="NAME", help="The step to compare; default: the last one of items.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "html"]),
    default="text",
    help="text, json, or one HTML page that needs nothing else.",
)
@json_option
def compare_command(
    pipeline: str,
    old: str,
    new: str,
    detail: bool,  # noqa: FBT001 (click passes by name, here and below)
    items: tuple[str, ...] | None,
    only_changed: bool,  # noqa: FBT001
    step: str | None,
    form: str,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Compares two versions of PIPELINE item by item, regressions first.

    A rerun is compared as its collated file holds it: merged with the version it builds on.
    """
    from batchq.cli.versions import find_version
    from batchq.runs.review import compare_versions
    from batchq.store.edited import warnings_of

    for version in (old, new):
        if not _VERSION.fullmatch(version):
            raise UsageError(f"{version!r} is no version: write v0, v1, ... or latest")
    form = "json" if as_json else form
    services = build_services(load_settings(), patience_s=COMMAND_PATIENCE_S)
    _, left = find_version(f"{pipeline}@{old}", services)
    _, right = find_version(f"{pipeline}@{new}", services)
    for side in dict.fromkeys((left, right)):
        for warning in warnings_of(side.folder):
            say(f"warning: {warning}")
    seen = compare_versions(
        left, right, step=step, only=items, keep_values=detail or form == "html"
    )
    if form == "html":
        from batchq.cli.comparison_page import comparison_page

        put(comparison_page(seen, only_changed=only_changed))
        return
    if form == "json":
        from batchq.actions.asjson import comparison_json

        put_json(comparison_json(seen, only_changed=only_changed))
        return
    from batchq.cli.comparison import comparison_lines

    for line in comparison_lines(seen, detail=detail, only_changed=only_changed):
        put(line)
