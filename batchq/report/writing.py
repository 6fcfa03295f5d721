"""Writes reports beside the outputs of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from batchq.report.markdown import report_text
from batchq.report.page import report_page
from batchq.report.summary import summary_csv
from batchq.report.tables import Report

if TYPE_CHECKING:
    from batchq.store import RunFolder

FILES = {"csv": "summary.csv", "md": "report.md", "html": "report.html"}
MAKERS = {"csv": summary_csv, "md": report_text, "html": report_page}


def write_reports(folder: RunFolder, report: Report, formats: Iterable[str]) -> list[str]:
    """Writes a report in these formats over those that are there; returns where they are."""
    written = []
    for one in formats:
        folder.files.write(FILES[one], MAKERS[one](report).encode("utf-8", "replace"))
        written.append(folder.files.full(FILES[one]))
    return written
