from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchq.ledger import MemoryBudgets, RedisBudgets, RedisLedger, connect
from batchq.outcome import Usage
from batchq.plan import Budget
from batchq.ports import Budgets, BudgetUse
from batchq.settings import redis_client_url

RUN = "r1"
SLOW_FIXTURE = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)


@dataclass
class World:
    """Budgets, and who is alive."""

    budgets: Budgets
    use: Callable[[], BudgetUse]
    live: Callable[[str], None]

    def spend(self, lease: str, nusd: int, *, estimate: int | None = None) -> None:
        need = Usage(1, 10, 0, nusd if estimate is None else estimate)
        assert self.budgets.reserve(RUN, lease, "w1", need).verdict == "granted"
        self.budgets.settle(RUN, lease, Usage(1, 10, 0, nusd))

    def ask(self, lease: str, nusd: int, tokens: int = 0, owner: str = "w1") -> str:
        return self.budgets.reserve(RUN, lease, owner, Usage(1, tokens, 0, nusd)).verdict


def in_memory(budget: Budget) -> World:
    owners: set[str] = set()
    budgets = MemoryBudgets(budget, owners)
    return World(budgets, budgets.use, owners.add)


def in_redis(client, budget: Budget) -> World:
    client.flushall()
    budgets, ledger = RedisBudgets(client), RedisLedger(client)
    budgets.open(RUN, BudgetUse(budget, "p@v0"))

    def use() -> BudgetUse:
        found = budgets.use(RUN)
        assert found is not None
        return found

    return World(budgets, use, lambda owner: ledger.beat(owner, 60))


@pytest.fixture
def client(redis_url):
    return connect(redis_client_url(redis_url), patience_s=2)


@pytest.fixture(params=["redis", "memory"])
def world(request):
    def make(**limits) -> World:
        budget = Budget(**limits)
        if request.param == "memory":
            made = in_memory(budget)
        else:
            made = in_redis(request.getfixturevalue("client"), budget)
        made.live("w1")
        return made

    return make


def test_what_a_call_holds_becomes_what_it_used(world):
    here = world(nusd=100)

    here.ask("a", 40, tokens=7)
    held = here.use()
    here.budgets.settle(RUN, "a", Usage(1, 5, 2, 15))

    assert (held.held_nusd, held.held_tokens, held.spent_nusd) == (40, 7, 0)
    settled = here.use()
    assert (settled.held_nusd, settled.spent_nusd, settled.spent_tokens) == (0, 15, 7)


def test_a_call_waits_while_only_calls_in_flight_are_in_its_way(world):
    here = world(nusd=100)

    here.ask("a", 60)

    assert here.ask("b", 60) == "wait"
    here.budgets.settle(RUN, "a", Usage())
    assert here.ask("b", 60) == "granted"


def test_a_call_that_fits_no_more_is_told_so_with_the_amounts(world):
    here = world(nusd=100)
    here.spend("a", 70)

    refused = here.budgets.reserve(RUN, "b", "w1", Usage(1, 0, 0, 31))

    assert refused.verdict == "used up"
    assert (refused.use.spent_nusd, refused.need.cost_nusd) == (70, 31)
    assert here.ask("c", 30) == "granted"


def test_a_call_that_is_larger_than_the_whole_budget_is_refused_at_once(world):
    assert world(nusd=100).ask("a", 101) == "used up"


def test_tokens_are_bounded_beside_money_and_neither_side_is_held_alone(world):
    here = world(nusd=100, tokens=10)

    assert here.ask("a", 1, tokens=11) == "used up"
    assert (here.use().held_nusd, here.use().held_tokens) == (0, 0)
    assert here.ask("b", 1, tokens=10) == "granted"


def test_a_side_without_a_bound_takes_any_amount(world):
    assert world(tokens=10).ask("a", 10**15, tokens=10) == "granted"


def test_settling_twice_pays_once(world):
    here = world(nusd=100)
    here.ask("a", 10)

    for _ in range(2):
        here.budgets.settle(RUN, "a", Usage(1, 0, 0, 10))

    assert here.use().spent_nusd == 10


def test_reserving_twice_holds_once(world):
    here = world(nusd=100)

    assert [here.ask("a", 60), here.ask("a", 60)] == ["granted", "granted"]

    assert here.use().held_nusd == 60


def test_what_a_dead_process_holds_is_given_back_when_it_is_needed(world):
    here = world(nusd=100)
    here.ask("a", 60, owner="dead")

    assert here.ask("b", 60) == "granted"
    assert here.use().held_nusd == 60


