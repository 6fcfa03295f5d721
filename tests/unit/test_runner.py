from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from batchq.endpoint import Prices, ProviderSpec
from batchq.engine.losses import MAX_STARTS
from batchq.engine.runner import Receipt, run_item
from batchq.engine.stages import Tools
from batchq.errors import AuthFailed, BadRequest, RateLimited, ServerFailed, UnknownModel
from batchq.ledger import MemoryLedger
from batchq.outcome import State, Usage
from batchq.plan import Item, RetryPolicy, StageSpec, StepSpec
from batchq.ports import ChatReply, ChatRequest, Claim, Feedback, Grant, ItemRef, Verdict

PROVIDER = ProviderSpec("p", "openai", "http://unused", "m", prices=Prices(1.0, 2.0))
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
ITEM = Item("i1", 0, {"word": "Ü", "type": "number"})
REF = ItemRef("r1", 1, 0, 0)


@dataclass
class Scripted:
    """A provider that gives what it is told, and remembers what it was asked."""

    answers: list[str | Exception]
    requests: list[ChatRequest] = field(default_factory=list)

    def call(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return ChatReply(answer, "m-1", Usage(1, 10, 5))


@dataclass
class OpenLimiter:
    """Lets everything through, after the waits it is told; remembers pauses and settlements."""

    waits: list[float] = field(default_factory=list)
    paused: list[float] = field(default_factory=list)
    settled: list[tuple[int, int]] = field(default_factory=list)
    told: list[Feedback] = field(default_factory=list)
    is_probing: bool = False
    outage_s: float = 0.0

    def reserve(self, asked) -> Grant:
        if self.waits:
            return Grant(self.waits.pop(0), "rpm")
        return Grant(0, is_probe=self.is_probing)

    def settle(self, asked, used, feedback) -> float:
        self.settled.append((asked.tokens, used))
        self.told.append(feedback)
        return self.outage_s

    def pause(self, provider: ProviderSpec, seconds: float) -> None:
        self.paused.append(seconds)


@dataclass
class World:
    """A runner's surroundings with a clock that only sleeping moves."""

    provider: Scripted
    limiter: OpenLimiter = field(default_factory=OpenLimiter)
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    tasks: tuple[str, ...] = ()
    now: float = 1000.0
    on_sleep: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()

    def run(self, step: StepSpec, item: Item = ITEM) -> Receipt:
        tools = Tools(
            self.limiter, lambda _: self.provider, self.tasks, lambda: self.now, self.sleep
        )
        return run_item(REF, item, step, self.ledger, "w1", tools)

    @property
    def outcome(self):
        return self.ledger.outcomes[REF]


def prompt(name: str = "", **changes) -> StageSpec:
    stage = StageSpec(name, "prompt", prompt="Count {word}", provider=PROVIDER)
    return replace(stage, output_schema=SCHEMA, **changes)


def step(*stages: StageSpec, **changes) -> StepSpec:
    policy = RetryPolicy(max_retries=2, jitter=False, base_s=2)
    return StepSpec(1, "count", stages, retry=policy, **changes)


def world(*answers: str | Exception) -> World:
    return World(Scripted(list(answers)))


def test_an_item_is_rendered_called_parsed_and_kept_with_its_price():
    here = world('{"n": 3}')

    receipt = here.run(step(prompt()))

    assert receipt == Receipt(Claim.RUN, is_ok=True)
    assert here.outcome.output == {"n": 3}
    assert here.outcome.usage == Usage(1, 10, 5, 20_000)
    assert here.outcome.prompts[0].text == "Count Ü"
    assert here.outcome.attempts[0].model == "m-1"


def test_a_server_error_is_tried_again_after_a_wait_and_counted():
    here = world(ServerFailed("boom"), '{"n": 3}')

    here.run(step(prompt()))

    assert here.outcome.state is State.OK
    assert here.outcome.retries == 1
    assert here.outcome.attempts[0].error.kind == "server"
    assert here.now == 1002.0


def test_an_item_fails_with_its_reason_when_the_retries_are_used_up():
    here = world(*[ServerFailed("boom")] * 3)

    receipt = here.run(step(prompt()))

    assert not receipt.is_ok
    assert here.outcome.error.kind == "server"
    assert len(here.outcome.attempts) == 3


def test_a_request_that_can_never_work_is_not_tried_again():
    here = world(BadRequest("unknown model"))

    here.run(step(prompt()))

    assert len(here.outcome.attempts) == 1
    assert here.outcome.error.kind == "bad_request"


def test_a_wrong_answer_is_asked_again_with_the_words_of_the_validator_and_both_are_paid():
    here = world('{"n": "three"}', '{"n": 3}')

    here.run(step(prompt()))

    again = here.provider.requests[1].messages
    assert [message.role for message in again] == ["user", "assistant", "user"]
    assert "'three' is not of type 'integer'" in again[2].content
    assert here.outcome.usage.calls == 2
    assert here.outcome.output == {"n": 3}


def test_a_failed_item_keeps_the_answer_that_could_not_be_used():
    here = world(*["no json at all"] * 3)

    here.run(step(prompt()))

    assert here.outcome.error.kind == "not_json"
    assert here.outcome.raw == "no json at all"


def test_a_rate_limit_pauses_the_provider_for_all_hosts():
    here = world(RateLimited("slow down", retry_after_s=7), '{"n": 3}')

    here.run(step(prompt()))

    assert here.limiter.told[0] == Feedback(Verdict.REFUSED, retry_after_s=7)
    assert here.now >= 1007


def test_waiting_for_the_limiter_is_not_an_attempt():
    here = world('{"n": 3}')
    here.limiter.waits = [0.5, 0.25]

    here.run(step(prompt()))

    assert len(here.outcome.attempts) == 1
    assert here.outcome.attempts[0].waited_s == 0.75


def test_reserved_tokens_are_settled_with_those_used_and_returned_after_an_error():
    limited = replace(PROVIDER)
    here = world(ServerFailed("boom"), '{"n": 3}')

    here.run(step(prompt(provider=limited)))

    assert [used for _, used in here.limiter.settled] == [0, 15]


def test_a_bad_key_halts_the_run_and_leaves_the_item_undone():
    here = world(AuthFailed("401: no such key"))

    receipt = here.run(step(prompt()))

    assert receipt.claim is Claim.STOPPED
    assert "401" in receipt.halt
    assert here.ledger.outcomes == {}
    assert here.ledger.claim(REF, "w2").claim is Claim.RUN


def test_an_item_that_waits_steps_back_when_its_run_is_paused():
    here = world(ServerFailed("boom"))
    here.on_sleep = lambda: setattr(here.ledger, "running", False)

    receipt = here.run(step(prompt()))

    assert receipt == Receipt(Claim.STOPPED)
    assert here.ledger.outcomes == {}


def test_stages_walk_on_with_what_the_stages_before_gave():
    here = world('{"n": 3}', '{"n": 4}')
    second = prompt("second", prompt="{n} {first__n} {word}")

    here.run(step(prompt("first"), second))

    assert here.provider.requests[1].messages[0].content == "3 3 Ü"
    assert here.outcome.output == {"first": {"n": 3}, "n": 4, "second": {"n": 4}}


def test_a_stage_whose_condition_does_not_hold_is_left_out():
    here = world('{"n": 3}')

    here.run(step(prompt("first"), prompt("review", when="type == 'boolean'")))

    assert here.outcome.output == {"first": {"n": 3}, "n": 3}
    assert len(here.provider.requests) == 1


def test_a_paid_stage_is_not_paid_again_after_its_process_died():
    here = world('{"n": 4}')
    here.ledger.claim(REF, "dead")
    here.ledger.checkpoint(REF, "first", {"n": 3})

    here.run(step(prompt("first"), prompt("second", prompt="{n}")))

    assert [request.messages[0].content for request in here.provider.requests] == ["3"]
    assert here.outcome.output["n"] == 4


def test_an_item_that_kills_its_process_every_time_is_given_up():
    here = world()
    for _ in range(MAX_STARTS):
        here.ledger.claim(REF, "dead")

    here.run(step(prompt()))

    assert here.outcome.error.kind == "worker_lost"


def test_a_field_that_the_item_does_not_have_fails_it_without_a_call():
    here = world()

    here.run(step(prompt(prompt="{wrod}")))

    assert here.outcome.error.kind == "prompt"
    assert "word" in here.outcome.error.message
    assert here.provider.requests == []


def test_prompts_are_left_out_when_the_step_says_so():
    here = world('{"n": 3}')

    here.run(step(prompt(), save_prompts=False))

    assert here.outcome.prompts == ()


@pytest.fixture
def user_module(tmp_path, monkeypatch) -> Iterator[None]:
    source = """
        import sys
        def double(item): return {"n": item["word"] * 2}
        def told(item, params, context): return [params["x"], context.item_id, context.attempt]
        def fails(item): raise KeyError("nope")
        def leaves(item): sys.exit(3)
        def odd(item): return {1, 2}
        def nan(item): return float("nan")
    """
    (tmp_path / "my_tasks.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_tasks", None)


def task(name: str) -> StageSpec:
    return StageSpec("", "task", task=f"my_tasks:{name}")


@pytest.mark.parametrize(
    ("name", "output"), [("double", {"n": "ÜÜ"}), ("told", [5, "i1", 1])], ids=["item", "all"]
)
@pytest.mark.usefixtures("user_module")
def test_a_function_is_given_as_much_as_it_takes(name, output):
    here = world()
    here.tasks = ("my_tasks",)

    here.run(step(task(name), params={"x": 5}))

    assert here.outcome.output == output


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("fails", "task", "KeyError: 'nope'"),
        ("leaves", "task", "sys.exit(3)"),
        ("odd", "not_serializable", "set is not JSON serializable"),
        ("nan", "not_serializable", "not JSON compliant"),
        ("missing", "task_not_found", "missing"),
    ],
)
@pytest.mark.usefixtures("user_module")
def test_what_a_function_does_wrong_is_data_about_its_item(name, kind, words):
    here = world()
    here.tasks = ("my_*",)

    here.run(step(task(name)))

    assert here.outcome.error.kind == kind
    assert words in here.outcome.error.message


