"""What was spent on an item before a retry stays counted, wherever the folder is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from batchq.outcome import Attempt, ItemError, Outcome, State, Summary, Usage
from batchq.plan import InputSpec, Item, OutputSpec, Pacing, Plan, StepPlan, StepSpec, Tolerance
from batchq.store import Outputs, RunFolder
from batchq.store.earlier import count, count_by, find, with_earlier
from batchq.store.reopen import lay_out, reopen

SLOW = ItemError("rate_limit", "HTTP 429")
OUTPUT = OutputSpec("a.json")
SIZE = 2


def step_of(number: int, source: str = "", *, whole: bool = False) -> StepPlan:
    return StepPlan(
        spec=StepSpec(number, f"s{number}", ()), input=InputSpec(source, whole=whole),
        output=OUTPUT, pacing=Pacing(batch_size=SIZE), queue="cpu",
        needs=() if source else (f"s{number - 1}",), tolerance=Tolerance(), items=4,
        items_are_estimated=False, batches=2, calls=0, input_tokens=0, output_tokens=0,
        cost_usd=None, duration_s=0, bound_by="",
    )  # fmt: skip


STEPS = (step_of(1, "in.json"), step_of(2), step_of(3, whole=True))


def outcome(index: int, *errors: ItemError | None, at: float = 0.0) -> Outcome:
    """An item that was tried as often as there are errors; None stands for a try that was ok."""
    tries = tuple(
        Attempt(number, at + number, 0.5, error=error, usage=Usage(1, 10, 5, 100))
        for number, error in enumerate(errors, 1)
    )
    is_ok = errors[-1] is None
    return Outcome(
        f"w{index}", index, State.OK if is_ok else State.FAILED, output=index if is_ok else None,
        error=errors[-1], attempts=tries, usage=Usage(len(tries), 10 * len(tries), 5 * len(tries),
        100 * len(tries)), started_at=at, ended_at=at + 5,
    )  # fmt: skip


def write(folder: RunFolder, step: int, *outcomes: Outcome) -> None:
    """Writes a step's outcomes in batches, as a coordinator does."""
    folder.freeze_items(step, iter(Item(one.item_id, one.index, {}) for one in outcomes))
    for number in range(-(-len(outcomes) // SIZE)):
        here = outcomes[number * SIZE : (number + 1) * SIZE]
        folder.write_batch(step, number, with_earlier(folder, step, here), OUTPUT)
    folder.mark_done(step)


@pytest.fixture
def folder(outputs_url: str) -> Iterator[RunFolder]:
    """Item 2 of four failed in step 1 after two tries, item 1 in step 2 after one."""
    made = Outputs(outputs_url).create_version("words")
    made.write_plan(Plan("w", "words", {}, "draft", "", "o", "m.yaml", ".", {}, STEPS, {}))
    write(made, 1, outcome(0, None), outcome(1, None), outcome(2, SLOW, SLOW), outcome(3, None))
    write(made, 2, outcome(0, None), outcome(1, SLOW), outcome(3, None))
    write(made, 3, outcome(0, None))
    return made


def spent(folder: RunFolder) -> list[tuple[int, int, int]]:
    sums = [folder.summary(number) for number in (1, 2, 3)]
    return [(one.total, one.usage.calls, one.usage.cost_nusd) for one in sums]


def test_what_failed_items_cost_is_counted_while_they_wait_for_their_retry(
    folder: RunFolder,
) -> None:
    before = spent(folder)

    number = reopen(folder, lambda _: True)

    assert number == 2
    assert before == [(4, 5, 500), (3, 3, 300), (1, 1, 100)]
    assert spent(folder) == [(3, 5, 500), (2, 3, 300), (0, 1, 100)]


def test_batches_that_are_known_need_not_be_read_unless_a_retry_took_some_back(
    folder: RunFolder,
) -> None:
    truth = count(folder, 1)
    known = {number: Summary(ok=number, failed=50) for number in (0, 1, 7)}

    told = count_by(folder, 1, known)
    partly = count_by(folder, 1, {0: sum(map(Summary.of, folder.read_batch(1, 0)), Summary())})
    reopen(folder, lambda _: True)

    assert told == Summary(ok=1, failed=100)
    assert partly == truth
    assert count_by(folder, 1, known) == count(folder, 1)


def test_an_outcome_takes_up_what_was_tried_before_it_once(folder: RunFolder) -> None:
    reopen(folder, lambda _: True)
    now = outcome(2, SLOW, None, at=60.0)

    once = with_earlier(folder, 1, [now])
    twice = with_earlier(folder, 1, once)

    assert once == twice
    assert [one.started_at for one in once[0].attempts] == [1.0, 2.0, 61.0, 62.0]
    assert once[0].usage == Usage(4, 40, 20, 400)
    assert once[0].retries == 3
    assert (once[0].started_at, once[0].output) == (60.0, 2)


def test_a_retry_and_another_one_count_every_call_once(folder: RunFolder) -> None:
    for tried in ((SLOW,), (None,)):
        reopen(folder, lambda _: True)
        folder.write_batch(1, 1, with_earlier(folder, 1, [outcome(2, *tried, at=60.0),
                           outcome(3, None)]), OUTPUT)  # fmt: skip
        folder.mark_done(1)

    summary = folder.summary(1)

    assert (summary.ok, summary.failed, summary.usage.calls) == (4, 0, 7)
    assert [one.usage.calls for one in folder.outcomes(1)] == [1, 1, 4, 1]
    assert summary.retries == 3


def test_a_reopening_that_was_killed_and_done_again_counts_nothing_twice(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "reopen_batch", die)
        with pytest.raises(KeyboardInterrupt):
            reopen(folder, lambda _: True)
    killed = spent(folder)[0]
    reopen(folder, lambda _: True)

    assert killed == (4, 5, 500)
    assert spent(folder)[0] == (3, 5, 500)


def test_items_of_a_later_step_keep_theirs_under_their_index(folder: RunFolder) -> None:
    reopen(folder, lambda _: True)

    before = find(folder, 2, 1)
    write(folder, 2, *(outcome(index, None, at=60.0) for index in range(4)))

    assert before is not None
    assert before.error == SLOW
    # all were laid out anew; a coordinator would have put back what is not run again
    assert folder.summary(2).usage.calls == 3 + 4 - 2
    assert find(folder, 2, 3) is None


def test_what_a_pause_cut_off_is_opened_up_too(folder: RunFolder) -> None:
    folder.unmark_done(1)
    folder.reopen_batch(1, 1, folder.read_batch(1, 1))

    number = reopen(folder, lambda one: one.item_id == "w2")

    assert number == 2 - 1
    assert [one.index for one in folder.parked(1, 1)] == [3]
    assert folder.summary(1) == Summary(ok=3, retries=2, usage=Usage(5, 50, 25, 500))


def test_a_later_step_is_laid_out_anew_with_what_it_has(folder: RunFolder) -> None:
    reopen(folder, lambda _: True)
    folder.freeze_items(2, iter(Item(f"w{index}", index, {}) for index in range(4)))

    lay_out(folder, 2, SIZE)

    assert [one.index for one in folder.outcomes(2)] == [0, 3]
    assert folder.summary(2).usage.calls == 3


def test_outcomes_of_a_folder_without_retries_stay_as_they_are(folder: RunFolder) -> None:
    now = [replace(outcome(2, None), item_id="w2")]

    assert with_earlier(folder, 1, now) == now
