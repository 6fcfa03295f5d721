"""Puts the parts together: settings in, everything a process works with out."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from batchq.broker.signing import signer_of
from batchq.engine.tally import Tally
from batchq.engine.tracing import trace_attempts
from batchq.errors import QueueError
from batchq.ports import RunInfo
from batchq.settings import Settings, redis_client_url

if TYPE_CHECKING:
    import redis

    from batchq.engine.stages import Tools
    from batchq.ledger import (
        RedisBudgets,
        RedisCanaries,
        RedisLedger,
        RedisOutbox,
        RedisProgress,
        RedisSchedules,
        RedisTallies,
        RedisUploads,
    )
    from batchq.ledger.bulk import BulkLedger
    from batchq.outcome import Outcome
    from batchq.plan import StepSpec
    from batchq.ports import Cache
    from batchq.records import Catalog
    from batchq.store import SqlCatalog
    from batchq.store.listing import Listing
    from batchq.uploads import UploadProvider

WORKER_PATIENCE_S = 600.0
COMMAND_PATIENCE_S = 2.0

SHARED_KEEP_S = 7 * 24 * 3600
SHARED_ANSWERS = 20_000
"""How many answers the broker's Redis keeps where no cache is set: about 50 MB."""


@dataclass
class Services:
    """What one process works with; made by `build_services`. Parts are opened when first used."""

    settings: Settings
    patience_s: float = WORKER_PATIENCE_S
    tally: Tally = field(default_factory=Tally)
    _infos: dict[str, RunInfo] = field(default_factory=dict)
    _catalogs: dict[str, SqlCatalog] = field(default_factory=dict)

    @cached_property
    def redis(self) -> redis.Redis:
        """The broker's Redis; raises QueueError if none is configured."""
        from batchq.ledger import connect  # its client takes 150 ms that `list` does not have

        if not self.settings.broker_url:
            raise QueueError("no broker: set BATCHQ_BROKER_URL, such as redis://127.0.0.1:6379/0")
        return connect(redis_client_url(self.settings.broker_url), patience_s=self.patience_s)

    @cached_property
    def ledger(self) -> RedisLedger:
        """What is in flight."""
        from batchq.ledger import RedisLedger

        signer = signer_of(self.settings.signing_key, self.settings.broker_url)
        return RedisLedger(self.redis, self._count, signer=signer)

    def _count(self, spec: StepSpec | None, outcome: Outcome) -> None:
        from batchq.engine.counting import count_outcome

        count_outcome(self.tally, spec, outcome)
        trace_attempts(spec, outcome)

    @cached_property
    def bulk(self) -> BulkLedger:
        """The ledger, for many items at once."""
        from batchq.ledger.bulk import BulkLedger

        return BulkLedger(self.ledger)

    @cached_property
    def tallies(self) -> RedisTallies:
        """What all processes counted."""
        from batchq.ledger import RedisTallies

        return RedisTallies(self.redis)

    @cached_property
    def budgets(self) -> RedisBudgets:
        """What runs may use and have used."""
        from batchq.ledger import RedisBudgets

        return RedisBudgets(self.redis)

    @cached_property
    def canaries(self) -> RedisCanaries:
        """What the first items of runs came to."""
        from batchq.ledger import RedisCanaries

        return RedisCanaries(self.redis)

    @cached_property
    def outbox(self) -> RedisOutbox:
        """Notices that are to be sent."""
        from batchq.ledger import RedisOutbox

        return RedisOutbox(self.redis)

    @cached_property
    def schedules(self) -> RedisSchedules:
        """Manifests that are submitted by themselves."""
        from batchq.ledger import RedisSchedules

        return RedisSchedules(self.redis)

    @cached_property
    def uploads(self) -> RedisUploads:
        """Which runs have uploads at their providers."""
        from batchq.ledger import RedisUploads

        return RedisUploads(self.redis)

    def upload_provider(self, kind: str) -> UploadProvider:
        """Speaks with providers of a kind that answer many calls later."""
        from batchq.providers import get_uploads  # HTTP takes time that commands do not have

        return get_uploads(kind)

    @cached_property
    def progress(self) -> RedisProgress:
        """How far running items say they are."""
        from batchq.ledger import RedisProgress

        return RedisProgress(self.redis)

    @cached_property
    def tools(self) -> Tools:
        """What item tasks work with."""
        # HTTP, JSON Schema and templates take time that the command line does not have.
        from batchq.engine.answers import Answers
        from batchq.engine.calling import SLOT_PATIENCE_S
        from batchq.engine.counting import CountingLimiter
        from batchq.engine.stages import Tools
        from batchq.limiter import RedisLimiter
        from batchq.providers import get_provider
        from batchq.workplace import LocalWorkplace

        return Tools(
            CountingLimiter(RedisLimiter(self.redis), self.tally),
            get_provider,
            tuple(self.settings.tasks),
            patience_s=SLOT_PATIENCE_S,
            answers=Answers(lambda: self.cache),
            budgets=self.budgets,
            outage_s=self.settings.outage_s,
            workplace=LocalWorkplace(
                lambda: self.ledger, lambda: self.progress, self.settings.home
            ),
        )

    @cached_property
    def cache(self) -> Cache:
        """Where workers keep answers; raises StoreError if it is out of reach."""
        from batchq.store.cache import open_cache
        from batchq.store.rediscache import RedisCache

        if self.settings.cache_url:
            return open_cache(self.settings.cache_url)
        # Workers on other hosts share nothing else; it must not fill up, since runs are in it.
        return RedisCache(self.redis, keep_s=SHARED_KEEP_S, most=SHARED_ANSWERS)

    @cached_property
    def catalog(self) -> Catalog:
        """The index of all runs."""
        return self._open_catalog(self.settings.effective_catalog_url)

    @cached_property
    def listing(self) -> Listing:
        """The same index, a page at a time."""
        from batchq.store.listing import Listing

        return Listing(self._open_catalog(self.settings.effective_catalog_url).engine)

    def catalog_of(self, info: RunInfo) -> Catalog:
        """The index that a run is in: ours if one is set, else that of whoever submitted it."""
        return self._open_catalog(
            self.settings.catalog_url or info.catalog_url or self.settings.effective_catalog_url
        )

    def _open_catalog(self, url: str) -> SqlCatalog:
        from batchq.store import open_catalog  # SQLAlchemy takes 200 ms that workers do not have

        if url not in self._catalogs:
            self._catalogs[url] = open_catalog(url)
        return self._catalogs[url]

    def info(self, run: str) -> RunInfo | None:
        """What a coordinator needs of a run that is in flight; None if it is unknown.

        Raises NotSigned if others than us said where its folder is.
        """
        if run not in self._infos:
            about = self.ledger.about(run)
            if not about:
                return None
            self.ledger.check_place(run, about)
            from batchq.store import RunFolder  # fsspec takes time that `--help` does not have

            folder = RunFolder.open(about["folder"])
            self._infos[run] = RunInfo(
                run=run,
                pipeline=about["pipeline"],
                version=about["version"],
                folder=about["folder"],
                plan=folder.read_plan(),
                created_at=float(about["created_at"]),
                mode=about["mode"],
                base_version=about["base_version"],
                catalog_url=about["catalog"],
            )
        return self._infos[run]


def build_services(settings: Settings, *, patience_s: float = WORKER_PATIENCE_S) -> Services:
    """Makes the services; nothing is opened before it is used."""
    return Services(settings, patience_s)
