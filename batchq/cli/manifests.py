"""`batchq validate`, `schema` and `plan`: a manifest before it is run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchq.actions.exits import EXIT_OK
from batchq.actions.preflight import simulator_problems
from batchq.cli.output import count, duration, money, put, put_json, say, table
from batchq.cli.request import (
    choice_options,
    json_option,
    load_request,
    manifest_argument,
    params_option,
)
from batchq.engine.budget import limits_text
from batchq.errors import Problem, UsageError
from batchq.plan import Plan, StepPlan, is_remote
from batchq.planning.planfile import KeptPlan
from batchq.planning.uploads import WINDOW_S
from batchq.records import iso

if TYPE_CHECKING:
    from batchq.runs.reuse import Review

EXIT_INVALID = 2
EXIT_WORK_TO_DO = 10
COLUMNS = (
    *("", "STEP", "ITEMS", "BATCHES", "CALLS", "TOKENS IN", "OUT", "COST", "TIME"),
    "BOUND BY",
)


@click.command("validate")
@manifest_argument
@params_option
@json_option
def validate_command(
    file: Path,
    params: tuple[tuple[str, str], ...],
    as_json: bool,  # noqa: FBT001 (click passes by name)
) -> int:
    """Shows all problems of the manifest FILE at once, with line and column."""
    from batchq.manifest.loader import check_environment, check_manifest, load_manifest
    from batchq.runs.pins import pin_problems

    problems, warnings = check_manifest(file, dict(params)), []
    if not problems:
        manifest = load_manifest(file, dict(params))
        problems = simulator_problems(manifest) + pin_problems(manifest)
        warnings = check_environment(manifest)
    if as_json:
        put_json({"problems": _plain(problems), "warnings": _plain(warnings)})
    else:
        for problem in problems:
            put(str(problem))
        for warning in warnings:
            say(f"warning: {warning}")
        say(count(len(problems), "problem") if problems else f"{file} is a valid manifest")
    return EXIT_INVALID if problems else EXIT_OK


def _plain(problems: list[Problem]) -> list[dict[str, Any]]:
    return [
        {
            "path": problem.path,
            "line": problem.line,
            "column": problem.column,
            "key": problem.key,
            "message": problem.message,
            "hint": problem.hint,
        }
        for problem in problems
    ]


@click.command("schema")
def schema_command() -> None:
    """Prints the JSON Schema of the manifest, for editors."""
    from batchq.manifest.loader import json_schema

    put_json(json_schema())


@click.command("plan")
@manifest_argument
@choice_options
@click.option("--workers", type=click.IntRange(min=1), help="Processes for Python steps.")
@click.option("--item", metavar="ID", help="Show what would be sent for this item of a step.")
@click.option("--step", "in_step", metavar="STEP", help="Step of --item; default: the first.")
@click.option("--items", is_flag=True, help="Show each item: reused or run, and why.")
@click.option("--explain", metavar="KEY", help="Show where the value of a key comes from.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 10 if there is work to do.")
@click.option("--out", is_flag=True, help="Keep the plan, for `batchq submit --plan ID`.")
@json_option
def plan_command(
    file: Path,
    workers: int | None,
    item: str | None,
    in_step: str | None,
    items: bool,  # noqa: FBT001 (click passes by name)
    explain: str | None,
    detailed_exitcode: bool,  # noqa: FBT001
    out: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    **choices: Any,
) -> int:
    """Shows what a submit of the manifest FILE would do. Nothing is queued.

    It is compared with the newest version and with the answers that the cache keeps: what is
    reused, what is run, and why.
    """
    if out and (explain or item or items):
        raise UsageError("--out keeps a whole plan: leave out --explain, --item and --items")
    from batchq.cli.reuse import put_items
    from batchq.manifest.loader import explain as explain_key
    from batchq.planning.planner import make_plan

    manifest = load_request(file, **choices)
    if explain is not None:
        lines = explain_key(manifest, explain)
        if not lines:
            raise UsageError(f"nothing sets {explain!r}, and no step has such a key")
        for line in lines:
            put(line)
        return EXIT_OK
    plan = make_plan(manifest, slots=task_slots(workers))
    if item is not None:
        _show_item(plan, _step_number(plan, in_step), item, as_json=as_json)
        return EXIT_OK
    review = _review(plan)
    if items:
        put_items(review, as_json=as_json)
    else:
        kept = _keep(KeptPlan(str(file.absolute()), choices, workers, plan)) if out else ""
        _show(review, as_json=as_json, kept=kept)
    has_work = not review.is_idle and any(step.items for step in plan.steps)
    return EXIT_WORK_TO_DO if detailed_exitcode and has_work else EXIT_OK


def _keep(kept: KeptPlan) -> str:
    from batchq.actions import submission
    from batchq.planning import planfile
    from batchq.settings import load_settings

    if kept.plan.rounds > 1:
        raise UsageError("--out: rounds are planned one after another; submit the manifest itself")
    base = submission.find_base(kept.plan) if submission.skipping(kept.plan) else None
    return planfile.keep(replace(kept, base=base.name if base else ""), load_settings().home)


def task_slots(workers: int | None) -> dict[str, int]:
    """How many functions and programs embedded workers run at a time; calls go by the manifest."""
    return {"cpu": workers or os.cpu_count() or 1}


def _step_number(plan: Plan, name: str | None) -> int:
    if name is None:
        return plan.steps[0].spec.number
    for step in plan.steps:
        if name in (step.spec.name, str(step.spec.number)):
            return step.spec.number
    raise UsageError(f"no step is named {name}: {', '.join(s.spec.name for s in plan.steps)}")


def _show_item(plan: Plan, number: int, item: str, *, as_json: bool) -> None:
    from batchq.planning.planner import render_item

    prompts = render_item(plan, number, item)
    if as_json:
        put_json([{"stage": prompt.stage, "text": prompt.text} for prompt in prompts])
        return
    for prompt in prompts:
        if prompt.stage:
            say(f"# stage {prompt.stage}")
        put(prompt.text)


def _review(plan: Plan) -> Review:
    from batchq.actions import submission
    from batchq.settings import load_settings

    return submission.review(plan, load_settings())


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Prints a plan and what it reuses, for people or for programs."""
    _show(_review(plan), as_json=as_json)


