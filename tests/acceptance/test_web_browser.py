"""A person with a browser: log in, watch a run, mend and retry, compare, change a limit."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from playwright.sync_api import Page, expect, sync_playwright

from batchq.endpoint import Limits, ProviderSpec, RateLimit
from batchq.limiter import desk

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",  # which root cannot do without
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TASKS = """
    import time
    from pathlib import Path

    HERE = Path(__file__).parent

    def shout(item):
        while item["id"] > "w3" and not (HERE / "go").exists():
            time.sleep(0.02)
        if item["id"] == "w2" and not (HERE / "mended").exists():
            raise ValueError("<script>alert('w2')</script> is no word")
        return {"text": item["word"].upper() + "!" * (HERE / "mended").exists()}
"""
MANIFEST = """
    name: words
    config: {batch_size: 4}
    steps:
      - {name: shout, input: words.json, id_field: id, task: "word_tasks:shout"}
"""
PATIENCE_MS = 30_000


@pytest.fixture
def page() -> Iterator[Page]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed (`scripts/setup dev`)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        login = {"username": "ann", "password": "secret"}
        opened = browser.new_context(http_credentials=login).new_page()
        opened.set_default_timeout(PATIENCE_MS)
        yield opened
        browser.close()


@pytest.fixture
def stack(project: Any, redis_url: str) -> dict[str, str]:
    """A broker with workers and Flower for it; `url` is Flower's."""
    project.write("word_tasks.py", textwrap.dedent(TASKS))
    project.write("words.json", [{"id": f"w{n}", "word": f"word {n}"} for n in range(8)])
    project.write("m.yaml", textwrap.dedent(MANIFEST))
    env = {
        "BATCHQ_BROKER_URL": redis_url,
        "BATCHQ_TASKS": '["word_tasks"]',
        "PYTHONPATH": str(project.folder),
        "FLOWER_BASIC_AUTH": "ann:secret",
    }
    process = project.start("up", "--workers", "4", "-c", "1", env=env)
    for line in process.stderr:
        if found := re.search(r"http://\S+:\d+(?=, the runs)", line):
            return env | {"url": found[0]}
    pytest.fail(f"`batchq up` did not start: {process.returncode}")


def test_a_person_logs_in_watches_a_run_mends_it_compares_and_changes_a_limit(
    project: Any, stack: dict[str, str], page: Page, redis_client: redis.Redis, wait_for: Any
) -> None:
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    url = stack.pop("url")
    submitted = project.run("submit", "m.yaml", "--detach", env=stack)
    assert submitted.returncode == 0, submitted.stderr

    # Flower, behind its login, has the runs in its menu.
    page.goto(f"{url}/tasks")
    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_role("link", name="words@v0").click()

    # The bar moves while nobody touches the page.
    bar = page.get_by_role("img", name=re.compile("^step shout"))
    expect(page.locator("[data-live=state]")).to_contain_text("running", timeout=PATIENCE_MS)
    expect(bar).to_have_attribute(
        "aria-label", re.compile("3 ok, 1 failed, .*of 8"), timeout=PATIENCE_MS
    )
    project.write("go", "")
    expect(bar).to_have_attribute(
        "aria-label", re.compile("7 ok, 1 failed, of 8"), timeout=PATIENCE_MS
    )
    expect(page.locator("[data-live=state]")).to_contain_text("completed", timeout=PATIENCE_MS)

    # What failed, and the item: its text is text.
    page.get_by_role("link", name="why").click()
    page.get_by_role("link", name="w2").first.click()
    expect(page.get_by_role("heading", name="w2")).to_be_visible()
    expect(page.locator("main")).to_contain_text("<script>alert('w2')</script> is no word")
    page.get_by_label("Note").fill("no word at all")
    page.get_by_role("button", name="Bad").click()
    expect(page.locator("main")).to_contain_text("w2 is marked bad.")

    # Mended, it is tried again, by the keyboard.
    project.write("mended", "")
    page.get_by_role("link", name="words@v0").click()
    page.get_by_role("button", name="Retry 1 failed item").focus()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text("1 failed item is tried again.")
    expect(bar).to_have_attribute("aria-label", re.compile("8 ok, of 8"), timeout=PATIENCE_MS)

    # Another version, and what changed in it.
    assert project.run("submit", "m.yaml", "--wait", env=stack).returncode == 0
    page.goto(f"{url}/runs/words@v1")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="v0 → v1")).to_be_visible()
    expect(page.locator(".counts .changed")).to_contain_text("7")
    expect(page.locator("ins").first).to_have_text("!")

    # Since somebody looked at Flower's tasks, workers tell of them: an item leads to its task.
    page.get_by_role("link", name="Its story").first.click()
    page.get_by_role("link", name="Its task in Flower").click()
    expect(page.locator("body")).to_contain_text("batchq.run_item")

    # A limit, for all hosts.
    limits = Limits((RateLimit("rpm", "requests", 60.0, 60.0),))
    desk.announce(
        redis_client, ProviderSpec("llm", "openai", "http://127.0.0.1/v1", "m", limits=limits)
    )
    page.goto(f"{url}/limits")
    page.get_by_label("Amount").fill("90")
    page.get_by_role("button", name="Set for all hosts").click()
    expect(page.locator("main")).to_contain_text("rpm of llm is 90 now, for all hosts.")

    assert desk.usage(redis_client)[0].limit("rpm") == 90
    assert problems == []