@pytest.mark.usefixtures("user_module")
def test_a_module_that_the_worker_does_not_allow_is_not_imported():
    here = world()

    here.run(step(task("double")))

    assert here.outcome.error.kind == "task_not_allowed"
    assert "BATCHQ_TASKS" in here.outcome.error.message
    assert "my_tasks" not in sys.modules


def command(*parts: str) -> StageSpec:
    return StageSpec("", "command", command=parts)


def test_a_program_is_run_without_a_shell_and_its_output_is_read():
    here = world()

    here.run(step(command(sys.executable, "-c", "import sys; print(sys.argv[1:])", "{word}; ls")))

    assert here.outcome.output == "['Ü; ls']"


def test_a_program_that_fails_tells_why():
    here = world()

    here.run(step(command(sys.executable, "-c", "import sys; sys.exit('no way')")))

    assert here.outcome.error.kind == "command"
    assert here.outcome.error.message.endswith("ended with status 1: no way")


def test_a_program_that_is_not_there_says_so():
    here = world()

    here.run(step(command("no-such-program-here")))

    assert "cannot run no-such-program-here" in here.outcome.error.message


def test_a_program_is_stopped_at_the_timeout():
    here = world()
    endless = command(sys.executable, "-c", "while True: pass")

    here.run(step(endless, timeout_s=0.2))

    assert here.outcome.error.kind == "timeout"


