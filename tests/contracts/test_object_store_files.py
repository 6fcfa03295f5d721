"""What holds for the files of a folder on a real S3 server, and on no disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from batchq.errors import StoreError
from batchq.outcome import Outcome, SentPrompt, State
from batchq.plan import OutputSpec
from batchq.store import Outputs, RunFolder
from batchq.store.files import Files, open_files

OUTPUT = OutputSpec("out.json")


@pytest.fixture
def files(object_store: Any) -> Files:
    return open_files(f"{object_store.bucket}/outputs")


def at_once(function: Callable[[], Any], times: int) -> list[Any]:
    with ThreadPoolExecutor(times) as pool:
        return [one.result() for one in [pool.submit(function) for _ in range(times)]]


def outcomes(count: int) -> list[Outcome]:
    sent = (SentPrompt("", "text"),)
    return [Outcome(f"i{n}", n, State.OK, output={"n": n}, prompts=sent) for n in range(count)]


def test_submits_at_the_same_moment_get_a_version_each(object_store: Any) -> None:
    outputs = Outputs(f"{object_store.bucket}/outputs")
    everyone = threading.Barrier(6)
    claims = "v0/state/claim"

    def wait(request: str) -> str:
        if request.startswith("PUT") and claims in request:
            everyone.wait(10)  # all six take v0 for the next one
        return ""

    object_store.refuse = wait
    made = at_once(lambda: outputs.create_version("p").version, 6)

    assert len(set(made)) == 6
    assert "v0" in made


def test_of_those_who_create_a_file_at_once_one_does(files: Files) -> None:
    assert sorted(at_once(lambda: files.create("a", b"text"), 6)) == [*[False] * 5, True]


def test_a_claim_whose_answer_was_lost_is_still_ours(object_store: Any, files: Files) -> None:
    lost = iter([True])
    object_store.lose = lambda request: request.startswith("PUT") and next(lost, False)

    assert files.claim_folder("v0")
    assert not files.claim_folder("v0")


def test_the_files_of_a_batch_are_sent_together(object_store: Any, files: Files) -> None:
    folder = RunFolder(files)
    together = threading.Barrier(16)

    def wait(request: str) -> str:
        if request.startswith("PUT") and "/items/" in request:
            together.wait(10)  # a request alone would wait in vain, and fail
        return ""

    object_store.refuse = wait
    folder.write_batch(1, 0, outcomes(16), OUTPUT)

    assert len(object_store.requests) <= 2 * 16 + 6  # an item's output, its prompt, and the rest
    assert [one.item_id for one in folder.outcomes(1)] == [f"i{n}" for n in range(16)]


def test_versions_are_looked_up_together_not_in_a_row(object_store: Any, files: Files) -> None:
    outputs = Outputs(f"{object_store.bucket}/outputs")
    for number in range(8):
        files.write(f"p/v{number}/plan.json", b"{}")
    together = threading.Barrier(8)

    def wait(request: str) -> str:
        if request.startswith("HEAD"):
            together.wait(10)
        return ""

    object_store.refuse = wait

    assert outputs.versions("p") == [f"v{number}" for number in range(8)]


def test_a_version_is_opened_without_a_look_at_all_the_others(
    object_store: Any, files: Files
) -> None:
    for number in range(20):
        files.write(f"p/v{number}/plan.json", b"{}")
    object_store.requests.clear()

    Outputs(f"{object_store.bucket}/outputs").open_version("p", "v7")

    assert len(object_store.requests) <= 2


def test_every_fifth_call_that_fails_is_made_again(object_store: Any, files: Files) -> None:
    folder = RunFolder(files)
    object_store.refuse = lambda _: "" if len(object_store.requests) % 5 else "InternalError"

    for number in range(3):
        assert folder.write_batch(1, number, outcomes(4), OUTPUT)
    result = folder.collate(1, OUTPUT)

    assert result.written == 12
    assert len(list(folder.outcomes(1))) == 12


def test_a_store_that_fails_for_good_is_an_error_with_its_place(
    object_store: Any, files: Files
) -> None:
    object_store.refuse = lambda _: "AccessDenied"

    with pytest.raises(StoreError, match=rf"{object_store.bucket}/outputs.* \(these keys may not"):
        RunFolder(files).write_batch(1, 0, outcomes(3), OUTPUT)


def test_a_large_file_is_not_to_be_seen_until_all_its_parts_are_there(
    object_store: Any, files: Files
) -> None:
    def write() -> None:
        with files.writer("collated/01_out.json", durable=True) as file:
            for _ in range(105):
                file.write(bytes(1 << 20))

    object_store.refuse = lambda request: "AccessDenied" if "partNumber=2" in request else ""
    with pytest.raises(StoreError):
        write()
    is_there = files.exists("collated/01_out.json")
    removed = [request for request in object_store.requests if request.startswith("DELETE")]
    object_store.refuse = lambda _: ""

    write()

    assert not is_there
    assert len(removed) == 1  # the parts, which would cost money
    assert files.size("collated/01_out.json") == 105 << 20


def test_an_empty_file_goes_in_and_comes_out(files: Files) -> None:
    with files.writer("a", durable=True):
        pass

    with files.reader("a") as file:
        assert file.read() == b""
    assert [file.read() for _, file in files.readers(["a"])] == [b""]
    assert files.size("a") == 0


def test_a_failed_writer_sends_nothing(object_store: Any, files: Files) -> None:
    object_store.requests.clear()

    def fail() -> None:
        with files.writer("a") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert object_store.requests == []


def test_of_two_runs_that_end_at_once_latest_names_the_newer_one(
    object_store: Any, files: Files
) -> None:
    outputs = Outputs(f"{object_store.bucket}/outputs")
    for version in ("v0", "v1"):
        files.write(f"p/{version}/plan.json", b"{}")
        files.write(f"p/{version}/metadata.json", METADATA % version.encode())
    is_newer_done = iter([True])

    def overtake(request: str) -> str:
        is_write = request.startswith("PUT") and request.endswith("latest.json")
        if is_write and next(is_newer_done, False):
            outputs.point_latest("p", "v1")  # between the older one's look and its write
        return ""

    object_store.refuse = overtake
    outputs.point_latest("p", "v0")

    assert outputs.latest("p") == "v1"


METADATA = (
    b'{"version": "%s", "pipeline_name": "p", "timestamp": "", "mode": "initial", '
    b'"base_version": null, "module_number": null, "path_letter": null, "pipeline_status": "", '
    b'"notes": "", "duration_seconds": 1.0, "status": "completed", "full_pipeline_name": "p", '
    b'"run": "r"}'
)


def test_a_url_that_reads_as_a_pattern_is_refused() -> None:
    with pytest.raises(StoreError, match="would be taken for a pattern"):
        open_files("s3://bucket/x*")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_opens_the_store_anew(object_store: Any, files: Files) -> None:
    files.write("a", b"text")
    child = os.fork()
    if not child:
        try:
            is_read = open_files(files.url).read("a") == b"text"
            os._exit(0 if is_read else 1)
        finally:
            os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
