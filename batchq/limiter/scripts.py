"""The Lua scripts of the limiter, with the constants that their twins in Python have."""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.resources import files

from batchq.limiter import adaptive, breaker, line

METER_US = 5_000_000.0
"""How quickly the sums of what was granted lately fade."""
OVERLOADED_US = 1_000_000.0
"""How long all stop for an overloaded provider that does not say for how long."""
KEEP_MS = 300_000
SET_BACK_US = 1_000_000.0
"""A last grant that lies so far ahead shows that the server's clock was set back."""

_PARTS = {
    "reserve.lua": ("limits.lua", "adaptive.lua", "breaker.lua", "pacing.lua", "line.lua"),
    "settle.lua": ("limits.lua", "adaptive.lua", "breaker.lua", "pacing.lua"),
    "pause.lua": ("limits.lua",),
    "rescale.lua": ("limits.lua",),
}
"""What each script begins with."""


def script(name: str) -> str:
    """The text of a script: what it shares with others, and its own part, with the constants."""
    body = "".join(_read(one) for one in (*_PARTS[name], name))
    # As numbers in the text: a local variable that functions use costs each call an allocation.
    return re.sub(r"\b[A-Z_]+\b", lambda word: _constants().get(word[0], word[0]), body)


@cache
def _constants() -> dict[str, str]:
    modules = (adaptive, breaker, line, sys.modules[__name__])
    named = {name: value for module in modules for name, value in vars(module).items()}
    return {
        name: f"{value:.17g}" for name, value in named.items() if isinstance(value, int | float)
    }


def _read(name: str) -> str:
    return files("batchq.limiter").joinpath(name).read_text(encoding="utf-8")
