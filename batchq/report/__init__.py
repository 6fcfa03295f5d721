"""Reports on a run: a table of its jobs, what each axis does, what it took; CSV, Markdown, HTML."""

from __future__ import annotations

from batchq.report.gather import gather
from batchq.report.tables import Report
from batchq.report.versus import Versus
from batchq.report.writing import FILES, MAKERS, VERSUS_MAKERS, write_reports, write_versus

__all__ = [
    "FILES",
    "MAKERS",
    "VERSUS_MAKERS",
    "Report",
    "Versus",
    "gather",
    "write_reports",
    "write_versus",
]
