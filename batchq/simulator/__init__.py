"""An HTTP server that stands in for paid providers."""

from __future__ import annotations

# `serve` is in .server: who only checks options need not load what answers them.
from batchq.simulator.options import SimulatorOptions, read_options

__all__ = ["SimulatorOptions", "read_options"]
