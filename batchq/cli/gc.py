"""`batchq gc`: removes versions that nobody needs any more."""

from __future__ import annotations

import sys

import click

from batchq.cli.output import count, put, put_json, say, table
from batchq.cli.request import json_option
from batchq.errors import UsageError
from batchq.manifest.labels import FINAL, check_label
from batchq.text.amounts import size_text


@click.command("gc")
@click.argument("pipelines", nargs=-1, metavar="[PIPELINE]...")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="How many versions of each pipeline stay, the newest ones.",
)
@click.option(
    "--keep-status",
    "keep_labels",
    multiple=True,
    metavar="LABEL",
    help="Versions with this label stay as well, as final ones always do. Repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would go, and why the others stay.")
@click.option("-y", "--yes", is_flag=True, help="Remove without asking.")
@json_option
def gc_command(
    pipelines: tuple[str, ...],
    keep: int,
    keep_labels: tuple[str, ...],
    dry_run: bool,  # noqa: FBT001 (click passes by name)
    yes: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Removes old versions of PIPELINE, or of all: folders and rows of the catalog.

    What another version was built on stays with it; so does what is running or paused. A
    version whose folder somebody removed goes out of the catalog.
    """
    from batchq.actions.retention import remove, review, size_of
    from batchq.services import build_services
    from batchq.settings import load_settings

    labels = {FINAL, *map(check_label, keep_labels)}
    services = build_services(load_settings())
    verdicts = list(review(pipelines, services, keep=keep, keep_labels=labels))
    going = [one for one in verdicts if not one.kept_for]
    sizes = {one.record.run: size_of(one) for one in going}
    if as_json:
        put_json(
            [
                {
                    "pipeline": one.record.pipeline,
                    "version": one.record.version,
                    "run": one.record.run,
                    "goes": not one.kept_for,
                    "kept_for": one.kept_for or None,
                    "bytes": sizes.get(one.record.run),
                }
                for one in verdicts
            ]
        )
    elif verdicts:
        rows = [(one.name, *_told(one.kept_for, one.is_gone, sizes.get(one.record.run, 0)))
                for one in verdicts]  # fmt: skip
        for line in table(rows, align="<<>"):
            put(line)
    total = f"{count(len(going), 'version')}, {size_text(sum(sizes.values()))}"
    if dry_run or not going:
        say(f"{total} would go" if going else "nothing to remove")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{total} would go: say --yes to remove them without being asked")
        click.confirm(f"Remove {total}?", abort=True, err=True)
    for one in going:
        remove(one, services)
    say(f"removed {total}")


def _told(kept_for: str, is_gone: bool, size: int) -> tuple[str, str]:  # noqa: FBT001
    if kept_for:
        return f"stays: {kept_for}", ""
    return ("goes: its folder is gone", "") if is_gone else ("goes", size_text(size))
