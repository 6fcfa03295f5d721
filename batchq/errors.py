"""The errors that batchq raises on purpose, each with the exit code the command line ends with.

    BatchqError                exit 1
      ManifestError            exit 2   problems
      PlanError                exit 2
      UsageError               exit 2
      ProviderError                     kind, retryable, retry_after_s
        RateLimited  Overloaded  ProviderTimeout  ConnectionFailed  ServerFailed
        AuthFailed  UnknownModel  BadRequest  FormRefused  ContextTooLong  Refused  Truncated
        UploadQuotaUsedUp  UploadExpired  UploadCancelled  ResultsCutOff
      OutputError                       detail for the model, raw answer
        NotJson  SchemaMismatch
      TaskError                         a Python step or a command failed
      LimitError
        LimitTimeout  RequestTooLarge  BudgetUsedUp
      StoreError               exit 6
        RunExists
        RunNotFound            exit 7
      QueueError               exit 6

Errors of an item are caught in the runner and become data in its outcome; the others end a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


class BatchqError(Exception):
    """Raised when batchq cannot go on; the message says what, where and what to do."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a manifest, with its place.

    `line` and `column` count from 1 and are 0 where there is no place to point at.
    `key` is the path of the key, such as `steps[0].prompt`.
    """

    path: str
    line: int
    column: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}: " if self.line else f"{self.path}: "
        key = f"{self.key}: " if self.key else ""
        return f"{place}{key}{self.message}" + (f" ({self.hint})" if self.hint else "")


class ManifestError(BatchqError):
    """Raised with every problem of a manifest at once; mend the lines it names."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class PlanError(BatchqError):
    """Raised when a valid manifest cannot be planned: its input is missing, broken or empty."""

    exit_code = 2


class UsageError(BatchqError):
    """Raised when a command line or a setting makes no sense; the message says what would."""

    exit_code = 2


class ProviderError(BatchqError):
    """Raised when a call to a provider failed; `retryable` says whether another try can help."""

    kind = "server"
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        raw: str = "",
        tokens: tuple[int, int] = (0, 0),
        limit: Literal["", "requests", "tokens", "concurrency"] = "",
        quotas: tuple[Any, ...] = (),
    ) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        self.limit = limit  # what refused the call, if the provider said so
        self.quotas = quotas  # what the headers tell of its limits: see ports.Quota
        self.raw = raw  # what came of an answer that was cut off
        self.tokens = tokens  # input and output of a refused or truncated answer: they are paid
        super().__init__(message)


class RateLimited(ProviderError):
    """Raised on HTTP 429; wait `retry_after_s` and try again."""

    kind = "rate_limit"
    retryable = True


class Overloaded(ProviderError):
    """Raised on HTTP 529 or 503; the provider has no room now."""

    kind = "overloaded"
    retryable = True


class ProviderTimeout(ProviderError):
    """Raised when connecting, a read or the whole call took longer than its limit."""

    kind = "timeout"
    retryable = True


class ConnectionFailed(ProviderError):
    """Raised when no answer came: refused, reset, name not found, broken off."""

    kind = "connection"
    retryable = True


class ServerFailed(ProviderError):
    """Raised on any other HTTP 5xx, or an answer that is not the provider's own format."""

    kind = "server"
    retryable = True


class AuthFailed(ProviderError):
    """Raised on HTTP 401, 402, 403, or when the key's variable is not set; mend the key."""

    kind = "auth"


class UnknownModel(ProviderError):
    """Raised when the provider has no model of this name, for anybody; mend `model`."""

    kind = "unknown_model"


class BadRequest(ProviderError):
    """Raised on any other HTTP 4xx: the request itself is wrong."""

    kind = "bad_request"


class ContextTooLong(ProviderError):
    """Raised when the prompt does not fit the model's context; shorten the item or the prompt."""

    kind = "context_too_long"


class Refused(ProviderError):
    """Raised when the model declined to answer."""

    kind = "refused"


class Truncated(ProviderError):
    """Raised when the answer stopped at max_tokens; raise `options.max_tokens`."""

    kind = "truncated"


class FormRefused(BadRequest):
    """Raised when a line of an upload was refused for a form that the next try will not have."""

    retryable = True


class UploadQuotaUsedUp(ProviderError):
    """Raised when other uploads must end before the provider takes more lines."""

    kind = "upload_quota"
    retryable = True


class UploadExpired(ProviderError):
    """Raised when the provider did not get to a line before its upload expired; it is not paid."""

    kind = "expired"
    retryable = True


class UploadCancelled(ProviderError):
    """Raised when an upload was cancelled before the provider got to a line; it is not paid."""

    kind = "cancelled"
    retryable = True


class ResultsCutOff(ProviderError):
    """Raised when the results of an upload are not all there; read them again."""

    kind = "cut_off"
    retryable = True


class OutputError(BatchqError):
    """Raised when an answer arrived but is not what was asked for.

    `detail` is written for the model, which is asked again with it.
    """

    kind = "output"

    def __init__(self, message: str, *, detail: str, raw: str) -> None:
        self.detail = detail
        self.raw = raw
        super().__init__(message)


class NotJson(OutputError):
    """Raised when no JSON was found in the answer, not even after a repair."""

    kind = "not_json"


class SchemaMismatch(OutputError):
    """Raised when the JSON of an answer does not match the step's `output_schema`."""

    kind = "schema"


class TaskError(BatchqError):
    """Raised when a Python step or a command failed; `kind` tells how."""

    def __init__(self, message: str, *, kind: str, retryable: bool = False) -> None:
        self.kind = kind
        self.retryable = retryable
        super().__init__(message)


class LimitError(BatchqError):
    """Raised when a call may not be made under the provider's limits."""

    kind = "limit"


class LimitTimeout(LimitError):
    """Raised when a reservation was not granted within the step's timeout."""


class RequestTooLarge(LimitError):
    """Raised when one request needs more than a whole limit allows; no wait would help."""


class BudgetUsedUp(LimitError):
    """Raised when a call does not fit the run's budget any more; raise it and resume the run.

    `ends_run` says that the run is to fail, instead of standing still.
    """

    def __init__(self, message: str, *, ends_run: bool) -> None:
        self.ends_run = ends_run
        super().__init__(message)


class StoreError(BatchqError):
    """Raised when the run folder, the catalog or the cache cannot be read or written."""

    exit_code = 6


class RunExists(StoreError):
    """Raised when a version was created by somebody else in the meantime."""


class RunNotFound(StoreError):
    """Raised when no run, version or item has the name; nearest names are in the message."""

    exit_code = 7


class QueueError(BatchqError):
    """Raised when the broker or its workers are out of reach; start them or mend the URL."""

    exit_code = 6
