"""What calls cost: prices by model, and usage with its money filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from importlib.util import find_spec
from urllib.parse import urlsplit

from batchq.endpoint import Prices
from batchq.outcome import Usage

FREE = Prices(0.0, 0.0)

PriceTable = Mapping[str, Prices]
"""By `provider/model`, the provider by its name in the manifest or by its kind."""

_CHARACTERS_PER_TOKEN = 4
_NUSD_PER_MICRO_USD = 1000  # dollars for a million tokens are micro-dollars for one


def find_prices(
    table: PriceTable, name: str, kind: str, base_url: str, model: str
) -> Prices | None:
    """Looks up the prices of exactly this model at this address; None if nobody knows them.

    The table of the user's project comes first, by the provider's name and then by its kind; then
    the price library, by the address. The simulator is free unless the table says otherwise.
    """
    for key in (f"{name}/{model}", f"{kind}/{model}"):
        if key in table:
            return table[key]
    return FREE if kind == "simulator" else _list_prices(base_url, model)


def upload_share(kind: str, base_url: str) -> float | None:
    """The share of its prices that a vendor is known to ask for calls in uploads."""
    host = urlsplit(base_url).hostname or ""
    is_known = kind == "simulator" or host in ("api.openai.com", "api.anthropic.com")
    return 0.5 if is_known else None


def upload_prices(prices: Prices | None) -> Prices | None:
    """What calls in uploads cost; None if nobody knows."""
    if prices is None or prices == FREE:
        return prices
    if prices.batch is None:
        return None
    amounts = (prices.input_per_1m, prices.output_per_1m)
    return Prices(*(float(_exact(amount) * _exact(prices.batch)) for amount in amounts))


def has_list_prices() -> bool:
    """Whether the price library is installed."""
    return find_spec("genai_prices") is not None


def _list_prices(base_url: str, model: str) -> Prices | None:
    """What the vendor asks, by the data that the price library was released with.

    The same model costs something else at another vendor, so an address that the library does not
    know has no prices. Where long prompts cost more, these are the prices of short ones.
    """
    if not base_url or not has_list_prices():
        return None
    from genai_prices.data_snapshot import get_snapshot  # takes 400 ms

    try:
        _, found = get_snapshot().find_provider_model(model, None, None, base_url)
    except LookupError:
        return None
    prices = found.get_prices(datetime.now(UTC)).__dict__
    first: list[float] = []
    for key in ("input_mtok", "output_mtok"):
        amount = prices.get(key)
        if amount is None:
            return None
        first.append(float(getattr(amount, "base", amount)))
    return Prices(*first)


def cost(usage: Usage, prices: Prices | None) -> Usage:
    """Fills in what `usage` cost, rounded to whole nano-dollars, or counts its calls as unpriced.

    Calls for which the server reported no tokens are unpriced as well, unless tokens are free.
    """
    if prices is None:
        return replace(usage, cost_nusd=0, unpriced_calls=usage.calls)
    is_metered = usage.input_tokens > 0 or usage.output_tokens > 0
    if not is_metered and (prices.input_per_1m or prices.output_per_1m):
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
