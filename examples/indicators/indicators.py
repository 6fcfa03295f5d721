"""The last stage of an indicator, and the tables that a run leaves in the database."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from batchq import Run

STAGES = ("normalize", "time", "family", "type", "boolean_review", "final_review", "complete")
TABLES = """
CREATE TABLE IF NOT EXISTS classifications (
  indicator_id TEXT NOT NULL,
  run TEXT NOT NULL,
  name TEXT NOT NULL,
  normalized_name TEXT NOT NULL,
  unit TEXT NOT NULL,
  time_basis TEXT NOT NULL,
  family TEXT NOT NULL,
  indicator_type TEXT NOT NULL,
  approved INTEGER NOT NULL,
  confidence REAL NOT NULL,
  PRIMARY KEY (run, indicator_id)
);
CREATE TABLE IF NOT EXISTS processing_log (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run TEXT NOT NULL,
  indicator_id TEXT NOT NULL,
  stage TEXT NOT NULL,
  status TEXT NOT NULL,
  detail TEXT NOT NULL
);
"""
COLUMNS = ("normalized_name", "unit", "time_basis", "family", "indicator_type", "approved")


def complete(item: dict[str, Any]) -> dict[str, Any]:
    """What stands for the indicator in the end; a type that its review denies is a score."""
    is_denied = item.get("is_boolean") is False
    return {
        "indicator_id": item["indicator_id"],
        "name": item["name"],
        "indicator_type": "score" if is_denied else item["indicator_type"],
        "confidence": item["confidence"],
    }


def store(run: Run, database: Path) -> None:
    """Writes the classifications of a run and what became of each stage; again is the same."""
    rows, errors = run.collated(), run.errors()
    with sqlite3.connect(database, timeout=30) as db:
        db.executescript(TABLES)
        for table in ("classifications", "processing_log"):
            db.execute(f"DELETE FROM {table} WHERE run = ?", (run.name,))
        for row in rows:
            values = (*(row[name] for name in COLUMNS), row["confidence"])
            marks = ", ".join("?" * (3 + len(values)))
            about = (row["indicator_id"], run.name, row["name"])
            db.execute(f"INSERT INTO classifications VALUES ({marks})", (*about, *values))
            for stage in STAGES:
                log(db, run, row["indicator_id"], stage, "done" if stage in row else "left out")
        for error in errors:
            detail = json.dumps({"kind": error["kind"], "error": error["error"]})
            log(db, run, error["item_id"], error.get("stage", ""), "failed", detail)
    db.close()


def log(
    db: sqlite3.Connection, run: Run, indicator: str, stage: str, status: str, detail: str = ""
) -> None:
    """Adds a line to the processing log."""
    columns = "run, indicator_id, stage, status, detail"
    values = (run.name, indicator, stage, status, detail)
    db.execute(f"INSERT INTO processing_log ({columns}) VALUES (?, ?, ?, ?, ?)", values)
