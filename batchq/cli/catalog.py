"""`batchq catalog rebuild`."""

from __future__ import annotations

import click

from batchq.cli.output import count, put, put_json, say
from batchq.cli.request import json_option

EXIT_OUT_OF_REACH = 6


@click.group("catalog")
def catalog_command() -> None:
    """Works on the catalog, the index of runs."""


@catalog_command.command("rebuild")
@click.argument("folders", nargs=-1, metavar="[OUTPUT_DIR]...")
@json_option
def rebuild_command(folders: tuple[str, ...], as_json: bool) -> int:  # noqa: FBT001 (click)
    """Fills the catalog from the run folders in each OUTPUT_DIR (`outputs` if none is given).

    Nothing but these folders is needed, so it mends a catalog that was lost. Runs that are there
    already are replaced.
    """
    from batchq.services import build_services
    from batchq.settings import load_settings
    from batchq.store import Outputs
    from batchq.store.records import rebuild

    services = build_services(load_settings())
    found = [rebuild(Outputs(folder), services.catalog) for folder in folders or ("outputs",)]
    runs, batches = sum(one.runs for one in found), sum(one.batches for one in found)
    problems = [problem for one in found for problem in one.problems]
    if as_json:
        put_json({"runs": runs, "batches": batches, "problems": problems})
    else:
        put(f"{count(runs, 'run')} and {count(batches, 'batch', 'batches')} are in the catalog")
    for problem in problems:
        say(f"left out: {problem}")
    return EXIT_OUT_OF_REACH if problems else 0
