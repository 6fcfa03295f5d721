from __future__ import annotations

import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchq.engine.budget import is_used_up, used_up_text
from batchq.errors import ManifestError
from batchq.manifest.loader import load_manifest
from batchq.monitoring.notices import event_for, notice, slack_message
from batchq.outcome import Summary, Usage
from batchq.plan import Budget, Hook
from batchq.planning.planner import make_plan
from batchq.ports import Allowance, BudgetUse
from batchq.progress import RunState
from batchq.records import RunRecord

SPENT = "the budget of $1.00 is used up: $0.99 spent, the next call needs $0.02"


@pytest.mark.parametrize(
    ("on", "state", "reason", "event"),
    [
        (("finished",), RunState.COMPLETED, "", "finished"),
        (("finished",), RunState.FAILED, "", None),
        (("failed", "paused"), RunState.FAILED, "", "failed"),
        (("paused",), RunState.PAUSED, "by hand", "paused"),
        (("paused",), RunState.PAUSED, SPENT, "paused"),
        (("paused", "budget"), RunState.PAUSED, SPENT, "budget"),
        (("budget",), RunState.FAILED, SPENT, "budget"),
        (("budget",), RunState.PAUSED, "by hand", None),
        (("finished", "failed", "paused", "budget"), RunState.CANCELLED, "", None),
    ],
)
def test_a_hook_hears_of_what_it_asked_for(
    on: tuple[Any, ...], state: RunState, reason: str, event: str | None
) -> None:
    assert event_for(Hook("URL", on=on), state, reason) == event


def test_the_reason_of_a_run_at_the_end_of_its_budget_is_known_as_such() -> None:
    use = BudgetUse(Budget(nusd=10**9), "r@v0", spent_nusd=10**9)

    assert is_used_up(used_up_text(Allowance("used up", use, Usage(1, 10, 10, 10**7))))
    assert not is_used_up("the budget is fine")


def test_a_notice_for_slack_is_short_and_shows_hostile_text_as_text() -> None:
    summary = Summary(ok=1198, failed=2, usage=Usage(1200, 10, 10, 2_500_000_000, 1))
    record: Any = RunRecord(
        *("r1", "grades", "v3", RunState.FAILED, "draft", "", "initial", "", "/out", "2026"),
        duration_s=95.0,
        items=1200,
        summary=summary,
    )
    info: Any = SimpleNamespace(run="r1", pipeline="grades", version="v3", folder="/out")

    told = notice(info, record, "too many <!channel> failed & more", "failed", "r1:0")

    assert told["ok"] == 1198
    assert told["cost_usd"] == 2.5
    assert slack_message(told)["text"] == (
        "*grades@v3* failed: 1,198 ok, 2 failed, $2.50, 1 call unpriced, in 1m 35s\n"
        "too many &lt;!channel&gt; failed &amp; more"
    )


def plan_with(notify: str, folder: Path) -> Any:
    path = folder / "m.yaml"
    text = f"notify: {notify}\nsteps: [{{name: a, input: {{generate: 1}}, command: [echo]}}]"
    path.write_text(textwrap.dedent(text))
    return make_plan(load_manifest(path), env={})


def test_one_hook_needs_no_list_and_hears_of_everything(tmp_path: Path) -> None:
    plan = plan_with("{url_env: HOOK_URL}", tmp_path)

    assert plan.notify == (Hook("HOOK_URL", "json", ("finished", "failed", "paused", "budget")),)
    assert plan_with("false", tmp_path).notify == ()


@pytest.mark.parametrize(
    ("notify", "word"),
    [
        ("{url: 'https://hooks.example/T0/secret'}", "url"),
        ("{url_env: 'https://hooks.example/T0/secret'}", "url_env"),
        ("{url_env: A, on: [done]}", "on"),
        ("{url_env: A, format: teams}", "format"),
    ],
)
def test_a_hook_that_makes_no_sense_is_refused_and_an_address_is_not_repeated(
    notify: str, word: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError) as refused:
        plan_with(notify, tmp_path)

    assert word in str(refused.value)
    assert "T0/secret" not in str(refused.value)
