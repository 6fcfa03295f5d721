"""Submits a manifest round after round."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchq.actions.exits import EXIT_ITEMS_FAILED, EXIT_OK, EXIT_PAUSED
from batchq.cli.following import Following
from batchq.cli.output import say
from batchq.cli.request import load_request
from batchq.errors import UsageError
from batchq.manifest.rounds import ROUND, bounds_left, rounds_left
from batchq.outcome import Usage

if TYPE_CHECKING:
    from batchq.actions.wishes import Driven
    from batchq.manifest.models import Manifest

Run = Callable[["Manifest", Following], "Driven"]


def submit_rounds(
    file: Path, first: Manifest, following: Following, choices: dict[str, Any], run: Run
) -> int:
    """Runs each round that is left as a version of its own; a round that stops ends them.

    Each is loaded and planned when it begins, so that it sees what the one before it left. The
    budget and the timeout are those of all rounds together.
    """
    if following.detach:
        raise UsageError(
            "a round begins when the one before it is done, so somebody has to wait for it: leave "
            "out --detach"
        )
    rounds = rounds_left(first)
    spent, worst, manifest = Usage(), EXIT_OK, first
    ends_at = None if following.timeout is None else time.monotonic() + following.timeout
    for number in rounds:
        if number > rounds.start:
            left = bounds_left(first, spent)
            if left is None:
                go_on = _command(file, choices, number)
                say(f"the budget is used up; with another one, {go_on} runs the other rounds")
                return EXIT_PAUSED
            params = (*choices["params"], (ROUND, str(number)))
            own = {"params": params, "max_cost": left[0], "max_tokens": left[1]}
            manifest = load_request(file, **{**choices, **own})
        if ends_at is not None:
            following = replace(following, timeout=max(1.0, ends_at - time.monotonic()))
        say(f"round {number} of {rounds[-1]}")
        driven = run(manifest, following)
        assert driven.ended is not None  # it is not detached
        code = driven.ended.code
        if code not in (EXIT_OK, EXIT_ITEMS_FAILED):
            if number < rounds[-1]:
                others = _command(file, choices, number + 1)
                say(f"this was round {number} of {rounds[-1]}; {others} runs those after it")
            return code
        worst = max(worst, code)
        spent += driven.ended.progress.summary.usage
    return worst


def _command(file: Path, choices: dict[str, Any], number: int) -> str:
    """What goes on with a round, with the params of this submit."""
    params = {**dict(choices["params"]), ROUND: str(number)}
    words = [word for name, value in params.items() for word in ("-p", f"{name}={value}")]
    return f"`{shlex.join(['batchq', 'submit', str(file), *words])}`"
