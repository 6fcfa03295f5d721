"""The settings of an experiment over their repeats: what is luck, and what is not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchq.outcome import Json
from batchq.plan import Goal
from batchq.report.figures import Spread, spread_of
from batchq.report.tables import Report, Row


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting with the jobs that ran it; `rows` are its repeats, also those that failed."""

    name: str
    rows: Sequence[Row]

    @property
    def settings(self) -> Mapping[str, Json]:
        """Its values on the axes, but for the seed, in which its repeats differ."""
        return {axis: value for axis, value in self.rows[0].settings.items() if axis != "seed"}

    @property
    def ok(self) -> int:
        """How many of its repeats ended well."""
        return sum(row.is_ok for row in self.rows)

    def spread(self, metric: str) -> Spread | None:
        """A metric over the repeats that have it."""
        return spread_of(row.value(metric) for row in self.rows if row.is_ok)


def settings_of(report: Report) -> list[Setting]:
    """The settings, the best mean first; none where nothing is repeated.

    A job that ran once is a setting, too: it is compared with the means of the others.
    """
    found: dict[str, list[Row]] = {}
    if not any(row.setting for row in report.jobs):
        return []
    for row in report.jobs:
        found.setdefault(row.setting or row.name, []).append(row)
    settings = [Setting(name, rows) for name, rows in found.items()]
    return sorted(settings, key=lambda one: _place(one, report.metric, report.goal))


def _place(setting: Setting, metric: str, goal: Goal) -> tuple[bool, float]:
    spread = setting.spread(metric)
    if spread is None:
        return (True, 0.0)
    return (False, spread.mean if goal == "min" else -spread.mean)
