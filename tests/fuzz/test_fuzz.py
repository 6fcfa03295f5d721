"""What reads text from outside raises what people are meant to see, and nothing else.

A short look by hypothesis; `make fuzz` looks longer, guided by coverage.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FUZZ: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("fuzz.py")))
TARGETS, SEEDS, regressions = FUZZ["TARGETS"], FUZZ["SEEDS"], FUZZ["regressions"]
ROUNDS = {"manifest": 60}


def altered(seeds: list[str]) -> st.SearchStrategy[str]:
    """Any text, and seeds with a part cut out and something else put in."""

    def splice(seed: str, start: int, length: int, between: str) -> str:
        at = start % (len(seed) + 1)
        return seed[:at] + between + seed[at + length :]

    parts = (st.sampled_from(seeds), st.integers(0, 400), st.integers(0, 20))
    return st.one_of(st.text(max_size=200), st.builds(splice, *parts, st.text(max_size=20)))


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_errors_for_people_gets_out_of(target: str) -> None:
    for text in [*regressions(target), *SEEDS[target]]:
        TARGETS[target](text)

    @settings(
        max_examples=ROUNDS.get(target, 300),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(altered(SEEDS[target]))
    def look(text: str) -> None:
        TARGETS[target](text)

    look()
