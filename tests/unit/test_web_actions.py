"""What can be done on the pages, and by whom it cannot."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import redis

from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.limiter import desk
from batchq.progress import RunState
from batchq.runs.life import find_run
from batchq.runs.versions import open_version
from batchq.services import build_services
from batchq.store.marks import read_marks

RUN = "/runs/words@v0"
FAILED = {"a": 1, "b": ValueError("b is 7"), "c": ValueError("c is 8"), "d": KeyError("no")}


def test_a_version_is_labelled_and_a_word_that_is_no_label_is_refused_on_the_page(
    world: Any, serve: Any
) -> None:
    world.version({"a": 1})
    pages = serve()

    done = pages.post(f"{RUN}/do/label", label="rc", note="looks well")
    told = pages.said(RUN)
    refused = pages.post(f"{RUN}/do/label", label="fnal", note="")
    why = pages.said(RUN)
    record = find_run("words@v0", world.services)

    assert (done.status_code, done.headers["Location"]) == (303, RUN)
    assert told == "words@v0 is rc."
    assert (refused.status_code, refused.headers["Location"]) == (303, RUN)
    assert "did you mean final?" in why
    assert (record.status, record.notes) == ("rc", "looks well")
    assert pages.said(RUN) == ""


def test_an_item_is_marked_and_one_of_a_final_version_is_not(world: Any, serve: Any) -> None:
    info = world.version({"a/b": 1})
    pages = serve()

    pages.post(f"{RUN}/do/mark", id="a/b", verdict="bad", note="odd")
    marked = pages.get(f"{RUN}/item?id=a/b").text
    pages.post(f"{RUN}/do/label", label="final", note="")
    pages.get(RUN)
    pages.post(f"{RUN}/do/mark", id="a/b", verdict="good", note="")

    assert "a/b is marked bad" in marked
    assert "read-only" in pages.said(RUN)
    marks = read_marks(open_version("words", "v0", info.folder).folder)
    assert {item: mark.verdict for item, mark in marks.items()} == {"a/b": "bad"}


def test_a_paused_run_is_cancelled_and_one_that_is_over_cannot_be(world: Any, serve: Any) -> None:
    world.version({"a": 1}, state=RunState.PAUSED)
    pages = serve()

    pages.post(f"{RUN}/do/pause")
    not_paused = pages.said()
    pages.post(f"{RUN}/do/cancel")
    cancelled = pages.said()
    pages.post(f"{RUN}/do/cancel")

    assert not_paused == "words@v0 is not in flight: nothing to stop"
    assert cancelled == "words@v0 is cancelled."
    assert pages.said() == "words@v0 is cancelled already"
    assert find_run("words@v0", world.services).state is RunState.CANCELLED


def test_a_group_of_failures_is_tried_again_and_then_the_run_can_be_stopped(
    world: Any, serve: Any, redis_url: str
) -> None:
    info = world.version(FAILED)
    settings = world.settings.model_copy(update={"broker_url": redis_url})
    ledger = build_services(settings).ledger
    pages = serve(settings)
    groups = pages.get(f"/api/batchq{RUN}/failures").json()["groups"]

    pages.post(f"{RUN}/do/retry", group=groups[0]["fingerprint"])
    told, state = pages.said(), ledger.state(info.run)
    shown = pages.get(f"/api/batchq{RUN}").json()
    pages.post(f"{RUN}/do/pause")
    paused, after = pages.said(), ledger.state(info.run)

    assert groups[0]["count"] == 2
    assert told == "2 failed items are tried again."
    assert state is RunState.RUNNING
    assert shown["actions"] == ["pause", "cancel"]
    assert paused.startswith("words@v0 is pausing")
    assert after is RunState.PAUSED


def test_a_limit_is_shown_and_changed_for_all_hosts(
    world: Any, serve: Any, redis_url: str, redis_client: redis.Redis
) -> None:
    limits = Limits((RateLimit("rpm", "requests", 60.0, 60.0),), concurrency=4)
    spec = ProviderSpec("<b>llm</b>", "openai", "http://127.0.0.1/v1", "m", limits=limits)
    desk.announce(redis_client, spec)
    pages = serve(world.settings.model_copy(update={"broker_url": redis_url}))
    key = pages.get("/api/batchq/limits").json()["providers"][0]["key"]

    pages.post("/limits/set", provider=key, limit="rpm", amount="90")
    changed, shown = pages.said("/limits"), pages.get("/limits").text
    pages.post("/limits/set", provider=key, limit="rpm", amount="0")
    refused = pages.said("/limits")
    pages.post("/limits/set", provider=key, limit="rpm", amount="")

    assert changed == "rpm of &lt;b&gt;llm&lt;/b&gt; is 90 now, for all hosts."
    assert "set by hand, the manifest says 60" in shown
    assert "rpm must be a number from 1" in refused
    assert desk.usage(redis_client)[0].limit("rpm") == 60


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Cookie": "_xsrf=2|bad|cookie"},
        {"Cookie": "_xsrf=forged", "X-XSRFToken": "another"},
        {"Origin": "http://evil.example"},
        {"Origin": "null", "X-Batchq-Action": "1"},
        {"Sec-Fetch-Site": "cross-site", "X-Batchq-Action": "1"},
    ],
)
def test_a_form_that_is_not_of_a_page_of_ours_is_refused(
    world: Any, serve: Any, headers: dict[str, str]
) -> None:
    world.version({"a": 1})
    pages = serve()

    answer = pages.session.post(
        f"{pages.url}{RUN}/do/label", data={"label": "rc"}, headers=headers, timeout=10
    )

    assert answer.status_code == 403
    assert find_run("words@v0", world.services).status == "draft"


def test_a_program_acts_with_a_header_and_is_told_in_json(world: Any, serve: Any) -> None:
    world.version({"a": 1})
    pages = serve()
    url, header = f"{pages.url}/api/batchq{RUN}/do", {"X-Batchq-Action": "1"}

    done = pages.session.post(f"{url}/label", {"label": "rc"}, headers=header, timeout=10)
    refused = pages.session.post(f"{url}/label", {"label": "fnal"}, headers=header, timeout=10)
    unknown = pages.session.post(f"{url}/explode", headers=header, timeout=10)

    assert done.json() == {"said": "words@v0 is rc."}
    assert (refused.status_code, unknown.status_code) == (400, 404)
    assert "did you mean final?" in refused.json()["error"]


def test_pages_that_are_read_only_have_no_forms_and_take_none(world: Any, serve: Any) -> None:
    world.version(FAILED)
    pages = serve(read_only=True)

    text = "".join(pages.get(one).text for one in (RUN, f"{RUN}/failures", f"{RUN}/item?id=a"))
    answers = [pages.post(one) for one in (f"{RUN}/do/retry", "/limits/set")]

    assert 'method="post"' not in text
    assert [one.status_code for one in answers] == [403, 403]


def test_pages_say_that_redis_is_gone_and_stay_up(world: Any, serve: Any) -> None:
    world.version({"a": 1}, state=RunState.PAUSED)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings = world.settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{port}/0"})
    pages = serve(settings)

    answers = {one: pages.get(one) for one in (RUN, "/runs", f"{RUN}/items", "/limits")}
    acted = pages.post(f"{RUN}/do/unpause")

    assert {one.status_code for one in answers.values()} == {200}
    for path in (RUN, "/runs", "/limits"):
        assert "Redis does not answer" in answers[path].text, path
    assert acted.status_code == 303
    assert "Redis did not answer" in pages.said("/limits")


def test_pages_say_that_the_catalog_is_broken_and_come_back_with_it(world: Any, serve: Any) -> None:
    world.version({"a": 1})
    file = Path(world.settings.home / "catalog.sqlite")
    pages = serve()
    assert pages.get("/runs").status_code == 200
    whole = file.read_bytes()
    world.services.catalog.close()
    for one in file.parent.glob("catalog.sqlite*"):
        one.unlink()
    file.write_bytes(b"no database" * 1000)

    broken = serve()
    answers = [broken.get(one) for one in ("/runs", RUN, f"/api/batchq{RUN}/items")]
    file.write_bytes(whole)

    assert {one.status_code for one in answers} == {503}
    assert "catalog" in answers[0].text
    assert "catalog" in answers[2].json()["error"]
    assert broken.get("/runs").status_code == 200


def test_bad_input_gets_a_clear_answer_and_never_a_fault(world: Any, serve: Any) -> None:
    world.version({"a": 1})
    pages = serve()
    host = pages.url.removeprefix("http://")
    cases = {
        "/runs?page=-1": 400,
        "/runs?page=٣": 400,
        "/runs?page=99999999999999999999": 400,
        "/runs?page=1000000": 200,
        "/runs?state=odd": 400,
        "/runs?text=%FF": 400,
        "/runs?text=%00": 400,
        f"/runs?text={'x' * 600}": 400,
        "/runs?text=%25_'%22;DROP": 200,
        "/runs/..%2f..%2fetc%2fpasswd": 404,
        "/runs/%2e%2e/items": 404,
        "/runs/%FF": 400,
        "/batchq/files/..%2fapp.py": 404,
        "/batchq/files/app.py": 404,
        f"{RUN}/item": 400,
        f"{RUN}/item?id=../../plan.json": 404,
        f"{RUN}/items?after=x": 400,
        f"{RUN}/items?after=1.-5": 400,
        f"{RUN}/items?step=7": 200,
        "/compare?pipeline=nope": 404,
        "/compare?pipeline=words&old=v7": 404,
        "/compare?pipeline=words&old=v0&new=v0&step=nope": 400,
        "/api/batchq/nope": 404,
    }

    found = {path: pages.get(path).status_code for path in cases}
    odd_cookie = pages.get("/runs", headers={"Cookie": "batchq_said=bad; _xsrf=2|x;;;=;"})
    odd_host = pages.get("/runs", headers={"Host": "evil.example"})
    other_methods = [
        pages.session.request(one, f"{pages.url}/runs", timeout=10).status_code
        for one in ("PUT", "DELETE", "OPTIONS", "PATCH")
    ]
    with socket.create_connection((host.split(":")[0], int(host.split(":")[1])), timeout=10) as raw:
        raw.sendall(
            f"POST {RUN}/do/label HTTP/1.1\r\nHost: {host}\r\nContent-Length: 104857600\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n\r\n".encode()
        )
        cut_off = raw.recv(1000)

    assert found == cases
    assert odd_cookie.status_code == 200
    assert odd_host.status_code == 403
    assert set(other_methods) <= {403, 405}
    assert b" 200 " not in cut_off
    assert pages.get("/runs").status_code == 200


def test_a_login_keeps_everything_but_style_and_script(world: Any, serve: Any) -> None:
    world.version({"a": 1})
    pages = serve(basic_auth=["ann:secret"], url_prefix="/below/")
    paths = ("/runs", RUN, "/api/batchq/runs", "/nope")

    closed = {one: pages.get(one).status_code for one in paths}
    odd = [
        pages.get("/runs", headers={"Authorization": one}).status_code
        for one in ("Basic", "Basic !!!", "Bearer x", "Basic 5Q==", "Basic YW5uOnNlY3JldMOk")
    ]
    pages.session.auth = ("ann", "secret")
    opened = {one: pages.get(one) for one in paths}
    pages.post(f"{RUN}/do/label", label="rc", note="")

    assert set(closed.values()) == {401}
    assert odd == [401] * 5
    assert [one.status_code for one in opened.values()] == [200, 200, 200, 404]
    assert "/below/runs/words@v0" in opened["/runs"].text
    assert pages.said() == "words@v0 is rc."
    assert "default-src 'none'" in opened["/runs"].headers["Content-Security-Policy"]


def test_a_run_that_is_about_to_be_taken_up_is_told_from_its_folder(
    world: Any, serve: Any, redis_url: str
) -> None:
    info = world.version({"a": 1}, state=RunState.PAUSED)
    settings = world.settings.model_copy(update={"broker_url": redis_url})
    build_services(settings).ledger.quiesce(info.run, [])  # as a resume does first

    told = serve(settings).get(f"/api/batchq{RUN}").json()

    assert told["progress"]["items"]["ok"] == 1
