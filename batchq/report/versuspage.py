"""Two runs side by side as CSV, Markdown and a page that loads nothing from anywhere."""

from __future__ import annotations

import csv
import io

from batchq.report.markdown import MARKDOWN_ROWS, line, table_head
from batchq.report.page import MAX_ROWS, render_page
from batchq.report.versus import Versus, figures_of, job_pairs


def versus_csv(seen: Versus) -> str:
    """A row a job with the metric in both, or a row a figure where there are no jobs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    versions = (seen.left.version, seen.right.version)
    pairs = job_pairs(seen)
    if not pairs:
        writer.writerow(["figure", *versions])
        writer.writerows([one.name, one.left, one.right] for one in figures_of(seen))
        return text.getvalue()
    names = [f"{seen.metric}_{version}" for version in versions]
    writer.writerow(["job", *names, f"{seen.metric}_delta"])
    writer.writerows([one.name, one.left, one.right, one.delta] for one in pairs)
    return text.getvalue()


def versus_text(seen: Versus) -> str:
    """Both in Markdown."""
    versions = (seen.left.version, seen.right.version)
    lines = [f"# {seen.right.pipeline} {versions[0]} and {versions[1]}", ""]
    lines += [f"**{seen.verdict}**", ""] if seen.verdict else []
    lines += table_head("", *versions, "change")
    lines += [line(one.name, *one.texts) for one in figures_of(seen)]
    if pairs := job_pairs(seen):
        lines += ["", f"## Jobs by what changed of {seen.metric}", ""]
        lines += table_head("job", *versions, "change")
        lines += [line(one.name, *one.texts) for one in pairs[:MARKDOWN_ROWS]]
        if len(pairs) > MARKDOWN_ROWS:
            lines += ["", f"{len(pairs) - MARKDOWN_ROWS:,} more are in the CSV."]
    if seen.changes:
        lines += ["", "## What became of the items", "", *table_head("", "items", "which")]
        lines += [line(what, f"{number:,}", which) for what, number, which in seen.changes]
    return "\n".join(lines) + "\n"


def versus_page(seen: Versus) -> str:
    """Both as a page."""
    return render_page(
        "versus.html.j2",
        seen=seen,
        figures=figures_of(seen),
        pairs=job_pairs(seen),
        most=MAX_ROWS,
    )
