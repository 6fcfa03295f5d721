"""Refuses, before anything is written, what the processes that a submit starts could not do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchq.errors import ManifestError, Problem, UsageError

if TYPE_CHECKING:
    from batchq.manifest.models import Manifest
    from batchq.plan import Plan


def simulator_problems(manifest: Manifest) -> list[Problem]:
    """Lists the wrong options of the simulators that a manifest describes."""
    from batchq.manifest.loader import problem_at

    problems = []
    for name, provider in manifest.providers.items():
        if not provider.simulator:
            continue
        from batchq.simulator import read_options

        try:
            read_options(provider.simulator)
        except UsageError as error:
            key = ("providers", name, "simulator")
            problems += [problem_at(manifest, key, line) for line in str(error).splitlines()]
    return problems


def require_sound_simulators(manifest: Manifest) -> None:
    """Raises ManifestError with every wrong option of a simulator."""
    if problems := simulator_problems(manifest):
        raise ManifestError(problems)


def require_keys(manifest: Manifest, plan: Plan) -> None:
    """Raises ManifestError if workers that inherit our environment would have no key for a call."""
    from batchq.manifest.loader import check_environment
    from batchq.planning.planner import called_providers

    if problems := check_environment(manifest, only=called_providers(plan.steps)):
        raise ManifestError(problems)
