"""What calls cost: prices by model, and usage with its money filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from batchq.outcome import Usage
from batchq.plan import Prices

FREE = Prices(0.0, 0.0)

PriceTable = Mapping[str, Mapping[str, Any]]
"""`{"openai/gpt-4o": {"input_per_1m": 2.5, "output_per_1m": 10.0}}`."""

_CHARACTERS_PER_TOKEN = 4
_NUSD_PER_MICRO_USD = 1000  # dollars for a million tokens are micro-dollars for one


@cache
def price_table() -> PriceTable:
    """Reads the list prices that ship with batchq (`prices.yaml` beside this module)."""
    from ruamel.yaml import YAML  # only planning needs it; `batchq --help` does not

    text = files("batchq").joinpath("prices.yaml").read_text(encoding="utf-8")
    table: PriceTable = YAML(typ="safe", pure=True).load(text)
    return table


def find_prices(kind: str, model: str, table: PriceTable) -> Prices | None:
    """Looks up the prices of exactly this model; None if nobody knows them.

    The simulator is free unless the table says otherwise.
    """
    row = table.get(f"{kind}/{model}")
    if row is None:
        return FREE if kind == "simulator" else None
    return Prices(float(row["input_per_1m"]), float(row["output_per_1m"]))


def cost(usage: Usage, prices: Prices | None) -> Usage:
    """Fills in what `usage` cost, rounded to whole nano-dollars, or counts its calls as unpriced.

    Calls for which the server reported no tokens are unpriced as well, unless tokens are free.
    """
    if prices is None:
        return replace(usage, cost_nusd=0, unpriced_calls=usage.calls)
    is_metered = usage.input_tokens > 0 or usage.output_tokens > 0
    if not is_metered and prices != FREE:
        return replace(usage, cost_nusd=0, unpriced_calls=usage.calls)
    micro_usd = _exact(prices.input_per_1m) * usage.input_tokens
    micro_usd += _exact(prices.output_per_1m) * usage.output_tokens
    return replace(usage, cost_nusd=round(micro_usd * _NUSD_PER_MICRO_USD), unpriced_calls=0)


def estimate_tokens(text: str) -> int:
    """Estimates the tokens of a text without a tokenizer: one for four characters, rounded up.

    English prose comes out right within about 15 %; code and other scripts take more tokens than
    this, so limits are corrected with the real usage after each call.
    """
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def _exact(price: float) -> Decimal:
    return Decimal(str(price))  # 0.15 as it was written, not its binary neighbour
