"""Flower with the pages in it: its own pages all work, and its login, prefix and switch hold."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests

from batchq.cli.pages import flower_command
from batchq.errors import UsageError
from batchq.web.in_flower import read_options
from batchq.web.menu import has_known_menu, with_entry

FLOWERS = ("/", "/workers", "/tasks", "/broker")
OURS = ("/runs", "/compare", "/limits")


def start_flower(project: Any, redis_url: str, *options: str) -> str:
    process = project.start("flower", "--port=0", *options, env={"BATCHQ_BROKER_URL": redis_url})
    line = process.stderr.readline()
    found = re.search(r"is at (http://\S+)/", line)
    assert found, line + process.stderr.read()
    return found[1]


def test_flower_keeps_its_pages_and_has_ours_behind_its_login(project: Any, redis_url: str) -> None:
    login = ("ann", "secret")
    url = start_flower(
        project, redis_url, "--basic-auth=ann:secret", "--url-prefix=below", "--read_only"
    )
    open_pages = {
        path: requests.get(url + path, timeout=10).status_code for path in (*FLOWERS, *OURS)
    }
    pages = {path: requests.get(url + path, auth=login, timeout=10) for path in (*FLOWERS, *OURS)}
    plain = {
        path: requests.get(url + path, auth=login, timeout=10).status_code
        for path in (
            "/metrics",
            "/healthcheck",
            "/api/workers",
            "/api/tasks",
            "/nope",
            "/runs/nope",
        )
    }
    files = re.findall(r'(?:href|src)="/below(/batchq/files/[^"]+)"', pages["/runs"].text)
    form = {"_xsrf": "forged"}
    refused = requests.post(f"{url}/limits/set", data=form, auth=login, timeout=10)
    twin = requests.get(f"{url}/api/batchq/runs", auth=login, timeout=10)

    assert url.endswith("/below")
    assert set(open_pages.values()) == {401}
    for path, page in pages.items():
        assert page.status_code == 200, path
        assert 'href="/below/runs"' in page.text, path
        assert 'href="/below/workers"' in page.text, path
    assert plain == {
        "/metrics": 200, "/healthcheck": 200, "/api/workers": 200, "/api/tasks": 200,
        "/nope": 404, "/runs/nope": 404,
    }  # fmt: skip
    assert len(files) == 3
    assert {requests.get(url + one, timeout=10).status_code for one in files} == {200}
    assert refused.status_code == 403
    assert twin.json()["total"] == 0


def test_flower_stays_on_this_machine_unless_there_is_a_login(project: Any, redis_url: str) -> None:
    public = project.run("flower", "--address=0.0.0.0", env={"BATCHQ_BROKER_URL": redis_url})

    assert public.returncode == 2
    assert "Set a login" in public.stderr


def test_an_option_that_flower_does_not_have_and_a_want_of_a_broker_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BATCHQ_BROKER_URL", raising=False)

    with pytest.raises(UsageError, match="--prot=1: Flower has no such option"):
        read_options(["--prot=1"])
    with pytest.raises(UsageError, match="`batchq web` shows the runs of this folder"):
        flower_command.main([], standalone_mode=False)


def test_a_menu_that_is_not_known_is_left_alone() -> None:
    assert has_known_menu()
    assert with_entry("<nav><ul><li>Workers</li></ul></nav>", "") is None
