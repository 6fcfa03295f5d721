"""Writes reports beside the outputs of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from batchq.report.markdown import report_text
from batchq.report.page import report_page
from batchq.report.summary import summary_csv
from batchq.report.tables import Report
from batchq.report.versus import Versus
from batchq.report.versuspage import versus_csv, versus_page, versus_text

if TYPE_CHECKING:
    from batchq.store import RunFolder

FILES = {"csv": "summary.csv", "md": "report.md", "html": "report.html"}
MAKERS = {"csv": summary_csv, "md": report_text, "html": report_page}
VERSUS_MAKERS = {"csv": versus_csv, "md": versus_text, "html": versus_page}


def write_reports(folder: RunFolder, report: Report, formats: Iterable[str]) -> list[str]:
    """Writes a report in these formats over those that are there; returns where they are."""
    written = []
    for one in formats:
        folder.files.write(FILES[one], MAKERS[one](report).encode("utf-8", "replace"))
        written.append(folder.files.full(FILES[one]))
    return written


def write_versus(folder: RunFolder, seen: Versus) -> list[str]:
    """Writes two runs side by side into the folder of the right one, in all formats."""
    written = []
    for form, make in VERSUS_MAKERS.items():
        name = f"report_{seen.left.version}_{seen.right.version}.{form}"
        folder.files.write(name, make(seen).encode("utf-8", "replace"))
        written.append(folder.files.full(name))
    return written
