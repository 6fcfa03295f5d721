"""The same request is paid once, over runs, by the command line and a real provider's server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MANIFEST = """\
version: 1
name: studio
providers:
  sim: {{kind: openai, base_url: "{url}", model: sim-1, api_key_env: SIM_KEY, cache: {cache}}}
config: {{provider: sim, options: {{max_tokens: 50}}}}
steps:
  - name: generate
    input: items.json
    id_field: id
    prompt: |
      Write {words} about {{topic}}.
    output_schema: {{type: object, required: [text], properties: {{text: {{type: string}}}}}}
"""
KEY = {"SIM_KEY": "sk-s3cret-0815"}


def write(project: Any, url: str, cache: str = "true", words: str = "a line") -> None:
    project.write("items.json", [{"id": str(i), "topic": f"topic {i}"} for i in range(6)])
    project.write("m.yaml", MANIFEST.format(url=url, cache=cache, words=words))


def submit(project: Any, *options: str) -> str:
    done = project.run("submit", "m.yaml", *options, env=KEY)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def outputs(project: Any, version: int) -> Any:
    return project.read(f"outputs/studio/v{version}/collated/01_generate.json")


def test_a_second_submit_pays_nothing_and_no_cache_and_a_new_prompt_pay_again(
    project: Any, simulator: Any
) -> None:
    provider = simulator()
    write(project, provider.url)

    submit(project)
    paid_first = provider.stats()["accepted"]
    second = submit(project)
    paid_second = provider.stats()["accepted"]
    anew = submit(project, "--no-cache")
    paid_anew = provider.stats()["accepted"]
    write(project, provider.url, words="two lines")
    submit(project)
    paid_changed = provider.stats()["accepted"]

    assert [paid_first, paid_second, paid_anew, paid_changed] == [6, 6, 12, 18]
    assert "6 ok, 0 failed, 6 from cache" in second
    assert "cost" not in second
    assert "from cache" not in anew
    assert outputs(project, 1) == outputs(project, 0)
    totals = project.read("outputs/studio/v1/metadata.json")["totals"]
    assert (totals["cache_hits"], totals["calls"], totals["cost_usd"]) == (6, 0, 0.0)
    status = json.loads(project.run("status", "studio@v1", "--json").stdout)
    assert (status["items"]["cached"], status["calls"], status["input_tokens"]) == (6, 0, 0)
    assert "6 from cache" in project.run("status", "studio@v1").stdout


def test_a_rerun_pays_for_its_items_and_their_new_answers_are_kept(
    project: Any, simulator: Any
) -> None:
    provider = simulator()
    write(project, provider.url)
    submit(project)

    redone = project.run("rerun", "studio", "3", env=KEY)
    paid = provider.stats()["accepted"]
    after = submit(project)

    assert redone.returncode == 0, redone.stderr
    assert (paid, provider.stats()["accepted"]) == (7, 7)
    assert "6 from cache" in after


def test_without_cache_in_the_manifest_every_submit_is_paid_and_nothing_is_kept(
    project: Any, simulator: Any
) -> None:
    provider = simulator()
    write(project, provider.url, cache="false")

    submit(project)
    submit(project)

    assert provider.stats()["accepted"] == 12
    assert not (project.folder / ".batchq" / "cache.sqlite").exists()


def test_the_cache_is_a_private_file_that_knows_no_key(project: Any, simulator: Any) -> None:
    write(project, simulator().url)

    submit(project)

    files = sorted((project.folder / ".batchq").glob("cache.sqlite*"))
    assert files
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert not any(KEY["SIM_KEY"].encode() in file.read_bytes() for file in files)


def test_a_simulator_that_batchq_starts_anew_each_time_is_the_same_provider(project: Any) -> None:
    write(project, "")
    manifest = (project.folder / "m.yaml").read_text()
    project.write("m.yaml", manifest.replace('kind: openai, base_url: ""', "kind: simulator"))

    submit(project)

    assert "6 from cache" in submit(project)


def test_a_cache_out_of_reach_fails_no_item(project: Any, simulator: Any) -> None:
    provider = simulator()
    write(project, provider.url)
    broken = {**KEY, "BATCHQ_CACHE_URL": "postgresql://nobody@127.0.0.1:1/answers"}

    done = project.run("submit", "m.yaml", env=broken)

    assert done.returncode == 0, done.stderr
    assert "6 ok, 0 failed" in done.stdout
    logs = [path.read_text() for path in Path(project.folder).glob(".batchq/runs/*/logs/llm.log")]
    assert sum(text.count("neither taken from the cache nor kept") for text in logs) == 1
    assert sum("Check BATCHQ_CACHE_URL" in text for text in logs) == 1


def test_doctor_says_whether_the_cache_is_in_reach(project: Any) -> None:
    good = {"BATCHQ_CACHE_URL": f"sqlite:///{project.folder}/cache.sqlite"}
    bad = {"BATCHQ_CACHE_URL": "redis://:s3cret@127.0.0.1:1/0"}

    reached, not_reached = (project.run("doctor", env=env).stdout for env in (good, bad))

    assert "ok    cache: sqlite:// answers" in reached
    assert "FAIL  cache: " in not_reached
    assert "mend BATCHQ_CACHE_URL" in not_reached
    assert "s3cret" not in not_reached


def test_a_cache_url_that_makes_no_sense_is_refused_before_anything_is_paid(
    project: Any, simulator: Any
) -> None:
    provider = simulator()
    write(project, provider.url)

    done = project.run("submit", "m.yaml", env={**KEY, "BATCHQ_CACHE_URL": "mysql://host/x"})

    assert done.returncode == 2
    assert "BATCHQ_CACHE_URL" in done.stderr
    assert provider.stats()["accepted"] == 0
