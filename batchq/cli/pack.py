"""`batchq pack` and `unpack`: a run as one file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from batchq.cli.output import put, say, whole_file


@click.command("pack")
@click.argument("run")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Default: PIPELINE@VERSION.tar.gz in this folder; - is standard output.",
)
def pack_command(run: str, output: Path | None) -> None:
    """Writes RUN into one file, with all versions that it builds on.

    `batchq unpack` makes it a run again, here or on another machine.
    """
    from batchq.actions.archive import pack
    from batchq.cli.versions import find_version
    from batchq.services import build_services
    from batchq.settings import load_settings
    from batchq.store.names import safe_name

    _, version = find_version(run, build_services(load_settings()))
    if str(output) == "-":
        pack(version, sys.stdout.buffer)
        return
    path = output or Path(f"{safe_name(version.pipeline)}@{version.version}.tar.gz")
    with whole_file(path) as file:
        packed = pack(version, file)
    say(f"{path}: {packed.pipeline} {', '.join(packed.runs)}")


@click.command("unpack")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--into",
    default="outputs",
    show_default=True,
    metavar="OUTPUT_DIR",
    help="Where the pipeline is to be.",
)
def unpack_command(file: Path, into: str) -> None:
    """Makes what `batchq pack` wrote into FILE a run again, under its own number.

    Versions that are there already stay as they are.
    """
    from batchq.actions.archive import unpack
    from batchq.services import build_services
    from batchq.settings import load_settings
    from batchq.store import Outputs
    from batchq.store.records import put_version

    services = build_services(load_settings())
    outputs = Outputs(str(into), str(Path.cwd()))
    with file.open("rb") as archive:
        found = unpack(archive, outputs)
    for folder in found.folders:
        put_version(folder, services.catalog)
        if folder.read_metadata().status == "completed":
            outputs.point_latest(found.pipeline, folder.version)
        put(folder.url)
    for version in found.known:
        say(f"{found.pipeline}@{version} is there already")
