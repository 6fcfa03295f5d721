"""What the pages read from: the catalog, the run folders and the Redis that a run is in."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from redis import RedisError

from batchq.actions.lookup import Found, progress_of_record
from batchq.actions.views import Pace
from batchq.embedded.stack import live_broker_url, live_brokers
from batchq.errors import QueueError, RunNotFound, StoreError
from batchq.monitoring.bottleneck import what_bounds
from batchq.plan import Budget
from batchq.progress import Progress, RunState
from batchq.records import RunRecord
from batchq.runs.life import open_folder, progress
from batchq.runs.versions import Version, open_version
from batchq.services import Services, build_services
from batchq.settings import Settings
from batchq.store.listing import Listing

PATIENCE_S = 1.0
AWAY_S = 5.0
"""After Redis did not answer, nobody asks it again for so long: each look would wait for it."""

AWAY = (
    "Redis does not answer: what is shown here is what the catalog and the run folders know, and "
    "nothing can be stopped or started now."
)

T = TypeVar("T")
FindTask = Callable[[str, float], str | None]
"""Finds the task of an item that began at a time, where somebody keeps tasks."""
_KEPT = 200  # runs of which something is remembered
_MOST_LOOKS = 1800
_MOST_PLANS = 5000


@dataclass(frozen=True, slots=True)
class Look:
    """How many items of a run had ended at a time."""

    at: float
    ok: int
    failed: int


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What a list of runs tells of a plan; it never changes."""

    steps: int
    budget: Budget | None


