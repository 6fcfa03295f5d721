"""What the engine needs of providers that answer many calls later, for half the price.

One such batch at a provider is an *upload* here: a batch is the items of one chord.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from batchq.endpoint import ProviderSpec
from batchq.errors import ProviderError
from batchq.ports import ChatReply, ChatRequest

UploadState = Literal["running", "cancelling", "ended", "rejected"]
"""`ended`: answers can be read, also after a cancel or an expiry. `rejected`: there are none."""


@dataclass(frozen=True, slots=True)
class UploadLine:
    """One call of an upload.

    `id` is ours: unique in its upload, 1 to 64 of A-Z a-z 0-9 _ -, and begins with the tag of its
    upload and a - or _.
    """

    id: str
    request: ChatRequest


@dataclass(frozen=True, slots=True)
class Upload:
    """Where an upload stands at its provider.

    Counts are what the provider tells, some of them 0 until it has looked into the upload; times
    are seconds since the epoch, on the provider's clock. `rejection` says why it was rejected
    whole: UploadQuotaUsedUp passes with time, others do not.
    """

    id: str
    state: UploadState
    lines: int = 0
    answered: int = 0
    failed: int = 0
    created_at: float = 0.0
    expires_at: float | None = None
    rejection: ProviderError | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("ended", "rejected")


@dataclass(frozen=True, slots=True)
class UploadAnswer:
    """What became of one line: a reply, whose usage has no price yet, or an error.

    Errors are those of a call online, and UploadExpired and UploadCancelled for a line that the
    provider did not get to, which costs nothing. Without an `id` it is about no line that is
    known: a line of the results that cannot be read, or, as the last one, ResultsCutOff.
    """

    id: str
    reply: ChatReply | None = None
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What one upload may have at most; `bytes` as `UploadProvider.size` counts them."""

    lines: int
    bytes: int


class UploadProvider(Protocol):
    """Speaks one provider's batch format. One instance a process, used by many threads at once.

    All lines of an upload are for one provider and ask for the same schema. Every method but
    `limits` and `size` may raise ProviderError with the meaning that it has online.
    """

    # One thing to speak with, however many words it has: hence more than five members.
    def limits(self, provider: ProviderSpec) -> UploadLimits:
        """What one upload may have at most."""
        ...

    def size(self, line: UploadLine) -> int:
        """Bytes of a line on the wire; raises BadRequest for options that cannot be sent."""
        ...

    def create(self, provider: ProviderSpec, tag: str, lines: Iterable[UploadLine]) -> Upload:
        """Sends the lines, through a temporary file, and starts them.

        After ConnectionFailed, ProviderTimeout, ServerFailed or a crash the upload may be there
        all the same: `find` it before it is created once more. UploadQuotaUsedUp says that
        others must end first, here or as a rejection that `poll` tells.
        """
        ...

    def find(
        self,
        provider: ProviderSpec,
        tag: str,
        since: float,
        lines: int,
        known: Collection[str] = (),
    ) -> Upload | None:
        """Looks for an upload that was created after `since` (our clock) and whose id got lost.

        Where the provider keeps no tag, it is one of so many lines that is not `known`; as long
        as it runs, nothing shows whose it is, and its answers may prove to be of others.
        """
        ...

    def poll(self, provider: ProviderSpec, upload: str) -> Upload:
        """Asks where an upload stands; BadRequest with status 404 if there is none of this id."""
        ...

    def answers(
        self, provider: ProviderSpec, upload: str, schema: Mapping[str, Any] | None = None
    ) -> Iterator[UploadAnswer]:
        """Reads what became of the lines, in any order, once an upload has ended.

        Some lines may be missing, be there twice, or never have been sent: whoever reads counts
        them. Nothing is raised after the first answer.
        """
        ...

    def cancel(self, provider: ProviderSpec, upload: str) -> Upload:
        """Asks the provider to stop; what was answered by then can be read, and is paid.

        An upload that has ended already is left as it is.
        """
        ...