def patient(here: World) -> Tools:
    return Tools(
        here.limiter, lambda _: here.provider, (), lambda: here.now, here.sleep, patience_s=3
    )


def test_an_item_that_has_to_wait_for_long_gives_its_slot_away_unharmed():
    here = world('{"n": 3}')
    here.limiter.waits = [40.0]

    receipt = run_item(REF, ITEM, step(prompt()), here.ledger, "w1", patient(here))
    again = run_item(REF, ITEM, step(prompt()), here.ledger, "w2", patient(here))

    assert (receipt.claim, receipt.again_s) == (Claim.HELD, 40.0)
    assert here.now == 1000.0
    assert again.is_ok
    assert len(here.outcome.attempts) == 1
    assert here.ledger.claim(REF, "w3").claim is Claim.DONE


def test_what_was_tried_before_an_item_gave_its_slot_away_counts_on():
    here = world(*[RateLimited("slow down", retry_after_s=60)] * 3)

    receipts = [
        run_item(REF, ITEM, step(prompt()), here.ledger, "w1", patient(here)) for _ in range(3)
    ]

    assert [receipt.again_s > 0 for receipt in receipts] == [True, True, False]
    assert len(here.outcome.attempts) == 3
    assert here.outcome.error.kind == "rate_limit"


def test_giving_the_slot_away_is_no_start_that_died():
    here = world('{"n": 3}')
    here.limiter.waits = [40.0] * (2 * MAX_STARTS)

    for _ in range(2 * MAX_STARTS + 1):
        run_item(REF, ITEM, step(prompt()), here.ledger, "w1", patient(here))

    assert here.outcome.state is State.OK


def test_a_call_that_tries_whether_an_outage_is_over_is_not_held_against_its_item():
    here = world(*[ServerFailed("boom", status=500)] * 6, '{"n": 3}')
    here.limiter.is_probing, here.limiter.outage_s = True, 10.0

    here.run(step(prompt()))

    assert here.outcome.state is State.OK


def test_a_provider_that_does_not_come_back_halts_the_run():
    here = world(ServerFailed("boom", status=500))
    here.limiter.is_probing, here.limiter.outage_s = True, 301.0

    receipt = here.run(step(prompt()))

    assert receipt.claim is Claim.STOPPED
    assert "nobody has had an answer for 5m" in receipt.halt


def test_an_unknown_model_halts_the_run():
    here = world(UnknownModel("provider p answered 404: no such model"))

    assert "no such model" in here.run(step(prompt())).halt
