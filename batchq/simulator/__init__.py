"""An HTTP server that stands in for paid providers."""

from __future__ import annotations

from batchq.simulator.options import SimulatorOptions, read_options
from batchq.simulator.server import serve

__all__ = ["SimulatorOptions", "read_options", "serve"]
