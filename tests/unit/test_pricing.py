from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.endpoint import Prices
from batchq.outcome import Usage
from batchq.planning.pricing import FREE, cost, estimate_tokens, find_prices

tokens = st.integers(0, 10**9)


def test_cost_is_exact_in_nano_dollars():
    priced = cost(Usage(calls=1, input_tokens=3, output_tokens=1), Prices(0.15, 0.60))

    assert priced.cost_nusd == 3 * 150 + 600
    assert priced.unpriced_calls == 0


def test_calls_without_prices_are_counted_not_guessed():
    priced = cost(Usage(calls=2, input_tokens=3, output_tokens=1), None)

    assert (priced.cost_nusd, priced.unpriced_calls) == (0, 2)


def test_a_call_whose_tokens_nobody_reported_has_no_known_price():
    assert cost(Usage(calls=1), Prices(1, 1)).unpriced_calls == 1
    assert cost(Usage(calls=1), FREE).unpriced_calls == 0


@given(tokens, tokens)
def test_pricing_twice_changes_nothing(input_tokens, output_tokens):
    once = cost(Usage(1, input_tokens, output_tokens), Prices(0.27, 1.1))

    assert cost(once, Prices(0.27, 1.1)) == once


@given(tokens, tokens, tokens, tokens)
def test_the_parts_cost_what_the_whole_costs_up_to_rounding(a, b, c, d):
    prices = Prices(0.1234567, 7.0000001)

    parts = cost(Usage(1, a, b), prices) + cost(Usage(1, c, d), prices)
    whole = cost(Usage(1, a, b) + Usage(1, c, d), prices)

    if not parts.unpriced_calls:
        assert abs(parts.cost_nusd - whole.cost_nusd) <= 1


OPENAI = "https://api.openai.com/v1"


def test_the_simulator_is_free():
    assert find_prices({}, "sim", "simulator", "", "any") == FREE


def test_list_prices_are_those_of_exactly_this_model_at_this_address():
    assert find_prices({}, "mine", "openai", OPENAI, "gpt-4o-mini") == Prices(0.15, 0.60)
    assert find_prices({}, "mine", "openai", OPENAI, "gpt-4o-mini-2099") is None
    assert find_prices({}, "mine", "openai", "http://127.0.0.1:1/v1", "gpt-4o-mini") is None
    assert find_prices({}, "mine", "openai", "", "gpt-4o-mini") is None


def test_list_prices_of_a_vendor_that_speaks_like_openai_are_its_own():
    prices = find_prices({}, "d", "openai", "https://api.deepseek.com", "deepseek-chat")

    assert prices is not None
    assert 0 < prices.input_per_1m < prices.output_per_1m


def test_the_prices_of_a_project_come_before_list_prices_and_by_name_before_kind():
    table = {"mine/gpt-4o-mini": Prices(1, 2), "openai/gpt-4o-mini": Prices(3, 4)}

    assert find_prices(table, "mine", "openai", OPENAI, "gpt-4o-mini") == Prices(1, 2)
    assert find_prices(table, "other", "openai", OPENAI, "gpt-4o-mini") == Prices(3, 4)
    assert find_prices({"s/x": Prices(5, 6)}, "s", "simulator", "", "x") == Prices(5, 6)


def test_a_model_with_tiers_has_the_prices_of_short_prompts():
    url = "https://api.anthropic.com"

    prices = find_prices({}, "a", "anthropic", url, "claude-sonnet-4-5-20250929")

    assert prices == Prices(3, 15)


@pytest.mark.parametrize(("text", "expected"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2)])
def test_tokens_are_estimated_at_four_characters_each(text, expected):
    assert estimate_tokens(text) == expected
