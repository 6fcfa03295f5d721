"""The pages on many items at once: what failed and why, and one version against another."""

from __future__ import annotations

from typing import Any

from batchq.actions.asjson import comparison_json, group_json
from batchq.errors import RunNotFound
from batchq.runs.compare import Change
from batchq.runs.review import compare_versions, failures_of
from batchq.runs.versions import is_read_only
from batchq.web.query import Query, choice
from batchq.web.reader import Reader

COMPARE_ARGUMENTS = ("pipeline", "old", "new", "step", "change")
MOST_CHANGES = 200
"""Items of a comparison that a page shows; the filter by change shows others."""


def read_failures(reader: Reader, name: str, _: Query) -> dict[str, Any]:
    """What failed in a run, grouped by cause, the largest group first."""
    found = reader.found(name)
    version = reader.version(found)
    groups = [group_json(one) for one in failures_of(version)]
    seen, problem = reader.progress(found)
    record = found.record
    can_retry = seen.state.is_over and record is not None and not is_read_only(record)
    return {
        "name": found.name,
        "run": found.run,
        "total": sum(group["count"] for group in groups),
        "groups": groups,
        "can_retry": can_retry and not problem,
        "problem": problem,
    }


def read_comparison(reader: Reader, query: Query) -> dict[str, Any]:
    """Two versions of a pipeline, regressions first; without `old`, the one before `new`."""
    listing = reader.listing
    pipelines, _ = listing.names()
    pipeline = query.get("pipeline", "")
    told: dict[str, Any] = {
        "pipelines": pipelines,
        "pipeline": pipeline,
        "versions": [],
        "old": query.get("old", ""),
        "new": query.get("new", ""),
        "comparison": None,
        "problem": reader.trouble,
    }
    if not pipeline:
        return told
    versions = [one.version for one in listing.versions(pipeline)]
    if not versions:
        raise RunNotFound(f"no pipeline is named {pipeline}")
    new = query.get("new") or versions[0]
    older = versions[versions.index(new) + 1 :] if new in versions else []
    old = query.get("old") or (older[0] if older else "")
    told |= {"versions": versions, "old": old, "new": new}
    if not old:
        return told
    sides = [reader.version(reader.found(f"{pipeline}@{one}")) for one in (old, new)]
    wanted = choice(query, "change", [*Change])
    seen = compare_versions(*sides, step=query.get("step"))
    whole = comparison_json(seen, only_changed=False)
    changes = [one for one in whole["changes"] if wanted in ("", one["change"])]
    comparison = whole | {
        "changes": changes[:MOST_CHANGES],
        "hidden": max(0, len(changes) - MOST_CHANGES),
        "change": wanted,
    }
    return told | {"comparison": comparison}
