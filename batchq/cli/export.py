"""`batchq export`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from batchq.cli.output import say, whole_file
from batchq.errors import UsageError
from batchq.text.amounts import count

FORMS = ("csv", "parquet", "jsonl")


@click.command("export")
@click.argument("run")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE, instead of to standard output.",
)
@click.option(
    "--format", "form", type=click.Choice(FORMS), help="Default: that of FILE's name, else csv."
)
@click.option("--step", metavar="NAME", help="Whose items; default: those of the last step.")
@click.option("--inputs", is_flag=True, help="Also what each item was given, in input__NAME.")
def export_command(
    run: str,
    output: Path | None,
    form: str | None,
    step: str | None,
    inputs: bool,  # noqa: FBT001 (click passes by name)
) -> None:
    """Writes the items of RUN as a table, a row an item, over or half way.

    State, error, attempts, seconds, tokens and cost of each, what was measured, and its output
    in columns output__NAME: nested fields joined by __, lists as JSON.
    """
    from batchq.cli.versions import find_version
    from batchq.runs.export import ItemRows, export, step_number
    from batchq.services import COMMAND_PATIENCE_S, build_services
    from batchq.settings import load_settings

    form = form or (output.suffix[1:] if output and output.suffix[1:] in FORMS else "csv")
    if output is None and form == "parquet" and sys.stdout.isatty():
        raise UsageError("Parquet is nothing for a terminal: write to a file, -o items.parquet")
    services = build_services(load_settings(), patience_s=COMMAND_PATIENCE_S)
    _, version = find_version(run, services)
    number = step_number(version.plan, step)
    rows = ItemRows(version.folder, number, with_inputs=inputs)
    if output is None:
        written = export(rows, form, sys.stdout.buffer)
    else:
        with whole_file(output) as file:
            written = export(rows, form, file)
    name = version.plan.step(number).spec.name
    say(f"{version.name} {name}: {count(written, 'item')}" + (f" in {output}" if output else ""))
