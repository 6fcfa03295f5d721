from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from batchq.endpoint import Limits, ProviderSpec
from batchq.engine.context import TaskContext
from batchq.engine.functions import call_task
from batchq.engine.turns import Turns
from batchq.errors import RateLimited, TaskError
from batchq.limiter import MemoryLimiter
from batchq.plan import Item, StageSpec, StepSpec
from batchq.ports import ItemRef, Reservation
from batchq.workplace import DiskCache

REF = ItemRef("r1", 1, 0, 3)
TASKS = """
    import time
    from pathlib import Path

    HERE = Path(__file__).parent

    def set_up(params):
        with open(HERE / "set_up.txt", "a") as file:
            file.write("x")
        if params.get("broken"):
            raise OSError("no model")
        return {"model": params["model"]}

    def uses_state(item, params, context):
        return context.state["model"] + item

    def writes(item, params, context):
        (context.output / "deep").mkdir()
        (context.output / "deep" / "a.txt").write_text("12345")
        (context.temp / "b.txt").write_text("b")
        (HERE / "temp.txt").write_text(str(context.temp))
        if item == "bad":
            raise ValueError("bad")
        context.progress(1, 2)
        return context.output / "deep" / "a.txt"

    def elsewhere(item):
        path = HERE / "far.txt"
        path.write_text("123")
        return path

    def missing(item):
        return HERE / "nothing"

    def slow(item):
        time.sleep(30)

    def tidies(item):
        from batchq.host.timelimit import TimeIsUp
        try:
            time.sleep(30)
        except TimeIsUp:
            return "what there is"

    def calls(item, params, context):
        with context.limit("weather") as call:
            return call.waited_s

    def is_refused(item, params, context):
        from batchq import RateLimited
        with context.limit("weather"):
            raise RateLimited("too many calls", retry_after_s=9)

    def hides(item, params, context):
        try:
            with context.limit("weather"):
                return 1
        except Exception:
            return 2

    def misspells(item, params, context):
        with context.limit("wether"):
            return 1

    def swallows(item):
        return bytearray(1 << 62)
"""


@dataclass
class Place:
    folder: Path
    told: list[tuple[str, float, float | None]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    @property
    def cache(self) -> DiskCache:
        return DiskCache(self.folder / "cache")

    def output_folder(self, ref: ItemRef, item_id: str) -> Path:
        return self.folder / "items" / item_id / f"{ref.step:02d}_files"

    def tell_progress(self, ref: ItemRef, item_id: str, done: float, total: float | None) -> None:
        self.told.append((item_id, done, total))

    def end_progress(self, ref: ItemRef, item_id: str) -> None:
        self.ended.append(item_id)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "context_tasks.py").write_text(textwrap.dedent(TASKS))
    sys.path.insert(0, str(tmp_path))
    yield Place(tmp_path)
    sys.path.remove(str(tmp_path))
    sys.modules.pop("context_tasks", None)


def call(place: Place, name: str, data: object = None, *, setup: str = "", timeout_s=0.0, **params):
    stage = StageSpec(
        "", "task", task=f"context_tasks:{name}", setup=setup and f"context_tasks:{setup}"
    )
    step = StepSpec(1, "s", (stage,), params=params, timeout_s=timeout_s)
    context = TaskContext(REF, "s", "job", 1, params=params, workplace=place)
    return call_task(stage, Item("job", 3, data), step, context, ["context_tasks"])


def test_a_setup_function_is_called_once_a_process_for_the_same_parameters(place: Place) -> None:
    values = [
        call(place, "uses_state", item, setup="set_up", model=str(place.folder))
        for item in ("a", "b")
    ]

    assert values == [f"{place.folder}a", f"{place.folder}b"]
    assert (place.folder / "set_up.txt").read_text() == "x"


def test_a_setup_function_that_fails_fails_the_item_and_is_tried_again(place: Place) -> None:
    for _ in range(2):
        with pytest.raises(TaskError, match=r"context_tasks:set_up: OSError: no model") as caught:
            call(place, "uses_state", "a", setup="set_up", model="m", broken=str(place.folder))
        assert caught.value.kind == "setup"

    assert (place.folder / "set_up.txt").read_text() == "xx"


def test_files_in_the_output_folder_are_kept_and_a_returned_path_names_one(place: Place) -> None:
    value = call(place, "writes", "good")

    assert value == {"file": "items/job/01_files/deep/a.txt", "bytes": 5}
    assert (place.folder / value["file"]).read_text() == "12345"
    assert [path.name for path in (place.folder / "items/job").iterdir()] == ["01_files"]
    assert not Path((place.folder / "temp.txt").read_text()).exists()
    assert (place.told, place.ended) == ([("job", 1, 2)], ["job"])


def test_a_second_try_takes_the_place_of_what_the_first_one_left(place: Place) -> None:
    call(place, "writes", "good")
    (place.folder / "items/job/01_files/old.txt").write_text("old")

    call(place, "writes", "good")

    assert not (place.folder / "items/job/01_files/old.txt").exists()


