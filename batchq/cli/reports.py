"""`batchq report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from batchq.cli.output import put, say
from batchq.errors import UsageError

if TYPE_CHECKING:
    from batchq.plan import Goal
    from batchq.report import Report, Versus
    from batchq.runs.versions import Version

MAX_IDS = 40


@click.command("report")
@click.argument("run")
@click.option("--metric", metavar="NAME", help="The metric that ranks the jobs.")
@click.option("--goal", type=click.Choice(["min", "max"]), help="Whether less or more is better.")
@click.option("--baseline", metavar="JOB", help="The job that the others are compared with.")
@click.option(
    "--compare",
    nargs=2,
    metavar="vA vB",
    help="Put two versions of the pipeline RUN side by side: report_vA_vB.* in vB's folder.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "md", "html"]),
    help="Print this one, instead of writing all into the run folder.",
)
def report_command(
    run: str,
    metric: str | None,
    goal: str | None,
    baseline: str | None,
    compare: tuple[str, str] | None,
    form: str | None,
) -> None:
    """Reports on RUN, over or half way: summary.csv, report.md and report.html in its folder.

    All jobs ranked by a metric, with the best and the differences to the baseline; what each axis
    does to it; latencies, throughput, failures, cost, and where it all came from.
    """
    from batchq.cli.versions import find_version
    from batchq.report import (
        FILES,
        MAKERS,
        VERSUS_MAKERS,
        gather,
        write_reports,
        write_versus,
    )
    from batchq.report.texts import state_text, verdict
    from batchq.services import COMMAND_PATIENCE_S, build_services
    from batchq.settings import load_settings

    services = build_services(load_settings(), patience_s=COMMAND_PATIENCE_S)

    def read(name: str) -> tuple[Version, Report]:
        _, version = find_version(name, services)
        found = gather(
            version.folder, metric=metric, goal=cast("Goal | None", goal), baseline=baseline
        )
        for warning in found.warnings:
            say(f"warning: {warning}")
        return version, found

    if compare is not None:
        if "@" in run:
            raise UsageError(f"--compare takes versions of a pipeline, and {run} is one of them")
        left, right = (read(f"{run}@{one}") for one in compare)
        seen = _versus(left, right)
        if form is not None:
            put(VERSUS_MAKERS[form](seen).rstrip("\n"))
            return
        put(f"{run} {left[0].version} and {right[0].version}")
        _put_paths(seen.verdict, write_versus(right[0].folder, seen))
        return
    version, report = read(run)
    if form is not None:
        put(MAKERS[form](report).rstrip("\n"))
        return
    put(f"{version.name}  {state_text(report)}")
    _put_paths(verdict(report), write_reports(version.folder, report, FILES))


def _put_paths(text: str, paths: list[str]) -> None:
    for line in [text, *paths] if text else paths:
        put(f"  {line}")


def _versus(left: tuple[Version, Report], right: tuple[Version, Report]) -> Versus:
    """Both reports, and what became of the items where the versions have a step in common."""
    from batchq.report import Versus
    from batchq.runs.compare import Change, id_ranges
    from batchq.runs.review import compare_versions

    try:
        changes = compare_versions(left[0], right[0], keep_values=False).changes
    except UsageError as error:
        say(f"warning: {error}")
        return Versus(left[1], right[1])
    told = [
        (change.value, number, id_ranges(changes.ids(change), MAX_IDS))
        for change in Change
        if (number := changes.counts.get(change, 0))
    ]
    return Versus(left[1], right[1], told)
