"""Reports on a run: a table of its jobs, what each axis does, what it took; CSV, Markdown, HTML."""

from __future__ import annotations

from batchq.report.gather import gather
from batchq.report.tables import Report
from batchq.report.writing import FILES, MAKERS, write_reports

__all__ = ["FILES", "MAKERS", "Report", "gather", "write_reports"]