def test_a_function_that_fails_leaves_no_files(place: Place) -> None:
    with pytest.raises(TaskError, match="ValueError: bad"):
        call(place, "writes", "bad")

    assert list((place.folder / "items/job").iterdir()) == []
    assert not Path((place.folder / "temp.txt").read_text()).exists()


def test_a_returned_path_elsewhere_is_copied_to_the_output(place: Place) -> None:
    assert call(place, "elsewhere") == {"file": "items/job/01_files/far.txt", "bytes": 3}
    assert (place.folder / "items/job/01_files/far.txt").read_text() == "123"


def test_a_returned_path_that_is_no_file_is_told(place: Place) -> None:
    with pytest.raises(TaskError, match="which is no file"):
        call(place, "missing")


def test_a_try_that_takes_too_long_is_ended(place: Place) -> None:
    with pytest.raises(TaskError, match=r"context_tasks:slow did not end within 0.05 s") as caught:
        call(place, "slow", timeout_s=0.05)

    assert (caught.value.kind, caught.value.retryable) == ("timeout", True)


def test_a_function_may_use_the_end_of_its_time_to_give_what_it_has(place: Place) -> None:
    assert call(place, "tidies", timeout_s=0.05) == "what there is"


def test_the_cache_keeps_json_and_bytes_and_is_shared(place: Place) -> None:
    cache = place.cache
    made: list[int] = []

    def make() -> dict[str, list[float]]:
        made.append(1)
        return {"vector": [0.5, 1.0]}

    values = [cache.fetch("text", make), DiskCache(place.folder / "cache").fetch("text", make)]
    cache.set("raw", b"\x00\xff")
    cache.set("none", None)

    assert values == [{"vector": [0.5, 1.0]}] * 2
    assert made == [1]
    assert (cache.get("raw"), cache.get("none", 1), cache.get("away", 1)) == (b"\x00\xff", None, 1)


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), object()])
def test_the_cache_keeps_nothing_else(place: Place, value: object) -> None:
    with pytest.raises(TaskError, match="the cache keeps JSON and bytes: key"):
        place.cache.set("key", value)


def test_a_pickle_in_the_cache_is_not_read(place: Place) -> None:
    import diskcache

    with diskcache.Cache(str(place.folder / "cache")) as raw:
        raw.set("key", {"a": {1}})

    with pytest.raises(TaskError, match="is a pickle, which nobody reads"):
        place.cache.get("key")


def limited(place: Place, name: str, limiter: MemoryLimiter, sleep=time.sleep) -> object:
    api = ProviderSpec("weather", "api", "", "", limits=Limits(concurrency=1))
    turns = Turns({"weather": api}, limiter, time.monotonic, sleep, "r1/1/3/")
    stage = StageSpec("", "task", task=f"context_tasks:{name}")
    context = TaskContext(REF, "s", "job", 1, workplace=place, turns=turns)
    return call_task(stage, Item("job", 3, None), StepSpec(1, "s", (stage,)), context, ["*"])


def test_a_task_takes_its_turns_from_the_limiter_of_prompts(place: Place) -> None:
    limiter = MemoryLimiter()
    api = ProviderSpec("weather", "api", "", "", limits=Limits(concurrency=1))
    prompt = Reservation(api, "r2/prompt", 0, 60.0)
    limiter.reserve(prompt)

    value = limited(place, "calls", limiter, sleep=lambda _: limiter.settle(prompt, 0))

    assert value > 0  # it waited for the prompt's call
    assert limiter.reserve(prompt).is_granted  # and gave its own turn back


def test_a_429_of_a_task_slows_everybody_down_and_is_tried_again(place: Place) -> None:
    limiter = MemoryLimiter()
    api = ProviderSpec("weather", "api", "", "", limits=Limits(concurrency=1))

    with pytest.raises(RateLimited) as caught:
        limited(place, "is_refused", limiter)

    assert caught.value.retry_after_s == 9
    grant = limiter.reserve(Reservation(api, "r2/prompt", 0, 60.0))
    assert (grant.blocked_by, grant.wait_s) == ("pause", pytest.approx(9, abs=1))


def test_a_task_that_hides_the_end_of_its_run_is_ended_all_the_same(place: Place) -> None:
    limiter = MemoryLimiter()
    api = ProviderSpec("weather", "api", "", "", limits=Limits(concurrency=1))
    limiter.reserve(Reservation(api, "r2/prompt", 0, 60.0))

    class Paused(Exception):
        pass

    def sleep(_: float) -> None:
        raise Paused

    with pytest.raises(Paused):
        limited(place, "hides", limiter, sleep)


def test_a_limit_of_nobody_is_told_with_those_that_there_are(place: Place) -> None:
    with pytest.raises(TaskError, match=r"no provider `wether`; did you mean `weather`\?"):
        limited(place, "misspells", MemoryLimiter())


def test_want_of_memory_is_a_kind_of_its_own(place: Place) -> None:
    with pytest.raises(TaskError, match="context_tasks:swallows ran out of memory") as caught:
        call(place, "swallows")

    assert (caught.value.kind, caught.value.retryable) == ("memory", False)
