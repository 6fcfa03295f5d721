"""What somebody is told of a run: when, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchq.engine.budget import is_used_up
from batchq.plan import Event, Hook
from batchq.ports import RunInfo
from batchq.progress import RunState
from batchq.records import RunRecord
from batchq.text.amounts import count, duration, money

VERSION = 1
_STATES: Mapping[RunState, Event] = {
    RunState.COMPLETED: "finished",
    RunState.FAILED: "failed",
    RunState.PAUSED: "paused",
}


def event_for(hook: Hook, state: RunState, reason: str) -> Event | None:
    """Which of a hook's events this is, if any. Who hears of pauses hears of those by a budget."""
    happened = _STATES.get(state)
    if happened is None:
        return None
    if is_used_up(reason) and "budget" in hook.on:
        return "budget"
    return happened if happened in hook.on else None


def notice(
    info: RunInfo, record: RunRecord, reason: str, event: Event, name: str
) -> dict[str, Any]:
    """A notice as JSON; `name` is one of its own, by which a receiver knows it again."""
    summary = record.summary
    return {
        "v": VERSION,
        "id": name,
        "event": event,
        "run": info.run,
        "name": f"{info.pipeline}@{info.version}",
        "pipeline": info.pipeline,
        "version": info.version,
        "state": record.state.value,
        "reason": reason,
        "items": record.items,
        "ok": summary.ok,
        "failed": summary.failed,
        "calls": summary.usage.calls,
        "input_tokens": summary.usage.input_tokens,
        "output_tokens": summary.usage.output_tokens,
        "cost_usd": summary.usage.cost_usd,
        "unpriced_calls": summary.usage.unpriced_calls,
        "duration_s": record.duration_s,
        "folder": info.folder,
        "at": record.ended_at,
    }


def slack_message(told: Mapping[str, Any]) -> dict[str, str]:
    """The same for Slack, in two lines at most."""
    words = [f"{told['ok']:,} ok", f"{told['failed']:,} failed"]
    if told["cost_usd"]:
        words.append(money(told["cost_usd"]))
    if told["unpriced_calls"]:
        words.append(f"{count(told['unpriced_calls'], 'call')} unpriced")
    if told["duration_s"]:
        words.append(f"in {duration(told['duration_s'])}")
    verb = {"budget": "is at the end of its budget"}.get(told["event"], f"{told['event']}")
    text = f"*{_plain(told['name'])}* {verb}: {', '.join(words)}"
    return {"text": f"{text}\n{_plain(told['reason'])}" if told["reason"] else text}


def _plain(text: str) -> str:
    """Text that Slack shows as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