class Reader:
    """Finds runs and how far they are; threads share one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.services = build_services(settings, patience_s=PATIENCE_S)
        self._lock = threading.Lock()
        self._live: dict[str, Services] = {}
        self._paces: OrderedDict[str, Pace] = OrderedDict()
        self._looks: OrderedDict[str, deque[Look]] = OrderedDict()
        self._plans: OrderedDict[str, PlanFacts | None] = OrderedDict()
        self._away_until = 0.0
        self.find_task: FindTask = lambda _item, _at: None

    @property
    def listing(self) -> Listing:
        """The catalog, a page at a time."""
        return self.services.listing

    def found(self, name: str) -> Found:
        """Finds a run by its name or id; raises RunNotFound, or QueueError if only Redis knows."""
        record = self.listing.run(name)
        if record is not None:
            return self.locate(record)
        if self.settings.broker_url:
            run = self._on_broker(name)
            if run is not None:
                return Found(run, name, self.services)
        raise RunNotFound(f"no run is named {name}")

    def locate(self, record: RunRecord) -> Found:
        """Says which Redis a run of the catalog is in, if it is in one."""
        name, catalog = f"{record.pipeline}@{record.version}", self.services.catalog
        url = None
        if record.state is not RunState.COMPLETED:  # a retry opens it up again
            url = live_broker_url(self.settings.home, record.run)
        if url:
            return Found(record.run, name, self._services_at(url), record, catalog)
        if self.settings.broker_url and not self.is_away:
            state = self._ask(lambda: self.services.ledger.state(record.run))
            if state is not None:
                return Found(record.run, name, self.services, record, catalog)
        return Found(record.run, name, None, record, catalog)

    def progress(self, found: Found) -> tuple[Progress, str]:
        """How far a run is, and what is wrong with the looking; "" if nothing is.

        Where Redis is away the run is told from its folder. Raises RunNotFound if that is gone.
        """
        problem = self.trouble
        if found.services is not None:
            services = found.services
            try:
                seen = progress(found.run, services, time.time())
                if seen is not None:
                    return replace(seen, bound_by=what_bounds(seen, services)), problem
            except (QueueError, RedisError) as error:
                if found.record is None:
                    raise QueueError(f"Redis did not answer: {error}") from error
                problem = self._note_away()
        if found.record is None or found.catalog is None:
            raise RunNotFound(f"{found.name} is over, and Redis has forgotten it")
        seen = progress_of_record(found.record, found.catalog)
        if problem and not found.record.state.is_over:
            # Nobody knows: that its processes were killed is a guess that Redis would settle.
            seen = replace(seen, state=RunState.RUNNING, reason="")
        return seen, problem

    def version(self, found: Found) -> Version:
        """Opens the folder of a run; raises RunNotFound if it is gone, or was never here."""
        record = found.record
        if record is None:
            raise RunNotFound(f"{found.name} was submitted elsewhere: its folder is not known here")
        return open_version(record.pipeline, record.version, record.folder)

    def pace(self, seen: Progress) -> float | None:
        """Items a second over the last seconds in which somebody looked; None while unknown."""
        with self._lock:
            pace = self._paces.pop(seen.run, None) or Pace()
            self._paces[seen.run] = pace
            if len(self._paces) > _KEPT:
                self._paces.popitem(last=False)
            pace.note(seen.updated_at, seen.summary.total)
            return pace.per_s or None

    def looks(self, seen: Progress) -> list[Look]:
        """The looks at a run since somebody has watched it; the newest is this one."""
        look = Look(seen.updated_at, seen.summary.ok, seen.summary.failed)
        with self._lock:
            looks = self._looks.pop(seen.run, None) or deque(maxlen=_MOST_LOOKS)
            self._looks[seen.run] = looks
            if len(self._looks) > _KEPT:
                self._looks.popitem(last=False)
            if looks and (look.ok < looks[-1].ok or look.failed < looks[-1].failed):
                looks.clear()  # a retry took failures back
            if not looks or look.at > looks[-1].at:
                looks.append(look)
            return [*looks]

    def plan_facts(self, record: RunRecord) -> PlanFacts | None:
        """What the plan of a run says; None if its folder is gone or broken."""
        with self._lock:
            if record.run in self._plans:
                return self._plans[record.run]
        try:
            plan = open_folder(record.folder).read_plan()
            facts = PlanFacts(len(plan.steps), plan.budget)
        except (StoreError, OSError):
            facts = None
        with self._lock:
            self._plans[record.run] = facts
            if len(self._plans) > _MOST_PLANS:
                self._plans.popitem(last=False)
        return facts

    @property
    def is_away(self) -> bool:
        """Whether the broker did not answer a moment ago."""
        return time.monotonic() < self._away_until

    @property
    def trouble(self) -> str:
        """What people are told while the broker does not answer."""
        return AWAY if self.settings.broker_url and self.is_away else ""

    def brokers(self) -> list[Services]:
        """The broker, or the private ones of runs that go on here."""
        if self.settings.broker_url:
            return [self.services]
        return [self._services_at(url) for url in live_brokers(self.settings.home).values()]

    def runs_elsewhere(self) -> list[str]:
        """The runs that the broker has and that our catalog does not know."""
        if not self.settings.broker_url or self.is_away:
            return []
        going = self._ask(lambda: self.services.ledger.runs()) or []
        return [run for run in going if self.listing.run(run) is None]

    def _on_broker(self, name: str) -> str | None:
        pipeline, _, version = name.partition("@")
        ledger = self.services.ledger
        if ledger.state(name) is not None:
            return name
        for run in reversed(ledger.runs()):
            about = ledger.about(run)
            if about.get("pipeline") == pipeline and version in ("", about.get("version")):
                return run
        return None

    def _ask(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except (QueueError, RedisError):
            self._note_away()
            return None

    def _note_away(self) -> str:
        self._away_until = time.monotonic() + AWAY_S
        return AWAY

    def _services_at(self, url: str) -> Services:
        with self._lock:
            if url not in self._live:
                if len(self._live) > 50:  # of runs that ended long ago
                    self._live.clear()
                settings = self.settings.model_copy(update={"broker_url": url})
                self._live[url] = build_services(settings, patience_s=PATIENCE_S)
            return self._live[url]