def _show(review: Review, *, as_json: bool, kept: str = "") -> None:
    from batchq.actions.submission import lessons
    from batchq.cli.reuse import lesson_json, lesson_lines, reuse_json, reuse_lines
    from batchq.runs.reuse import scaled_plan
    from batchq.settings import load_settings

    plan, learned = scaled_plan(review), lessons(review, load_settings())
    if as_json:
        more = {"seen": lesson_json(learned), "reuse": reuse_json(review), "plan": kept or None}
        put_json(_plan_json(plan) | more)
        return
    *lines, last = plan_lines(plan)
    base = review.base.name if review.base else ""
    for line in (*lines, *lesson_lines(base, learned), *reuse_lines(review), last):
        put(line)
    if review.problem:
        say(f"warning: no version is compared with: {review.problem}")
    for warning in plan.warnings:
        say(f"warning: {warning}")
    if kept:
        put(f"plan   {kept}; exactly this: batchq submit --plan {kept}")


def plan_lines(plan: Plan) -> list[str]:
    """A plan for people."""
    first = plan.steps[0]
    calls = sum(step.calls for step in plan.steps)
    head = [count(first.items, "item"), count(len(plan.steps), "step")]
    head += [count(calls, "call")] if calls else []
    lines = [f"{plan.pipeline}  {', '.join(head)}"]
    lines += table([COLUMNS, *map(_row, plan.steps)], ">" + "<" + ">" * 7)
    costs = [step.cost_usd for step in plan.steps]
    priced = [cost for cost in costs if cost is not None]
    missing = f" + {count(costs.count(None), 'step')} without prices" if None in costs else ""
    if calls:
        lines.append(f"cost   about {money(sum(priced))}{missing}")
    if plan.rounds > 1:
        number = plan.params["round"]
        lines.append(f"rounds {number} to {plan.rounds}; this is one, others are planned in turn")
    lines += _guard_lines(plan)
    took = duration(sum(step.duration_s for step in plan.steps))
    is_bounded = any(step.uploads is not None for step in plan.steps)
    lines.append(f"time   {'at most' if is_bounded else 'about'} {took}")
    lines += [line for step in plan.steps for line in _mode_lines(step)]
    lines.append(f"output {_output_place(plan)}")
    if any(step.items_are_estimated for step in plan.steps):
        lines.append("~ an estimate: the step's input is not there yet")
    lines.append("Nothing queued.")
    return lines


