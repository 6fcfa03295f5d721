from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from batchq.embedded.pools import (
    Pool,
    pools_of,
    simulators_of,
    task_modules,
    thread_env,
    with_base_urls,
)
from batchq.endpoint import Limits
from batchq.manifest.loader import load_manifest
from batchq.plan import Plan
from batchq.planning.planner import make_plan

MANIFEST = """\
version: 1
name: mixed
providers:
  sim: {kind: simulator, model: m, simulator: {latency_ms: 5}, limits: {concurrency: 7}}
  other: {kind: simulator, model: m, base_url: "http://127.0.0.1:9/v1"}
steps:
  - {name: ask, input: items.json, provider: sim, prompt: "Say {a}\\n.", collate: "shapes:table"}
  - {name: check, provider: other, prompt: "Check it\\n."}
  - {name: count, task: "counting.words:run"}
"""


def a_plan(folder: Path) -> Plan:
    (folder / "items.json").write_text('[{"a": 1}]')
    (folder / "m.yaml").write_text(MANIFEST)
    return make_plan(load_manifest(folder / "m.yaml"))


def test_calls_get_threads_and_python_steps_get_processes(tmp_path: Path) -> None:
    pools = pools_of(a_plan(tmp_path), workers=3)

    assert pools == (Pool("llm", "threads", 25), Pool("cpu", "prefork", 3))


def test_the_limit_of_the_providers_decides_how_many_threads(tmp_path: Path) -> None:
    first, *_ = a_plan(tmp_path).steps

    pools = pools_of(replace(a_plan(tmp_path), steps=(first,)))

    assert first.spec.stages[0].provider
    assert first.spec.stages[0].provider.limits == Limits(concurrency=7)
    assert pools == (Pool("llm", "threads", 7),)


def test_an_enormous_limit_does_not_start_as_many_threads(tmp_path: Path) -> None:
    (tmp_path / "items.json").write_text('[{"a": 1}]')
    (tmp_path / "m.yaml").write_text(MANIFEST.replace("concurrency: 7", "concurrency: 1e12"))

    pools = pools_of(make_plan(load_manifest(tmp_path / "m.yaml")), workers=1)

    assert pools[0] == Pool("llm", "threads", 1_000)


@pytest.mark.parametrize(
    ("window", "threads"),
    [("concurrent_batches: 8, batch_size: 5", 40), ("batch_size: 5", 25),
     ("concurrent_batches: 8, batch_size: 500", 200)],
    ids=["eight batches of five", "nothing said of batches at once", "too many to gain by"],
)  # fmt: skip
def test_batches_in_flight_decide_where_no_limit_does(
    tmp_path: Path, window: str, threads: int
) -> None:
    (tmp_path / "m.yaml").write_text(
        MANIFEST.replace("{name: check,", f"{{name: check, {window}, input: items.json,")
    )
    (tmp_path / "items.json").write_text('[{"a": 1}]')
    plan = make_plan(load_manifest(tmp_path / "m.yaml"))

    pools = pools_of(replace(plan, steps=plan.steps[1:2]))

    assert pools == (Pool("llm", "threads", threads),)


def test_the_command_line_decides_before_the_limits(tmp_path: Path) -> None:
    pools = pools_of(a_plan(tmp_path), concurrency=2, workers=1)

    assert pools == (Pool("llm", "threads", 2), Pool("cpu", "prefork", 1))


def test_only_simulators_without_a_server_are_started(tmp_path: Path) -> None:
    plan = a_plan(tmp_path)

    pointed = with_base_urls(plan, {"sim": "http://127.0.0.1:1/v1"})

    assert list(simulators_of(plan)) == ["sim"]
    assert simulators_of(pointed) == {}
    assert pointed.steps[0].spec.stages[0].provider
    assert pointed.steps[0].spec.stages[0].provider.is_started
    assert pointed.steps[1] == plan.steps[1]


def test_workers_may_run_the_modules_that_the_plan_names(tmp_path: Path) -> None:
    assert task_modules(a_plan(tmp_path)) == ("counting.words", "shapes")


def test_processes_share_the_cores_among_the_threads_of_their_libraries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)

    assert thread_env(Pool("cpu", "prefork", 4)) == {"OMP_NUM_THREADS": "2"}
    assert thread_env(Pool("cpu", "prefork", 16)) == {"OMP_NUM_THREADS": "1"}
    assert thread_env(Pool("llm", "threads", 25)) == {}


def test_the_users_own_number_of_threads_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    assert thread_env(Pool("cpu", "prefork", 4)) == {}
