"""What holds for the catalog in SQLite and in PostgreSQL (a real server out of a wheel)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from batchq.errors import StoreError
from batchq.outcome import Attempt, ItemError, Outcome, State, Summary, Usage
from batchq.plan import OutputSpec, StageSpec, StepSpec
from batchq.progress import RunState
from batchq.records import BatchRecord, Catalog, RunRecord, StepFigures
from batchq.store import Outputs, SqlCatalog, open_catalog
from batchq.store.listing import ItemFilter, ItemPage, Listing, RunFilter
from batchq.store.records import batch_record, rebuild
from batchq.store.tables import SCHEMA_VERSION

STATS_COLUMNS = [
    "id", "batch_id", "model", "provider", "total_indicators", "successful_indicators",
    "failed_indicators", "batch_start_time", "batch_end_time", "total_duration_ms",
    "avg_time_per_indicator_ms", "avg_confidence", "created_at", "updated_at",
]  # fmt: skip


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        address = str(request.getfixturevalue("postgres_url"))
        engine = create_engine(address.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        engine.dispose()
        return address
    if request.param == "memory":
        return "sqlite:///:memory:"
    return f"sqlite:///{tmp_path}/home/catalog.sqlite"


of_files_and_servers = pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def catalog(url: str) -> Iterator[SqlCatalog]:
    opened = open_catalog(url, clock=lambda: 1_790_000_000.0)
    yield opened
    opened.close()


def run_record(run: str = "run1", pipeline: str = "p", created: int = 10) -> RunRecord:
    return RunRecord(
        run=run, pipeline=pipeline, version="v0", state=RunState.RUNNING, status="draft",
        notes="Notiz ü \0", mode="initial", base_version="", folder="/outputs/p/v0",
        created_at=f"2026-01-20T14:30:{created}.000Z", items=3,
        summary=Summary(1, 2, 3, 4, 5, Usage(6, 7, 8, 9_000_000_000_000, 10)),
    )  # fmt: skip


def outcomes() -> list[Outcome]:
    error = ItemError("timeout", "zu spät \0 \ud800")
    return [
        Outcome("a", 0, State.OK, output={"confidence": 0.5}, started_at=1.0, ended_at=2.0,
                usage=Usage(1, 10, 5, 1500), attempts=(Attempt(1, 1.0, 1.0),)),
        Outcome("b", 1, State.OK, output={"confidence": 1}, started_at=1.0, ended_at=2.5),
        Outcome("c", 2, State.FAILED, error=error, started_at=1.0, ended_at=4.0),
        Outcome("d", 3, State.OK, output={"confidence": True}, started_at=1.0, ended_at=1.0),
    ]  # fmt: skip


STEP = StepSpec(1, "classify", (StageSpec("", "task", task="m:f"),))


def batch(run: str = "run1", number: int = 0, some: list[Outcome] | None = None) -> BatchRecord:
    found = outcomes() if some is None else some
    return replace(batch_record(run, STEP, number, found), model="deepseek-chat", provider="ds")


def query(catalog: SqlCatalog, statement: str) -> list[Mapping[str, Any]]:
    with catalog.engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(statement)).mappings()]


def test_the_catalog_is_one(catalog: SqlCatalog) -> None:
    contract: Catalog = catalog

    assert contract.runs("p") == []


def test_a_run_reads_back_as_it_was_put(catalog: SqlCatalog) -> None:
    catalog.put_run(run_record())

    assert catalog.runs("p") == [replace(run_record(), notes="Notiz ü \\0")]


def test_a_run_that_is_put_again_is_replaced(catalog: SqlCatalog) -> None:
    over = replace(run_record(), state=RunState.COMPLETED, duration_s=12.5, notes="")

    catalog.put_run(run_record())
    catalog.put_run(over)

    assert catalog.runs("p") == [over]


def test_runs_come_oldest_first_and_by_pipeline(catalog: SqlCatalog) -> None:
    for run, pipeline, created in (("x", "p", 30), ("y", "q", 20), ("z", "p", 10)):
        catalog.put_run(run_record(run, pipeline, created))

    listing = Listing(catalog.engine)
    assert [one.run for one in catalog.runs("p")] == ["z", "x"]
    assert [one.run for one in listing.newest(2)] == ["x", "y"]
    assert listing.open_runs() == ["z", "y", "x"]
    assert (listing.pipelines(), listing.count()) == ({"p": 2, "q": 1}, 3)


def test_items_are_found_by_run_step_and_state_in_input_order(catalog: SqlCatalog) -> None:
    catalog.put_batch(batch(), outcomes()[::-1])
    catalog.put_batch(batch("other"), outcomes())

    rows = catalog.items("run1")
    failed = catalog.items("run1", step=1, state="failed")

    assert [row["id"] for row in rows] == ["a", "b", "c", "d"]
    assert (rows[0]["tokens"], rows[0]["cost_usd"], rows[0]["duration_ms"]) == (15, 1.5e-6, 1000)
    assert [(row["id"], row["kind"], row["error"]) for row in failed] == [
        ("c", "timeout", "zu spät \\0 \\ud800")
    ]
    assert catalog.items("run1", step=2) == []
    assert [row["id"] for row in catalog.items("run1", limit=1)] == ["a"]


def test_an_item_id_may_be_of_any_length(catalog: SqlCatalog) -> None:
    long = Outcome("x" * 5000, 0, State.OK, output={})

    catalog.put_batch(batch(some=[long]), [long])

    assert catalog.items("run1")[0]["id"] == long.item_id


def test_a_batch_that_is_put_again_replaces_its_row_and_its_items(catalog: SqlCatalog) -> None:
    catalog.put_batch(batch(), outcomes())
    catalog.put_batch(batch(number=1), [Outcome("z", 9, State.OK, output={})])
    fewer = outcomes()[:2]

    catalog.put_batch(batch(some=fewer), fewer)

    assert [row["id"] for row in catalog.items("run1")] == ["a", "b", "z"]
    assert catalog.batches("run1") == {(1, 0): batch(some=fewer).summary, (1, 1): batch().summary}
    assert catalog.batches("run2") == {}
    stats = query(catalog, "SELECT * FROM pipeline_stats ORDER BY id")
    assert [(row["batch_id"], row["total_indicators"]) for row in stats] == [
        ("run1/1/0", 2), ("run1/1/1", 4),
    ]  # fmt: skip


def test_figures_are_of_the_items_that_were_tried(catalog: SqlCatalog) -> None:
    tried = (Attempt(1, 1.0, 1.0),)
    some = [
        Outcome("a", 0, State.OK, output={}, usage=Usage(1, 100, 10, 5), attempts=tried,
                started_at=1.0, ended_at=2.0),
        Outcome("b", 1, State.OK, output={}, usage=Usage(2, 300, 10, 5), attempts=tried * 2,
                started_at=1.0, ended_at=4.0),
        Outcome("c", 2, State.OK, output={}, started_at=1.0, ended_at=9.0),
        Outcome("d", 3, State.FAILED, error=ItemError("timeout", "x"), attempts=tried * 3,
                usage=Usage(3, 2_000_000_000_000, 10, 5), started_at=1.0, ended_at=3.0),
    ]  # fmt: skip
    catalog.put_batch(batch(some=some[:3]), some[:3])
    catalog.put_batch(batch("other", some=some), some)

    found = catalog.figures("run1", 1)

    assert found == StepFigures(2, 0, 1.5, 2.0, 200.0, 10.0, 100.0, 0.0)
    assert catalog.figures("other", 1).failed == 1
    assert catalog.figures("other", 1).input_tokens == pytest.approx(2e12 / 3, rel=1e-6)
    assert catalog.figures("run1", 2) == StepFigures(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_run_that_is_removed_is_gone_with_all_of_it_and_the_others_stay(
    catalog: SqlCatalog,
) -> None:
    for run in ("run1", "run2"):
        catalog.put_run(run_record(run))
        catalog.put_batch(batch(run), outcomes())

    catalog.remove_run("run1")
    catalog.remove_run("nobody")

    assert [one.run for one in catalog.runs("p")] == ["run2"]
    assert (catalog.items("run1"), catalog.batches("run1")) == ([], {})
    assert len(catalog.items("run2")) == len(outcomes())


def test_pipeline_stats_answers_the_query_that_people_know(catalog: SqlCatalog) -> None:
    catalog.put_batch(batch(), outcomes())
    later = replace(batch(number=1), started_at="2030-01-01T00:00:00.000Z", avg_confidence=None)
    catalog.put_batch(later, [])

    rows = query(catalog, "SELECT * FROM pipeline_stats ORDER BY batch_start_time DESC LIMIT 10;")
    (one,) = query(catalog, "SELECT * FROM pipeline_stats WHERE batch_id = 'run1/1/0'")

    assert [row["batch_id"] for row in rows] == ["run1/1/1", "run1/1/0"]
    assert list(one) == STATS_COLUMNS
    assert (one["model"], one["provider"]) == ("deepseek-chat", "ds")
    assert [one[name] for name in STATS_COLUMNS[4:7]] == [4, 3, 1]
    assert one["batch_start_time"] == "1970-01-01T00:00:01.000Z"
    assert (one["total_duration_ms"], one["avg_time_per_indicator_ms"]) == (3000, 750)
    assert one["avg_confidence"] == pytest.approx(0.75)
    assert one["created_at"] == one["updated_at"] == "2026-09-21T14:13:20.000Z"


def test_a_batch_that_breaks_half_way_leaves_nothing(catalog: SqlCatalog) -> None:
    broken = replace(outcomes()[1], index=None)  # type: ignore[arg-type]

    with pytest.raises(StoreError):
        catalog.put_batch(batch(), [outcomes()[0], broken])

    assert catalog.items("run1") == []
    assert query(catalog, "SELECT * FROM pipeline_stats") == []


@of_files_and_servers
def test_opening_a_catalog_again_keeps_what_is_in_it(url: str) -> None:
    first = open_catalog(url)
    first.put_run(run_record())
    first.close()

    again = open_catalog(url)

    assert len(again.runs("p")) == 1
    again.close()


@of_files_and_servers
def test_a_catalog_of_another_schema_is_refused_with_what_to_do(url: str) -> None:
    old = open_catalog(url)
    with old._writer.begin() as connection:
        connection.execute(text("UPDATE catalog_about SET value = '99'"))
    old.close()

    with pytest.raises(StoreError, match=rf"schema 99, this batchq reads {SCHEMA_VERSION}.*made"):
        open_catalog(url)


@of_files_and_servers
def test_processes_that_open_and_write_a_new_catalog_at_once_all_succeed(url: str) -> None:
    code = (
        "import sys; from dataclasses import replace\n"
        "from batchq.store import open_catalog\n"
        "from batchq.progress import RunState\n"
        "from batchq.records import RunRecord\n"
        "sys.stdin.read(); catalog = open_catalog(sys.argv[1])\n"
        "for n in range(20): catalog.put_run(RunRecord(f'{sys.argv[2]}-{n}', 'p', 'v0',\n"
        "    RunState.PENDING, '', '', '', '', '', ''))"
    )
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([sys.executable, "-c", code, url, str(name)], stdin=pipe)
        for name in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()

    codes = [process.wait(timeout=60) for process in processes]

    catalog = open_catalog(url)
    assert codes == [0, 0, 0, 0]
    assert len(catalog.runs("p")) == 80
    catalog.close()


def test_a_lost_catalog_is_made_again_from_the_run_folders(
    catalog: SqlCatalog, tmp_path: Path, plan_of_one: Any
) -> None:
    outputs = Outputs(str(tmp_path / "outputs"))
    for _ in range(2):
        folder = outputs.create_version("p")
        record = replace(run_record(f"run-{folder.version}"), version=folder.version, notes="n",
                         state=RunState.COMPLETED, summary=Summary())  # fmt: skip
        folder.write_plan(plan_of_one)
        folder.write_metadata(record, plan_of_one, {})
        folder.write_batch(1, 0, [outcomes()[0]], OutputSpec("x.json"))
    broken = outputs.create_version("p")
    broken.write_plan(plan_of_one)
    broken.files.write("metadata.json", b"{")

    rebuilt = rebuild(outputs, catalog)

    assert (rebuilt.runs, rebuilt.batches) == (2, 2)
    assert [problem for problem in rebuilt.problems if "v2/metadata.json" in problem]
    assert [(one.run, one.version, one.notes) for one in catalog.runs("p")] == [
        ("run-v0", "v0", "n"), ("run-v1", "v1", "n"),
    ]  # fmt: skip
    assert catalog.runs("p")[0].summary == Summary.of(outcomes()[0])
    assert [row["id"] for row in catalog.items("run-v1")] == ["a"]


@pytest.fixture
def plan_of_one() -> Any:
    from batchq.plan import InputSpec, Pacing, Plan, StepPlan, Tolerance

    step = StepPlan(
        spec=STEP, input=InputSpec(), output=OutputSpec("x.json"), pacing=Pacing(), queue="cpu",
        needs=(), tolerance=Tolerance(), items=1, items_are_estimated=False, batches=1, calls=0,
        input_tokens=0, output_tokens=0, cost_usd=None, duration_s=1.0, bound_by="cpu",
    )  # fmt: skip
    return Plan(
        name="p", pipeline="p", labels={}, status="draft", notes="n", output_dir="outputs",
        manifest_path="m.yaml", base_dir=".", params={}, steps=(step,), hashes={},
    )  # fmt: skip


# --- what cannot be opened ---


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "cannot be read"),
        ("mysql://u:secret@h/d", "mysql is not supported"),
        ("sqlite:////proc/nope/catalog.sqlite", "BATCHQ_CATALOG_URL"),
        ("sqlite:////etc", "unable to open"),
        ("sqlite:////etc/passwd", "not a database"),
        ("postgresql://u:secret@127.0.0.1:1/d", "(?i)connection.*refused"),
    ],
)
def test_a_catalog_that_cannot_be_opened_is_an_error_without_the_password(
    address: str, message: str
) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        open_catalog(address)

    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_an_error_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(StoreError, match=r"pip install 'batchq\[postgres\]'"):
        open_catalog("postgresql://h/d")


def test_a_catalog_that_stays_locked_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchq.store.database.BUSY_TIMEOUT_S", 0.05)
    catalog = open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite")
    other = sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreError, match=r"locked\. Another process"):
        catalog.put_run(run_record())

    assert catalog.runs("p") == []  # readers do not wait for a writer
    other.close()
    catalog.close()


def test_the_folder_of_a_new_catalog_is_private(tmp_path: Path) -> None:
    open_catalog(f"sqlite:///{tmp_path}/home/catalog.sqlite").close()

    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


def test_runs_are_listed_by_what_they_are_a_page_at_a_time(catalog: SqlCatalog) -> None:
    for number in range(3):
        record = run_record(f"run{number}", created=10 + number)
        catalog.put_run(replace(record, version=f"v{number}", notes=f"50% Note{number}"))
    catalog.put_run(replace(run_record("other", "q"), state=RunState.COMPLETED, status="rc"))
    listing = Listing(catalog.engine)

    def names(wanted: RunFilter, offset: int = 0) -> list[str]:
        return [one.run for one in listing.runs(wanted, offset=offset, limit=2)[0]]

    assert listing.runs(RunFilter(), offset=2, limit=2)[1] == 4
    assert names(RunFilter(pipeline="p")) == ["run2", "run1"]
    assert names(RunFilter(pipeline="p"), 2) == ["run0"]
    assert names(RunFilter(state="completed")) == names(RunFilter(label="rc")) == ["other"]
    assert names(RunFilter(state="open", text="50% nOTE1")) == ["run1"]
    assert names(RunFilter(text="P@v2")) == ["run2"]
    assert names(RunFilter(text="_")) == []
    assert listing.names() == (["p", "q"], ["draft", "rc"])
    catalog.put_run(replace(run_record("tenth"), version="v10", status="final"))
    found = [listing.run(one) for one in ("p", "p@v0", "run1", "q@latest", "p@latest", "p@v9")]
    assert [one and one.run for one in found] == ["tenth", "run0", "run1", "other", None, None]
    assert [one.version for one in listing.versions("p", 2)] == ["v10", "v2"]
    assert [one.version for one in listing.versions("p", None, labels=("final",))] == ["v10"]


def test_items_are_listed_in_input_order_from_any_place_and_both_ways(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.put_batch(batch(), outcomes())
    listing = Listing(catalog.engine)

    def ids(wanted: ItemFilter, **place: tuple[int, int]) -> list[str]:
        look = listing.items_before if "before" in place else listing.items
        return [one["id"] for one in look("run1", wanted, limit=2, **place).rows]  # type: ignore[operator]

    assert ids(ItemFilter(), after=(1, -1)) == ["a", "b"]
    assert ids(ItemFilter(step=1), after=(1, 1)) == ["c", "d"]
    assert ids(ItemFilter(), before=(1, 3)) == ["b", "c"]
    assert ids(ItemFilter(state="failed"), after=(0, 0)) == ["c"]
    assert ids(ItemFilter(kind="timeout", text="ZU "), after=(0, 0)) == ["c"]
    assert ids(ItemFilter(text="B"), after=(0, 0)) == ["b"]
    assert ids(ItemFilter(text="%"), after=(0, 0)) == []
    assert listing.durations("run1", 1) == [0.0, 3.0, 1.5, 1.0]
    monkeypatch.setattr("batchq.store.listing.MOST_LOOKED", 2)
    wanted = ItemFilter(text="c")
    assert listing.items("run1", wanted, after=(0, 0), limit=2) == ItemPage([], (1, 1))
    found = listing.items("run1", wanted, after=(1, 1), limit=2)
    assert ([one["id"] for one in found.rows], found.looked_to) == (["c"], (1, 3))
    assert listing.items("run1", wanted, after=(1, 3), limit=2) == ItemPage([])
    assert listing.items_before("run1", wanted, before=(1, 2), limit=2).looked_to == (1, 0)
    assert [(one.start, one.end, one.ok, one.failed) for one in listing.spans("run1")] == [
        (1.0, 4.0, 3, 1)
    ]
