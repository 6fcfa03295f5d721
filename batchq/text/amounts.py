"""Counts, durations, sizes and money, as people write them."""

from __future__ import annotations

LONG_S = 600.0


def count(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun: `1 item`, `1,200 items`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """A duration as people say it: 4.2s, 3m 20s, 2h 05m."""
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"


def seconds_text(seconds: float) -> str:
    """A duration to compare with others: in seconds, a long one in hours and minutes too."""
    text = f"{seconds:.1f}s"
    return text if seconds < LONG_S else f"{text} ({duration(seconds)})"


def size_text(size: float) -> str:
    """An amount of bytes for people."""
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def money(usd: float | None, unpriced_calls: int = 0) -> str:
    """Dollars; says so where calls have no known price."""
    if usd is None:
        return "unknown, no prices"
    text = "$0.00" if usd == 0 else f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}"
    return f"{text} + {count(unpriced_calls, 'unpriced call')}" if unpriced_calls else text
