"""Items whose answer came by an upload: as those of calls, at the upload's price."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from batchq.endpoint import Prices, ProviderSpec
from batchq.engine.delivered import Delivered
from batchq.engine.runner import run_item
from batchq.engine.spending import Purse
from batchq.engine.stages import Tools
from batchq.errors import BadRequest, ProviderError, UnknownModel, UploadExpired
from batchq.ledger import MemoryBudgets, MemoryLedger
from batchq.outcome import Outcome, State, Summary, Usage
from batchq.plan import Budget, Item, Mode, RetryPolicy, StageSpec, StepSpec, encode
from batchq.ports import ChatReply, ChatRequest, Grant, ItemRef

REF = ItemRef("r1", 1, 0, 0)
TAG = "r1-1-0"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
PROVIDER = ProviderSpec("p", "openai", "http://unused", "m", prices=Prices(1.0, 2.0, 0.5))
STAGE = StageSpec("", "prompt", prompt="Count {word}", provider=PROVIDER, output_schema=SCHEMA)
GOOD = Delivered(TAG, '{"n": 3}', "m-1", 1, 10, 5)
BAD = replace(GOOD, text="three")


@dataclass
class Free:
    """Lets everything through."""

    def reserve(self, asked) -> Grant:
        return Grant(0)

    def settle(self, asked, used, feedback) -> float:
        return 0.0

    def pause(self, provider: ProviderSpec, seconds: float) -> None:
        return None


@dataclass
class Online:
    """A provider that is called online, and remembers what it was asked."""

    requests: list[ChatRequest] = field(default_factory=list)
    failures: int = 0

    def call(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        if self.failures:
            self.failures -= 1
            raise ProviderErrorOfServer("boom")
        return ChatReply('{"n": 4}', "m-1", Usage(1, 10, 5))


class ProviderErrorOfServer(ProviderError):
    retryable = True


def run(
    delivered: Delivered,
    mode: Mode,
    online: Online | None = None,
    retries: int = 1,
    **tools: object,
) -> Outcome:
    ledger = MemoryLedger(brought={REF: encode(delivered).decode()})
    step = StepSpec(1, "s", (STAGE,), retry=RetryPolicy(retries, jitter=False), mode=mode)
    called = online or Online()
    made = Tools(Free(), lambda _: called, clock=lambda: 1.0, sleep=lambda _: None, **tools)  # type: ignore[arg-type]
    run_item(REF, Item("i", 0, {"word": "x"}), step, ledger, "w1", made)
    return ledger.outcomes[REF]


def error(kind: ProviderError) -> Delivered:
    return Delivered.error(TAG, kind)


@pytest.mark.parametrize("mode", ["batch", "auto"])
def test_what_an_upload_brought_is_the_answer_at_its_price(mode: Mode) -> None:
    online = Online()

    outcome = run(GOOD, mode, online)

    assert outcome.output == {"n": 3}
    assert outcome.usage == Usage(1, 10, 5, 10_000)
    assert (outcome.attempts[0].upload, online.requests) == (TAG, [])
    assert Summary.of(outcome).upload_calls == 1
    assert Summary.of(outcome).upload_nusd == 10_000


@pytest.mark.parametrize(
    ("delivered", "kind", "nusd"),
    [
        (error(UploadExpired("late")), "expired", 0),
        (error(BadRequest("no")), "bad_request", 0),
        (error(UnknownModel("gone")), "unknown_model", 0),
        (BAD, "not_json", 10_000),
    ],
)
def test_with_batch_an_item_fails_for_the_reason_of_its_line_and_is_not_called(
    delivered: Delivered, kind: str, nusd: int
) -> None:
    online = Online()

    outcome = run(delivered, "batch", online)

    assert outcome.error is not None
    assert (outcome.error.kind, outcome.usage.cost_nusd) == (kind, nusd)
    assert online.requests == []


def test_with_auto_an_expired_line_goes_online_at_the_price_of_that() -> None:
    outcome = run(error(UploadExpired("late")), "auto")

    assert outcome.output == {"n": 4}
    assert outcome.usage == Usage(1, 10, 5, 20_000)
    assert [one.upload for one in outcome.attempts] == [TAG, ""]
    assert Summary.of(outcome).upload_calls == 0


def test_with_auto_a_wrong_answer_is_asked_again_online_with_what_is_wrong() -> None:
    online = Online()

    outcome = run(BAD, "auto", online)

    assert outcome.is_ok
    assert outcome.usage.cost_nusd == 10_000 + 20_000
    assert [one.role for one in online.requests[0].messages] == ["user", "assistant", "user"]
    assert online.requests[0].messages[1].content == "three"


def test_with_auto_all_tries_are_left_for_the_calls_online() -> None:
    online = Online(failures=1)

    outcome = run(error(UploadExpired("late")), "auto", online, retries=1)

    assert outcome.state is State.OK
    assert len(online.requests) == 2


def test_with_auto_a_line_that_no_try_can_help_fails() -> None:
    online = Online()

    outcome = run(error(BadRequest("no")), "auto", online)

    assert outcome.error is not None
    assert (outcome.error.kind, online.requests) == ("bad_request", [])


def test_the_budget_is_not_asked_for_an_answer_that_its_upload_has_paid() -> None:
    budgets = MemoryBudgets(Budget(tokens=1))

    outcome = run(GOOD, "batch", purse=Purse("r1", "w1", budgets))

    assert outcome.is_ok
    assert budgets.use().spent_tokens == 0


def test_an_answer_that_a_kept_try_has_taken_is_not_taken_again() -> None:
    ledger = MemoryLedger(brought={REF: encode(BAD).decode()})
    step = StepSpec(1, "s", (STAGE,), retry=RetryPolicy(0), mode="auto")
    online = Online()
    tools = Tools(Free(), lambda _: online, clock=lambda: 1.0, sleep=lambda _: None)
    first = run(BAD, "batch").attempts[0]
    tried = [{"number": 1, "started_at": 0.0, "duration_s": 0.0, "upload": first.upload}]
    ledger.checkpoint(REF, "#attempts", tried)

    run_item(REF, Item("i", 0, {"word": "x"}), step, ledger, "w1", tools)

    assert [one.upload for one in ledger.outcomes[REF].attempts] == [TAG, ""]
    assert len(online.requests) == 1
    assert len(online.requests[0].messages) == 1
