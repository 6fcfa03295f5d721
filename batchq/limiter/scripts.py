"""The Lua scripts of the limiter, with the constants that their twins in Python have."""

from __future__ import annotations

from importlib.resources import files

from batchq.limiter import adaptive, breaker, line

METER_US = 5_000_000.0
"""How quickly the sums of what was granted lately fade."""
OVERLOADED_US = 1_000_000.0
"""How long all stop for an overloaded provider that does not say for how long."""
_KEEP_MS = 300_000
_SET_BACK_US = 1_000_000.0
"""A last grant that lies so far ahead shows that the server's clock was set back."""

_CONSTANTS = {
    "LARGEST": adaptive.LARGEST,
    "FIRST": adaptive.FIRST,
    "DOUBLE_US": adaptive.DOUBLE_US,
    "QUICK_US": adaptive.QUICK_US,
    "PLATEAU_US": adaptive.PLATEAU_US,
    "PLATEAU_CALLS": adaptive.PLATEAU_CALLS,
    "UNSURE_US": adaptive.UNSURE_US,
    "SLOWEST_US": adaptive.SLOWEST_US,
    "HOLD_US": adaptive.HOLD_US,
    "LONGEST_HOLD_US": adaptive.LONGEST_HOLD_US,
    "SLOW_AFTER": breaker.SLOW_AFTER,
    "SLOW_CALLS": breaker.SLOW_CALLS,
    "OPEN_AFTER": breaker.OPEN_AFTER,
    "OPEN_US": breaker.OPEN_US,
    "LONGEST_OPEN_US": breaker.LONGEST_OPEN_US,
    "GRACE_US": line.GRACE_US,
    "LATE_US": line.LATE_US,
    "SOON_US": line.SOON_US,
    "AHEAD_US": line.AHEAD_US,
    "HEADS": line.HEADS,
    "AWAY_SHARE": line.AWAY_SHARE,
    "AWAY_SPACING_US": line.AWAY_SPACING_US,
    "LOOK_US": line.LOOK_US,
    "HOPELESS_US": line.HOPELESS_US,
    "SPACING_MIN_US": line.SPACING_US[0],
    "SPACING_MAX_US": line.SPACING_US[1],
    "METER_US": METER_US,
    "OVERLOADED_US": OVERLOADED_US,
    "KEEP_MS": _KEEP_MS,
    "SET_BACK_US": _SET_BACK_US,
}


_PARTS = {
    "reserve.lua": ("limits.lua", "adaptive.lua", "breaker.lua", "pacing.lua", "line.lua"),
    "settle.lua": ("limits.lua", "adaptive.lua", "breaker.lua", "pacing.lua"),
    "pause.lua": ("limits.lua",),
    "rescale.lua": ("limits.lua",),
}
"""What each script begins with."""


def script(name: str) -> str:
    """The text of a script: the constants, what it shares with others, and its own part."""
    # Lua allows 200 local variables; each constant that a script does not name is left out.
    body = "".join(_read(one) for one in (*_PARTS[name], name))
    used = [f"local {key} = {value:.17g}\n" for key, value in _CONSTANTS.items() if key in body]
    return "".join(used) + body


def _read(name: str) -> str:
    return files("batchq.limiter").joinpath(name).read_text(encoding="utf-8")