def test_a_process_that_was_thought_dead_still_pays_what_it_used(world):
    here = world(nusd=100)
    here.ask("a", 60, owner="dead")
    here.ask("b", 60)

    here.budgets.settle(RUN, "a", Usage(1, 0, 0, 25))

    assert (here.use().spent_nusd, here.use().held_nusd) == (25, 60)


def test_estimates_grow_by_what_calls_really_used(world):
    here = world(nusd=1000)
    here.spend("a", 300, estimate=100)

    assert here.ask("b", 234) == "used up"
    assert here.ask("c", 233) == "granted"
    assert here.use().held_nusd == 699


def test_estimates_do_not_shrink_below_what_is_asked_for(world):
    here = world(nusd=1000)
    here.spend("a", 10, estimate=500)

    here.ask("b", 400)

    assert here.use().held_nusd == 400


AMOUNT = st.integers(0, 60)
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 5), AMOUNT, AMOUNT),
        st.tuples(st.just("settle"), st.integers(0, 5), AMOUNT, AMOUNT),
    ),
    max_size=40,
)


def play(here: World, moves) -> list[str]:
    """Makes the moves, and checks after each that no more is granted than there is."""
    seen = []
    for move, number, nusd, tokens in moves:
        before = here.use()
        if move == "settle":
            here.budgets.settle(RUN, str(number), Usage(1, tokens, 0, nusd))
            continue
        seen.append(here.ask(str(number), nusd, tokens))
        use = here.use()
        assert (use.spent_nusd, use.spent_tokens) == (before.spent_nusd, before.spent_tokens)
        if seen[-1] == "granted":
            assert use.spent_nusd + use.held_nusd <= 100
            assert use.spent_tokens + use.held_tokens <= 120
    return seen


@given(moves=MOVES)
def test_no_more_is_granted_in_memory_than_there_is(moves):
    here = in_memory(Budget(nusd=100, tokens=120))
    here.live("w1")

    play(here, moves)


@SLOW_FIXTURE
@given(moves=MOVES)
def test_no_more_is_granted_on_redis_than_there_is_and_as_in_memory(client, moves):
    budget = Budget(nusd=100, tokens=120)
    there, here = in_redis(client, budget), in_memory(budget)
    for world in (there, here):
        world.live("w1")

    assert play(there, moves) == play(here, moves)
    assert (there.use().spent_nusd, there.use().held_nusd) == (
        here.use().spent_nusd,
        here.use().held_nusd,
    )


def test_opening_a_budget_again_keeps_what_was_spent_and_raises_the_limit(client):
    here = in_redis(client, Budget(nusd=100))
    here.live("w1")
    here.spend("a", 90)
    budgets = RedisBudgets(client)

    budgets.open(RUN, BudgetUse(Budget(nusd=200, on_exceeded="fail"), "p@v0", spent_nusd=50))

    use = here.use()
    assert (use.budget.nusd, use.budget.on_exceeded, use.spent_nusd) == (200, "fail", 90)


def test_what_the_run_folder_knows_is_spent_where_redis_has_forgotten_it(client):
    budgets = RedisBudgets(client)

    budgets.open(RUN, BudgetUse(Budget(tokens=100), "p@v0", spent_nusd=50, spent_tokens=70))

    use = budgets.use(RUN)
    assert use is not None
    assert (use.spent_nusd, use.spent_tokens, use.name) == (50, 70, "p@v0")


def test_a_private_redis_holds_nothing_for_processes_that_are_gone(client):
    here = in_redis(client, Budget(nusd=100))
    here.live("w1")
    here.ask("a", 90)

    RedisBudgets(client).open(RUN, BudgetUse(Budget(nusd=100), "p@v0"), is_private=True)

    assert here.use().held_nusd == 0


def test_a_run_without_a_budget_has_none(client):
    assert RedisBudgets(client).use("another") is None


def test_large_amounts_are_added_exactly(client):
    here = in_redis(client, Budget(nusd=10**15, tokens=10**15))
    here.live("w1")

    here.ask("a", 999_999_999_999_999, tokens=10**15)
    here.budgets.settle(RUN, "a", Usage(1, 10**15 - 1, 0, 999_999_999_999_998))

    use = here.use()
    assert (use.spent_nusd, use.spent_tokens) == (999_999_999_999_998, 10**15 - 1)
    assert (use.held_nusd, use.held_tokens) == (0, 0)
