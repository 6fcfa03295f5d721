"""`batchq report`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from batchq.cli.output import put, say

if TYPE_CHECKING:
    from batchq.plan import Goal


@click.command("report")
@click.argument("run")
@click.option("--metric", metavar="NAME", help="The metric that ranks the jobs.")
@click.option("--goal", type=click.Choice(["min", "max"]), help="Whether less or more is better.")
@click.option("--baseline", metavar="JOB", help="The job that the others are compared with.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "md", "html"]),
    help="Print this one, instead of writing all into the run folder.",
)
def report_command(
    run: str, metric: str | None, goal: str | None, baseline: str | None, form: str | None
) -> None:
    """Reports on RUN, over or half way: summary.csv, report.md and report.html in its folder.

    All jobs ranked by a metric, with the best and the differences to the baseline; what each axis
    does to it; durations, failures, cost, and where it all came from.
    """
    from batchq.cli.versions import find_version
    from batchq.report import FILES, MAKERS, gather, write_reports
    from batchq.report.texts import state_text, verdict
    from batchq.services import COMMAND_PATIENCE_S, build_services
    from batchq.settings import load_settings

    services = build_services(load_settings(), patience_s=COMMAND_PATIENCE_S)
    _, version = find_version(run, services)
    report = gather(
        version.folder, metric=metric, goal=cast("Goal | None", goal), baseline=baseline
    )
    for warning in report.warnings:
        say(f"warning: {warning}")
    if form is not None:
        put(MAKERS[form](report).rstrip("\n"))
        return
    put(f"{version.name}  {state_text(report)}")
    if text := verdict(report):
        put(f"  {text}")
    for path in write_reports(version.folder, report, FILES):
        put(f"  {path}")
