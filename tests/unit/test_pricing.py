from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.outcome import Usage
from batchq.plan import Prices
from batchq.pricing import FREE, cost, estimate_tokens, find_prices, price_table

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


def test_the_simulator_is_free():
    assert find_prices("simulator", "any", price_table()) == FREE


def test_the_packaged_prices_are_found_by_exact_model_only():
    assert find_prices("openai", "gpt-4o-mini", price_table()) == Prices(0.15, 0.60)
    assert find_prices("openai", "gpt-4o-mini-2099", price_table()) is None
    assert find_prices("anthropic", "gpt-4o-mini", price_table()) is None


def test_every_packaged_price_reads_as_two_numbers():
    for name in price_table():
        kind, _, model = name.partition("/")
        prices = find_prices(kind, model, price_table())

        assert prices is not None
        assert 0 < prices.input_per_1m < prices.output_per_1m


@pytest.mark.parametrize(("text", "expected"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2)])
def test_tokens_are_estimated_at_four_characters_each(text, expected):
    assert estimate_tokens(text) == expected