def _output_place(plan: Plan) -> str:
    if is_remote(plan.output_dir):
        return f"{plan.output_dir.rstrip('/')}/{plan.pipeline}"
    return str(Path(plan.base_dir, plan.output_dir, plan.pipeline))


def _guard_lines(plan: Plan) -> list[str]:
    lines = []
    if plan.budget is not None:
        lines.append(f"budget {limits_text(plan.budget)}, then it {plan.budget.on_exceeded}s")
    if plan.canary is not None:
        then = "asks" if plan.canary.then == "ask" else "goes on"
        lines.append(f"canary {count(plan.canary.items, 'item')} first, then it {then}")
    return lines


def _mode_lines(step: StepPlan) -> list[str]:
    """What a step costs and takes in uploads, and what it would online."""
    terms, mode = step.uploads, step.spec.mode
    if terms is None:
        return []
    cheap, dear = (
        "at an unknown price" if usd is None else f"about {money(usd)}"
        for usd in (terms.cost_usd, terms.online_cost_usd)
    )
    longest, fast = duration(WINDOW_S), duration(terms.online_s)
    lines = [f"mode   {step.spec.name}: {mode}: in uploads {cheap} within {longest}"]
    if mode == "auto":
        by = ""
        if terms.deadline_s is not None:
            by = f", in time to be done {duration(terms.deadline_s)} after the step began"
        elif terms.deadline_at is not None:
            by = f", in time to be done at {iso(terms.deadline_at)}"
        lines.append(f"       what they do not answer goes online{by}")
    lines.append(f"       online, all of it would be {dear} in {fast}")
    return lines


def _mode_json(step: StepPlan) -> dict[str, Any] | None:
    terms = step.uploads
    return None if terms is None else {**asdict(terms), "within_s": WINDOW_S}


def _row(step: StepPlan) -> tuple[str, ...]:
    mark = "~" if step.items_are_estimated else ""
    return (
        str(step.spec.number),
        step.spec.name,
        f"{mark}{step.items:,}",
        f"{mark}{step.batches:,}",
        f"{step.calls:,}",
        f"{step.input_tokens:,}",
        f"{step.output_tokens:,}",
        "?" if step.cost_usd is None else money(step.cost_usd),
        duration(step.duration_s),
        step.bound_by,
    )


def _plan_json(plan: Plan) -> dict[str, Any]:
    costs = [step.cost_usd for step in plan.steps if step.cost_usd is not None]
    steps = [
        {
            "number": step.spec.number,
            "name": step.spec.name,
            "items": step.items,
            "items_are_estimated": step.items_are_estimated,
            "batches": step.batches,
            "calls": step.calls,
            "input_tokens": step.input_tokens,
            "output_tokens": step.output_tokens,
            "cost_usd": step.cost_usd,
            "duration_s": step.duration_s,
            "bound_by": step.bound_by,
            "queue": step.queue,
            "mode": step.spec.mode,
            "uploads": _mode_json(step),
        }
        for step in plan.steps
    ]
    return {
        "pipeline": plan.pipeline,
        "status": plan.status,
        "rounds": plan.rounds,
        "params": json.loads(json.dumps(dict(plan.params), default=str)),
        "steps": steps,
        "calls": sum(step.calls for step in plan.steps),
        "cost_usd": sum(costs),
        "steps_without_prices": len(plan.steps) - len(costs),
        "duration_s": sum(step.duration_s for step in plan.steps),
        "hashes": dict(plan.hashes),
        "warnings": list(plan.warnings),
    }
