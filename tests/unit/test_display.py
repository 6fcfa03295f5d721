"""What a terminal shows of a run under way: one bar for all, and a line a running job."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.live import Live

from batchq.cli.display import LiveView, middle_cut, natural_order
from batchq.outcome import Summary
from batchq.progress import ItemProgress, Progress, RunState, StepProgress


def shown(told: list[ItemProgress], width: int, height: int = 40) -> list[str]:
    step = StepProgress(1, "jobs", "running", 40, 40, 4, Summary(ok=4))
    seen = Progress("r", "tuning", "v0", RunState.RUNNING, "", "", (step,), len(told), 0.0, 9.0,
                    told=tuple(told))  # fmt: skip
    view, text = LiveView(), io.StringIO()
    view._console = Console(file=text, width=width, height=height, force_terminal=False)
    view._live = Live(console=view._console, auto_refresh=False)
    view.show(seen)
    view._console.print(view._live.renderable)
    return text.getvalue().splitlines()


def jobs(number: int) -> list[ItemProgress]:
    return [ItemProgress(1, f"matrix_leaf{n}_thresh0.1", n, 40) for n in range(number, 0, -1)]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_sixteen_jobs_have_a_line_each_that_fits_the_terminal(width: int) -> None:
    lines = shown(jobs(16), width)

    assert "4/40" in lines[1]
    told = [line for line in lines if "thresh0.1" in line]
    assert [line.split()[-1] for line in told] == [f"{n}/40" for n in range(1, 17)]
    assert all(len(line) <= width for line in lines)


def test_on_a_narrow_terminal_the_pace_of_a_step_stands_below_it() -> None:
    wide, narrow = (shown([], width) for width in (120, 70))

    assert "Group 5/40" in wide[1]
    assert "Group 5/40" not in narrow[1]
    assert narrow[2] == "  jobs: Group 5/40"


def test_beyond_sixteen_jobs_the_rest_is_counted() -> None:
    lines = shown(jobs(20), 80)

    assert sum("thresh" in line for line in lines) == 16
    assert "  and 4 more" in lines


def test_long_names_lose_their_middle_since_they_differ_at_the_ends() -> None:
    name = "matrix_a_rather_long_name_of_an_axis_leaf"

    lines = shown([ItemProgress(1, f"{name}{n}", 1, 40) for n in (1, 2)], 60)

    assert [line.split()[0][-5:] for line in lines if "leaf" in line] == ["leaf1", "leaf2"]
    assert len(middle_cut(name, 20)) == 20
    assert middle_cut("short", 20) == "short"


def test_what_looks_like_markup_is_a_name() -> None:
    lines = shown([ItemProgress(1, "a[red]b", 1, 40)], 80)

    assert any("a[red]b" in line for line in lines)


def test_names_are_ordered_as_people_order_them() -> None:
    assert sorted(["j10", "j2", "j1_b", "j1_a"], key=natural_order) == ["j1_a", "j1_b", "j2", "j10"]
