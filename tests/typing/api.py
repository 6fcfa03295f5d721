"""Typed use of the public API: not run, only type-checked (see `files` of mypy's settings)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import batchq


def load(path: Path) -> batchq.Manifest | None:
    try:
        return batchq.load_manifest(path, {"count": "5"}, env={})
    except batchq.ManifestError as error:
        assert_type(error.problems, tuple[batchq.Problem, ...])
        assert_type(error.exit_code, int)
        for problem in error.problems:
            assert_type((problem.path, problem.line, problem.column), tuple[str, int, int])
        return None


def check(path: str) -> list[str]:
    problems = batchq.check_manifest(path)
    assert_type(problems, list[batchq.Problem])
    return [str(problem) for problem in problems]


def plan(manifest: batchq.Manifest) -> batchq.Plan:
    planned = batchq.make_plan(manifest, slots={"llm": 25})
    assert_type(planned.pipeline, str)
    assert_type(planned.warnings, tuple[str, ...])
    assert_type(planned.step(1).spec.name, str)
    return planned


def settings(home: Path) -> str:
    made = batchq.Settings(broker_url="redis://127.0.0.1:6379/0", home=home)
    assert_type(batchq.load_settings(home=home), batchq.Settings)
    assert_type(made.lease_ttl_s, float)
    return made.effective_catalog_url


def add_up(outcomes: list[batchq.Outcome]) -> batchq.Summary:
    summary = batchq.Summary()
    for outcome in outcomes:
        summary = summary + batchq.Summary.of(outcome)
        assert_type(outcome.usage + batchq.Usage(calls=1), batchq.Usage)
        assert_type(outcome.is_ok, bool)
    assert_type(summary.usage.cost_usd, float)
    return summary


def item(item_id: str) -> batchq.Item:
    return batchq.Item(item_id, 0, {"topic": "sums"})


def wait(error: batchq.ProviderError) -> float | None:
    assert_type(error.retryable, bool)
    if isinstance(error, batchq.RateLimited):
        return error.retry_after_s
    return None


def code_of(error: batchq.BatchqError) -> int:
    return error.exit_code


def run(base_dir: Path) -> list[object]:
    step = batchq.Step(
        prompt_name="generate",
        input_file=base_dir / "templates.json",
        batch_mode=True,
        batch_id_field="template_id",
        batch_only_items=["4001", 4002],
        batch_delay="5s",
    )
    made = batchq.run_pipeline(
        [step],
        pipeline_name="problems",
        module_number=4,
        providers={"sim": {"kind": "simulator"}},
        rerun_items=["4001"],
        base_dir=base_dir,
    )
    assert_type(made, batchq.Run)
    assert_type(made.state, batchq.RunState)
    assert_type(made.summary, batchq.Summary)
    assert_type(made.exit_code, int | None)
    assert_type(made.errors("generate"), list[dict[str, Any]])
    assert_type(batchq.Run.load("problems@v3").folder, str)
    assert_type(batchq.submit("m.yaml", {"count": 5}, wait=False), batchq.Run)
    batchq.Step(batch_id_feild="id")  # type: ignore[call-arg]  # a typo is found
    return made.collated(1)


version: str = batchq.__version__
batchq.load_manifesto  # type: ignore[attr-defined]  # a typo is found  # noqa: B018
