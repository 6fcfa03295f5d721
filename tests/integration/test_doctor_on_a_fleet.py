from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from batchq.cli.checkup import check_flower, check_processes, check_sights
from batchq.progress import RunState
from batchq.queue import probe
from batchq.queue.probe import SEEN, ask, token_file
from batchq.records import RunRecord
from batchq.version import __version__

KEY = "DOCTOR_TEST_KEY"


def test_doctor_asks_every_process_for_its_version_clock_keys_and_folders(
    cluster: Any,
    redis_client: Any,
    wait_for: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "PATIENCE_S", 2.0)
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    ledger = cluster.services.ledger
    other = {"BATCHQ_CATALOG_URL": f"sqlite:///{tmp_path}/other.sqlite"}
    cluster.worker("-Q", "batchq.control", "-P", "threads", "-c", "1", env=other)
    record = RunRecord("r1", "p", "v0", RunState.COMPLETED, "", "", "initial", "", "/x", "2026")
    cluster.services.catalog.put_run(record)
    cluster.worker("-Q", "batchq.llm", "-P", "threads", "-c", "3", env={KEY: "sk-secret"})
    cluster.worker("-Q", "batchq.llm", "-P", "prefork", "-c", "1")
    wait_for(lambda: len(ledger.alive()) == 3, "all are alive", 60)
    settings = cluster.services.settings
    wait_for(lambda: len(ask(settings, [], [], expected=3)) == 3, "all answer", 60)
    about = {"role": "worker", "host": "elsewhere", "queues": "batchq.llm", "slots": 4}
    ledger.beat("worker-elsewhere-1", 60, about | {"version": "0.0.9", "skew_s": -12.4})

    first = {one.name: one for one in check_processes(cluster.services)}
    asked = {one.name: one for one in check_sights(cluster.services, [str(outputs)], {"sim": KEY})}

    assert first["coordinator"].ok
    assert first["workers of llm"].detail == "3 alive, 0 of 8 slots in use, 0 messages wait"
    assert not first["workers of cpu"].ok
    assert first["versions"].detail == f"batchq {__version__} here, 0.0.9 on elsewhere (1)"
    assert first["clocks"].detail == "against Redis, elsewhere is 12 s slow"
    assert asked["answers of processes"].detail == "no answer within 3 s: worker-elsewhere-1"
    assert asked["catalogs"].detail.startswith("the newest run of ours is not in that of worker-")
    assert asked["store"].ok
    assert asked["store"].detail == f"1 coordinator and we read each other's files in {outputs}"
    assert asked["key of sim on workers"].detail.startswith(f"1 of 2 workers lack {KEY} (")
    assert "sk-secret" not in str((first, asked))
    assert list(outputs.iterdir()) == []
    assert list(redis_client.scan_iter("*reply.celery.pidbox")) == []


def test_a_coordinator_that_has_another_folder_of_this_name_says_so(tmp_path: Path) -> None:
    from batchq.queue.reply import _folders  # as a coordinator calls it

    here, there, gone = tmp_path / "here", tmp_path / "there", tmp_path / "gone"
    here.mkdir()
    there.mkdir()
    token = "0" * 32
    probe.write_token(str(here), token_file(token), token)
    (there / token_file(token)).write_text("something else")

    seen = _folders(token, [str(here), str(there), str(gone)])

    assert seen[str(here)] == SEEN
    assert (here / f"{token_file(token)}-{os.getpid()}").read_text() == token
    assert "another token" in seen[str(there)]
    assert "another folder of this name" in seen[str(gone)]
    assert not gone.exists()


def test_the_flower_that_is_installed_has_a_menu_that_our_pages_are_in() -> None:
    [found] = check_flower()

    assert found.ok, found.detail
