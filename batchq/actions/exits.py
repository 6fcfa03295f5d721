"""How a run ended, as the exit code of a process."""

from __future__ import annotations

from batchq.progress import Progress, RunState

INTERRUPTED = "interrupted"
"""The reason of a pause that a Ctrl-C asked for."""

EXIT_OK = 0
EXIT_ITEMS_FAILED = 3
EXIT_RUN_FAILED = 4
EXIT_PAUSED = 5
EXIT_TIMED_OUT = 124
EXIT_INTERRUPTED = 130


def exit_code(progress: Progress) -> int:
    """The exit code of a run that is over."""
    if progress.state is RunState.COMPLETED:
        return EXIT_ITEMS_FAILED if progress.summary.failed else EXIT_OK
    if progress.state is RunState.FAILED:
        return EXIT_RUN_FAILED
    if progress.state is RunState.PAUSED and progress.reason != INTERRUPTED:
        return EXIT_PAUSED
    return EXIT_INTERRUPTED
