"""What the pages show, and that all text in them is text."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from batchq.progress import RunState

HOSTILE = "<script>alert(1)</script>"
ALL = ("", "/items", "/failures")


def test_the_list_shows_every_run_with_its_counts_and_can_be_filtered(
    world: Any, serve: Any
) -> None:
    world.version({"a": 1, "b": ValueError("no")}, name="first", notes="A rubric")
    world.version({"a": 1}, name="second", state=RunState.CANCELLED)
    pages = serve()

    everything, filtered = pages.get("/runs").text, pages.get("/runs?state=cancelled").text
    told = pages.get("/api/batchq/runs?text=rubric").json()

    assert "first<b>@v0</b>" in everything
    assert "second<b>@v0</b>" in everything
    assert "1 failed</b> of 2" in everything
    assert "second" in filtered
    assert "first<b>" not in filtered
    assert [run["name"] for run in told["runs"]] == ["first@v0"]
    assert told["runs"][0]["bar"] == {"total": 2, "ok": 1, "cached": 0, "failed": 1, "running": 0}


def test_a_run_is_shown_with_steps_charts_events_and_what_can_be_done(
    world: Any, serve: Any
) -> None:
    world.version({f"i{n}": n for n in range(8)} | {"bad": ValueError("no")})
    pages = serve()

    text = pages.get("/runs/words@v0").text
    told = pages.get("/api/batchq/runs/words@v0").json()

    assert told["actions"] == ["retry", "label"]
    assert sum(told["chart"]["ok"]) == pytest.approx(8, abs=0.2)
    assert sum(told["chart"]["failed"]) == pytest.approx(1, abs=0.1)
    assert told["latency"]["p50_s"] == 0.5
    assert "Retry 1 failed item" in text
    assert "As a table" in text
    assert [event["event"] for event in told["events"]][-1] == "step done"


@pytest.mark.parametrize("path", [*ALL, f"/item?id={HOSTILE}"])
def test_hostile_text_is_text_on_every_page(world: Any, serve: Any, path: str) -> None:
    world.version({HOSTILE: {"said": HOSTILE}, "b": ValueError(HOSTILE)}, notes=HOSTILE)
    world.version({HOSTILE: {"said": HOSTILE * 2}}, notes=HOSTILE)
    pages = serve()

    answers = [
        pages.get(f"/runs/words@v0{path}"),
        pages.get("/runs"),
        pages.get("/runs/<script>"),
    ]
    answers.append(pages.get("/compare?pipeline=words"))

    assert [one.status_code for one in answers] == [200, 200, 404, 200]
    for answer in answers:
        assert HOSTILE not in answer.text
        assert "&lt;script&gt;" in answer.text


def test_an_item_is_told_whole_and_links_back(world: Any, serve: Any) -> None:
    world.version({"a": {"said": "yes"}, "b": ValueError("no such word")})
    pages = serve()

    good, bad = (pages.get(f"/runs/words@v0/item?id={one}").text for one in "ab")
    missing = pages.get("/runs/words@v0/item?id=c")

    assert "&#34;said&#34;: &#34;yes&#34;" in good
    assert "no such word" in bad
    assert "an answer &lt;b&gt;as it came" in bad
    assert missing.status_code == 404
    assert "words@v0 has no item c; ids are such as: a, b" in missing.text


def test_items_are_paged_both_ways_and_found_by_text_of_id_or_error(
    world: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.version({f"i{n:03}": ValueError("odd") if n % 2 else n for n in range(130)})
    pages = serve()

    def look(query: str) -> tuple[list[str], Any]:
        told = pages.get(f"/api/batchq/runs/words@v0/items{query}").json()
        return [one["id"] for one in told["items"]], told

    first, told = look("")
    second, last = look(f"?after={told['after']}")
    back, _ = look(f"?before={last['before']}")

    assert (first[0], first[-1], second[0], second[-1]) == ("i000", "i099", "i100", "i129")
    assert last["after"] is None
    assert back == first
    assert look("?text=i07")[0] == [f"i07{n}" for n in range(10)]
    assert look("?text=ODD&from=101")[0][0] == "i101"
    assert look("?state=ok&text=odd")[0] == []
    monkeypatch.setattr("batchq.store.listing.MOST_LOOKED", 100)
    empty, told_more = look("?text=i129")
    assert (empty, told_more["after"], told_more["looked_to"]) == ([], "1.99", "1.99")
    assert look("?text=i129&after=1.99")[0] == ["i129"]
    page = pages.get("/runs/words@v0/items?text=i129").text
    assert "up to number 100" in page
    assert "/runs/words@v0/item?id=i129" in page
    assert told["counts"] == {"ok": 65, "failed": 65, "waiting": 0, "total": 130}


def test_failures_are_grouped_and_comparisons_show_regressions_first(
    world: Any, serve: Any
) -> None:
    world.version({"a": "old", "b": 1, "c": ValueError("c is 7")})
    world.version({"a": "new", "b": ValueError("b is 8"), "c": ValueError("c is 9")})
    pages = serve()

    groups = pages.get("/api/batchq/runs/words@v1/failures").json()["groups"]
    seen = pages.get("/api/batchq/compare?pipeline=words").json()
    shown = pages.get("/compare?pipeline=words&change=changed").text

    assert [(one["count"], one["pattern"]) for one in groups] == [(2, "<id> is <n>")]
    assert (seen["old"], seen["new"]) == ("v0", "v1")
    assert [one["change"] for one in seen["comparison"]["changes"]] == [
        "regressed", "changed", "failed",
    ]  # fmt: skip
    assert "<del>old</del>" in shown
    assert "<ins>new</ins>" in shown


def test_a_run_that_is_deleted_while_it_is_looked_at_is_told_of(
    world: Any, serve: Any, wait_for: Any
) -> None:
    info = world.version({"a": 1, "b": ValueError("no")})
    pages = serve()
    assert "throughput" in pages.get("/runs/words@v0").text
    shutil.rmtree(info.folder)

    answers = {path: pages.get(f"/runs/words@v0{path}") for path in ("/failures", "/item?id=a")}

    wait_for(lambda: "is gone" in pages.get("/runs/words@v0").text, "the page says so")
    assert pages.get("/runs").status_code == pages.get("/runs/words@v0/items").status_code == 200
    for answer in answers.values():
        assert answer.status_code == 404
        assert "is gone" in answer.text
