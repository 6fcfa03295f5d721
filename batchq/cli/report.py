"""How commands show a run, and tell its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchq.actions.wishes import Wishes
from batchq.cli.output import put, put_json, say

if TYPE_CHECKING:
    from batchq.actions.follow import Ended
    from batchq.actions.views import View
    from batchq.ports import RunInfo


def wishes_of(
    concurrency: int | None = None,
    workers: int | None = None,
    *,
    detach: bool = False,
    quiet: bool = False,
    as_json: bool = False,
    timeout_s: float | None = None,
) -> Wishes:
    """The wishes of somebody at a command line."""

    def view() -> View:
        from batchq.cli.display import make_view  # when it is shown: workers start meanwhile

        return make_view(quiet=quiet)

    return Wishes(
        make_view=view,
        report=lambda ended: put_end(ended, as_json=as_json),
        concurrency=concurrency,
        workers=workers,
        detach=detach,
        timeout_s=timeout_s,
    )


def put_end(ended: Ended, *, as_json: bool) -> None:
    """Says how a run ended."""
    from batchq.cli import summary

    if as_json:
        put_json({**summary.as_json(ended.progress), "exit_code": ended.code})
        return
    for line in summary.summary_lines(ended.progress):
        put(line)


def put_queued(info: RunInfo, *, as_json: bool) -> None:
    """Says which run was left to others."""
    name = f"{info.pipeline}@{info.version}"
    if as_json:
        put_json({"run": info.run, "pipeline": info.pipeline, "version": info.version})
        return
    put(name)
    say(f"Queued. Follow it with `batchq watch {name}`")
