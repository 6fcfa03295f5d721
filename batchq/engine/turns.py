"""Lets task functions make calls of their own under a provider's limits."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from batchq.endpoint import ProviderSpec
from batchq.engine.calling import LEASE_SLACK_S, feedback_of, wait_for_grant
from batchq.errors import LimitError, ProviderError, TaskError
from batchq.ports import Feedback, Limiter, Reservation, Verdict


@dataclass
class Turn:
    """A call that may be made now. `tokens` is what it takes of a limit of tokens.

    It was reserved with what was known before; who learns better afterwards sets it.
    """

    provider: ProviderSpec
    tokens: int
    waited_s: float = 0.0


@dataclass
class Turns:
    """Waits at the limits of providers for one item; `lease` begins the names of its calls.

    `halted` keeps what ended a wait that no function may go on after: its run was paused, or the
    broker is away. A function that catches every exception cannot hide it.
    """

    providers: Mapping[str, ProviderSpec]
    limiter: Limiter
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    lease: str
    halted: Exception | None = None
    _taken: int = 0

    @contextmanager
    def take(self, name: str, tokens: int = 0) -> Iterator[Turn]:
        """Waits for a turn, and gives it back at the end of the block.

        A ProviderError of the block teaches the limiter what it would of a prompt's call. Raises
        TaskError for an unknown provider, LimitError for a call that no wait would help.
        """
        provider = self._find(name)
        self._taken += 1
        ttl_s = provider.timeout_s + LEASE_SLACK_S
        asked = Reservation(provider, f"{self.lease}/{self._taken}", tokens, ttl_s)
        with self._noting():
            waited_s, _ = wait_for_grant(self.limiter, asked, self.clock, self.sleep)
        turn, feedback = Turn(provider, tokens, waited_s), Feedback(Verdict.UNSENT)
        try:
            yield turn
            feedback = Feedback()
        except ProviderError as error:
            feedback = feedback_of(error)
            turn.tokens = sum(error.tokens)
            raise
        finally:
            with self._noting():
                self.limiter.settle(asked, turn.tokens, feedback)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except LimitError:
            raise  # of this call alone
        except Exception as error:
            self.halted = error
            raise

    def _find(self, name: str) -> ProviderSpec:
        if name in self.providers:
            return self.providers[name]
        close = difflib.get_close_matches(name, self.providers, n=1)
        known = ", ".join(self.providers) or "none: name it under `providers` with its `limits`"
        hint = f"did you mean `{close[0]}`?" if close else f"there are {known}"
        raise TaskError(f"context.limit: no provider `{name}`; {hint}", kind="task")
