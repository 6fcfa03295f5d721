"""What a simulator has seen and sent."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from batchq.simulator.faults import Fault

Way = Literal["online", "batch"]

LOGGED_CALLS = 20_000
"""The newest calls that `GET /calls` tells of."""


class CallLog:
    """Remembers when each call came and whether the limits let it through."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._calls: deque[tuple[float, str, int, int, str]] = deque(maxlen=LOGGED_CALLS)

    def note(self, model: str, tokens: int, in_flight: int, *, refused_by: str | None) -> None:
        """Takes a call down; `in_flight` counts it, if it was let through."""
        self._calls.append((self._clock(), model, tokens, in_flight, refused_by or ""))

    def clear(self) -> None:
        """Forgets all calls."""
        self._calls.clear()

    def as_json(self) -> dict[str, Any]:
        """The calls in the order in which they came; `now` and `at` are of one clock, in s."""
        names = ("at", "model", "tokens", "in_flight", "refused_by")
        calls = [dict(zip(names, call, strict=True)) for call in self._calls]
        return {"now": self._clock(), "calls": calls}


@dataclass(slots=True)
class Paid:
    """What was paid on one way: answers, good or spoilt, their tokens and their money."""

    answers: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    nusd: int = 0

    def as_json(self) -> dict[str, Any]:
        """The sums under the names that `GET /stats` gives them."""
        tokens = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        return {"answers": self.answers, **tokens, "usd": self.nusd / 1e9}


class Stats:
    """Counts calls by what became of them.

    A prompt is known by a number made of its model, text and schema. A repeat is a call whose
    prompt was admitted before: a *duplicate* if a good answer had been sent for it, which is
    what a client pays twice for.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.duplicates = 0
        self.repeats_after_fault = 0
        self.repeats_in_flight = 0
        self._paid: dict[Way, Paid] = {"online": Paid(), "batch": Paid()}
        self._answers: dict[Way, Counter[int]] = {"online": Counter(), "batch": Counter()}
        self._statuses: Counter[int] = Counter()
        self._faults: Counter[str] = Counter()
        self._attempts: dict[int, int] = {}
        self._in_flight: Counter[int] = Counter()

    def attempts(self, prompt: int) -> int:
        """How often a prompt was admitted."""
        return self._attempts.get(prompt, 0)

    def count_admitted(self, prompt: int) -> None:
        """Counts a call that the limits let through."""
        seen = self._attempts.get(prompt, 0)
        self._attempts[prompt] = seen + 1
        self.accepted += 1
        if self._is_answered(prompt):
            self.duplicates += 1
        elif self._in_flight[prompt]:
            self.repeats_in_flight += 1
        elif seen:
            self.repeats_after_fault += 1
        self._in_flight[prompt] += 1

    def count_line(self, prompt: int, fault: Fault) -> None:
        """Counts a line of a batch that the model was given."""
        self._attempts[prompt] = self._attempts.get(prompt, 0) + 1
        self._faults[fault] += 1
        self.duplicates += self._is_answered(prompt)

    def count_ended(self, prompt: int, fault: Fault) -> None:
        """Counts the end of an admitted call, however it came."""
        self._faults[fault] += 1
        self._in_flight[prompt] -= 1
        if not self._in_flight[prompt]:
            del self._in_flight[prompt]

    def count_answer(
        self, way: Way, prompt: int, input_tokens: int, output_tokens: int, fault: Fault, nusd: int
    ) -> None:
        """Counts an answer that was sent, and paid."""
        paid = self._paid[way]
        paid.answers += 1
        paid.input_tokens += input_tokens
        paid.output_tokens += output_tokens
        paid.nusd += nusd
        if fault is Fault.NONE:
            self._answers[way][prompt] += 1

    def _is_answered(self, prompt: int) -> bool:
        return prompt in self._answers["online"] or prompt in self._answers["batch"]

    def paid(self) -> dict[str, Any]:
        """How often each prompt was answered well on each way, as `GET /paid` tells it."""
        online, batch = self._answers["online"], self._answers["batch"]
        contents = {
            f"{prompt:016x}": {"online": online[prompt], "batch": batch[prompt]}
            for prompt in {**online, **batch}
        }
        return {"contents": contents}

    def count_status(self, status: int) -> None:
        """Counts a response to a call, also one that the limits or the checks refused."""
        self._statuses[status] += 1
        self.refused += status == 429

    def as_json(self) -> dict[str, Any]:
        """The counts under the names that `GET /stats` gives them."""
        return {
            "accepted": self.accepted,
            "refused": self.refused,
            "duplicates": self.duplicates,
            "repeats_after_fault": self.repeats_after_fault,
            "repeats_in_flight": self.repeats_in_flight,
            "prompts": len(self._attempts),
            "statuses": {str(status): count for status, count in sorted(self._statuses.items())},
            "faults": {
                fault: count for fault, count in sorted(self._faults.items()) if fault != "none"
            },
            "input_tokens": sum(paid.input_tokens for paid in self._paid.values()),
            "output_tokens": sum(paid.output_tokens for paid in self._paid.values()),
            "paid": {
                **{way: paid.as_json() for way, paid in self._paid.items()},
                "contents": len(set().union(*self._answers.values())),
                "twice": sum(
                    times > 1 for times in sum(self._answers.values(), Counter()).values()
                ),
            },
        }
