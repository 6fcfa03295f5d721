"""What every provider of uploads does, against the simulator over HTTP."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from batchq.endpoint import ProviderSpec
from batchq.errors import (
    AuthFailed,
    BadRequest,
    ConnectionFailed,
    FormRefused,
    ProviderError,
    ProviderTimeout,
    Refused,
    ResultsCutOff,
    ServerFailed,
    StoreError,
    Truncated,
    UnknownModel,
    UploadCancelled,
    UploadExpired,
    UploadQuotaUsedUp,
    UsageError,
)
from batchq.ports import ChatRequest, Message
from batchq.providers import get_provider, get_uploads
from batchq.uploads import Upload, UploadAnswer, UploadLine, UploadProvider

DEADLINE_S = 20.0
TAG = "run1-01-0001"
SCHEMA = {
    "type": "object",
    "properties": {"topic": {"enum": ["io", "text"]}, "confidence": {"type": "number"}},
    "required": ["topic", "confidence"],
}
KEY = "s3cret-0123456789abcdef"


@pytest.fixture
def server(batch_simulator: Any) -> Any:
    return batch_simulator


@pytest.fixture(params=["openai", "anthropic"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def spec(server: Any, kind: str) -> ProviderSpec:
    # OpenAI's address ends with the version, Anthropic's does not.
    base_url = f"{server.url}/v1" if kind == "openai" else server.url
    return ProviderSpec("acme", kind, base_url, "model-1", timeout_s=DEADLINE_S)


@pytest.fixture
def uploads(kind: str) -> UploadProvider:
    return get_uploads(kind)


def request_of(spec: ProviderSpec, number: int, **options: Any) -> ChatRequest:
    messages = (Message("user", f"What is number {number} about?"),)
    return ChatRequest(spec, messages, system="be brief", options=options, schema=SCHEMA)


def lines_of(spec: ProviderSpec, count: int, tag: str = TAG, first: int = 0) -> list[UploadLine]:
    return [
        UploadLine(f"{tag}-{number}", request_of(spec, number))
        for number in range(first, first + count)
    ]


def wait_for(uploads: UploadProvider, spec: ProviderSpec, upload: Upload) -> Upload:
    end = time.monotonic() + DEADLINE_S
    while not upload.is_final:
        assert time.monotonic() < end, "it did not end in time"
        upload = uploads.poll(spec, upload.id)
    return upload


def run(
    uploads: UploadProvider, spec: ProviderSpec, count: int
) -> tuple[Upload, list[UploadAnswer]]:
    upload = wait_for(uploads, spec, uploads.create(spec, TAG, lines_of(spec, count)))
    return upload, list(uploads.answers(spec, upload.id, SCHEMA))


def test_each_line_gets_what_a_call_online_gets(uploads, spec, server) -> None:
    lines = lines_of(spec, 20)
    online = {line.id: get_provider(spec.kind).call(line.request) for line in lines}

    upload, answers = run(uploads, spec, 20)

    assert (upload.state, upload.lines, upload.answered, upload.failed) == ("ended", 20, 20, 0)
    assert abs(upload.created_at - time.time()) < 60
    assert upload.expires_at == pytest.approx(upload.created_at + 86400, abs=2)
    replies = {answer.id: answer.reply for answer in answers}
    assert replies.keys() == online.keys()
    for name, reply in replies.items():
        same = {"request_id": "", "quotas": (), "retry_after_s": None}
        assert replace(reply, **same) == replace(online[name], **same)
    paid = server.stats()["paid"]
    assert (paid["online"]["answers"], paid["batch"]["answers"], paid["twice"]) == (20, 20, 20)


def test_results_come_in_another_order_than_the_lines(uploads, spec) -> None:
    _, answers = run(uploads, spec, 20)

    ids = [answer.id for answer in answers]
    given = [line.id for line in lines_of(spec, 20)]
    assert ids != given
    assert sorted(ids) == sorted(given)


def test_a_schema_that_is_no_object_comes_back_as_it_was_asked_for(uploads, spec) -> None:
    schema = {"type": "array", "items": {"enum": ["io", "text"]}}
    request = replace(request_of(spec, 1), schema=schema)
    online = get_provider(spec.kind).call(request)

    upload = uploads.create(spec, TAG, [UploadLine(f"{TAG}-1", request)])
    (answer,) = uploads.answers(spec, upload.id, schema)

    assert isinstance(json.loads(answer.reply.text), list)
    assert answer.reply.text == online.text


def test_an_upload_runs_until_its_time_has_come(uploads, spec, server) -> None:
    server.control(batch_s=60)
    upload = uploads.create(spec, TAG, lines_of(spec, 3))

    told = uploads.poll(spec, upload.id)

    assert (told.state, told.id) == ("running", upload.id)
    with pytest.raises(BadRequest, match="has not ended"):
        next(uploads.answers(spec, upload.id))
    uploads.cancel(spec, upload.id)


def test_lines_that_expire_are_told_apart_and_cost_nothing(uploads, spec, server) -> None:
    server.control(batch_expire_rate=0.5, batch_window_s=0.3)

    upload, answers = run(uploads, spec, 40)

    expired = [answer for answer in answers if isinstance(answer.error, UploadExpired)]
    assert 5 < len(expired) < 35
    assert len(answers) == 40
    assert upload.answered == 40 - len(expired)
    assert all(answer.error.retryable for answer in expired)
    assert server.stats()["paid"]["batch"]["answers"] == upload.answered


def test_what_was_answered_before_a_cancel_is_kept(uploads, spec, server) -> None:
    server.control(batch_s=1.0)
    upload = uploads.create(spec, TAG, lines_of(spec, 40))
    _wait_until(lambda: server.stats()["batches"][0]["answered"] >= 5)

    uploads.cancel(spec, upload.id)
    ended = wait_for(uploads, spec, upload)
    answers = list(uploads.answers(spec, upload.id, SCHEMA))

    replies = [answer for answer in answers if answer.reply]
    cancelled = [answer for answer in answers if isinstance(answer.error, UploadCancelled)]
    assert ended.state == "ended"
    assert 5 <= len(replies) < 40
    assert len(replies) + len(cancelled) == 40
    assert server.stats()["paid"]["batch"]["answers"] == len(replies)


def test_a_cancel_may_take_its_time(uploads, spec, server) -> None:
    server.control(batch_s=60, batch_cancel_s=60)
    upload = uploads.create(spec, TAG, lines_of(spec, 3))

    told = uploads.cancel(spec, upload.id)

    assert told.state == "cancelling"
    assert uploads.cancel(spec, upload.id).state == "cancelling"


def test_an_upload_that_has_ended_is_not_cancelled(uploads, spec) -> None:
    upload, _ = run(uploads, spec, 2)

    assert uploads.cancel(spec, upload.id).state == "ended"


def test_lines_that_fail_have_the_errors_of_calls(uploads, spec, server) -> None:
    server.control(server_error_rate=0.2, refusal_rate=0.2, truncation_rate=0.2)

    _, answers = run(uploads, spec, 60)

    kinds = Counter(type(answer.error) for answer in answers)
    assert kinds.keys() == {type(None), ServerFailed, Refused, Truncated}
    cut = next(answer.error for answer in answers if isinstance(answer.error, Truncated))
    assert cut.tokens[1] > 0


def test_a_line_that_is_wrong_fails_alone(uploads, spec) -> None:
    bad = UploadLine(f"{TAG}-bad", request_of(spec, 9, max_tokens=-1))

    upload = uploads.create(spec, TAG, [*lines_of(spec, 2), bad])
    answers = {answer.id: answer for answer in uploads.answers(spec, upload.id, SCHEMA)}

    assert type(answers[bad.id].error) is BadRequest
    assert "acme answered 400" in str(answers[bad.id].error)
    assert sum(answer.reply is not None for answer in answers.values()) == 2


def test_duplicates_unknown_ids_and_nonsense_reach_whoever_counts_them(
    uploads, spec, server
) -> None:
    server.control(batch_duplicate_rate=0.3, batch_unknown_rate=0.3, batch_malformed_rate=0.3)

    _, answers = run(uploads, spec, 40)

    ours = {line.id for line in lines_of(spec, 40)}
    counts = Counter(answer.id for answer in answers)
    assert any(counts[name] > 1 for name in ours)
    assert any(name not in ours for name in counts if name)
    assert any(name not in counts for name in ours)
    nonsense = [answer.error for answer in answers if not answer.id]
    assert nonsense
    assert all(type(error) is ServerFailed for error in nonsense)
    assert "no answer" in str(nonsense[0])


def test_results_that_break_off_are_told_and_can_be_read_again(uploads, spec, server) -> None:
    server.control(batch_cut="once")
    upload = wait_for(uploads, spec, uploads.create(spec, TAG, lines_of(spec, 20)))

    first = list(uploads.answers(spec, upload.id, SCHEMA))
    second = list(uploads.answers(spec, upload.id, SCHEMA))

    assert isinstance(first[-1].error, ResultsCutOff)
    assert 0 < sum(answer.reply is not None for answer in first) < 20
    assert sum(answer.reply is not None for answer in second) == len(second) == 20


def test_results_that_end_half_way_at_the_provider_are_told(uploads, spec, server) -> None:
    server.control(batch_cut="always")

    _, answers = run(uploads, spec, 20)

    assert isinstance(answers[-1].error, ResultsCutOff)
    assert 0 < sum(answer.reply is not None for answer in answers) < 20


@pytest.mark.parametrize("options", [{"batch_reject_rate": 1}, {"batch_max_lines": 2}])
def test_an_upload_may_be_rejected_whole(uploads, spec, server, options) -> None:
    server.control(**options)

    rejection = _rejection_of(uploads, spec, lines_of(spec, 3))

    assert type(rejection) is BadRequest
    assert "acme" in str(rejection)
    assert server.stats()["paid"]["batch"]["answers"] == 0


def test_lines_with_the_same_id_are_rejected(uploads, spec) -> None:
    rejection = _rejection_of(uploads, spec, [*lines_of(spec, 2), *lines_of(spec, 2)])

    assert type(rejection) is BadRequest
    assert f"{TAG}-0" in str(rejection)


def test_an_unknown_model_is_told(uploads, spec, server) -> None:
    server.control(models=["other"])

    if spec.kind == "openai":
        error = _rejection_of(uploads, spec, lines_of(spec, 3))
    else:
        error = run(uploads, spec, 3)[1][0].error

    assert type(error) is UnknownModel


def test_a_used_up_quota_passes_when_others_have_ended(uploads, spec, server) -> None:
    server.control(batch_s=60, batch_queue_tokens=1000)
    first = uploads.create(spec, TAG, lines_of(spec, 10))

    refused = _rejection_of(uploads, spec, lines_of(spec, 60, "run1-01-0002", 10))
    uploads.cancel(spec, first.id)
    server.control(batch_s=0)
    passed = uploads.create(spec, TAG, lines_of(spec, 10, "run1-01-0003", 10))

    assert type(refused) is UploadQuotaUsedUp
    assert refused.retryable
    assert wait_for(uploads, spec, passed).state == "ended"


def test_an_upload_whose_creation_was_not_confirmed_is_found(uploads, spec, server) -> None:
    began = time.time()
    other, _ = run(uploads, spec, 3)
    server.control(batch_lost_rate=1, batch_s=0.2)
    with pytest.raises(ConnectionFailed):
        uploads.create(spec, "run1-01-0002", lines_of(spec, 3, "run1-01-0002"))

    found = uploads.find(spec, "run1-01-0002", began, 3, known={other.id})

    assert found.id != other.id
    assert wait_for(uploads, spec, found).answered == 3
    assert uploads.find(spec, "run1-01-0002", began, 3) == wait_for(uploads, spec, found)
    assert {answer.id for answer in uploads.answers(spec, found.id)} == {
        f"run1-01-0002-{number}" for number in range(3)
    }


@pytest.mark.parametrize("ahead_s", [-7200, 7200])
def test_a_clock_that_is_wrong_hides_nothing(uploads, spec, server, ahead_s) -> None:
    server.control(clock_ahead_s=ahead_s, batch_s=60)
    began = time.time()
    upload = uploads.create(spec, TAG, lines_of(spec, 3))

    found = uploads.find(spec, TAG, began, 3)

    assert found.id == upload.id
    assert found.created_at == pytest.approx(began + ahead_s, abs=30)


def test_what_was_never_created_is_not_found(uploads, spec) -> None:
    began = time.time()
    run(uploads, spec, 3)

    assert uploads.find(spec, "run1-01-0009", began, 3) is None
    assert uploads.find(spec, TAG[:-1], began, 3) is None
    assert uploads.find(spec, "run1-01-0009", began, 4) is None


def test_a_long_list_is_read_page_by_page(uploads, spec, server, monkeypatch) -> None:
    module = type(uploads).__module__
    monkeypatch.setattr(f"{module}.PAGE", 2)
    server.control(batch_s=60)
    began = time.time()
    first = uploads.create(spec, TAG, lines_of(spec, 3))
    for number in range(5):
        uploads.create(spec, f"other-{number}", lines_of(spec, 1, f"other-{number}"))

    assert uploads.find(spec, TAG, began, 3).id == first.id


def test_an_upload_of_somebody_else_is_not_there(uploads, spec) -> None:
    with pytest.raises(BadRequest) as caught:
        uploads.poll(spec, "batch/../x?y")

    assert caught.value.status == 404


def test_a_key_is_sent_but_never_told(uploads, spec, server, monkeypatch) -> None:
    guarded = replace(spec, api_key_env="ACME_KEY")
    monkeypatch.setenv("ACME_KEY", KEY)
    server.control(api_keys=[KEY])
    try:
        upload = uploads.create(guarded, TAG, lines_of(guarded, 2))
        good = wait_for(uploads, guarded, upload)
        answers = list(uploads.answers(guarded, good.id, SCHEMA))
        monkeypatch.setenv("ACME_KEY", f"{KEY}-wrong")
        with pytest.raises(AuthFailed) as caught:
            uploads.create(guarded, TAG, lines_of(guarded, 2))
    finally:
        headers = {"Authorization": f"Bearer {KEY}"}
        server.session.post(f"{server.url}/control", json={"api_keys": []}, headers=headers)

    assert len(answers) == 2
    assert KEY not in repr(caught.value)
    assert "ACME_KEY" in str(caught.value)


def test_a_missing_key_names_its_variable(uploads, spec, monkeypatch) -> None:
    monkeypatch.delenv("ACME_KEY", raising=False)

    with pytest.raises(AuthFailed, match="ACME_KEY"):
        uploads.poll(replace(spec, api_key_env="ACME_KEY"), "batch_1")


def test_a_provider_that_is_down_is_told_as_online(uploads, spec, server) -> None:
    server.control(batch_error_rate=1)

    with pytest.raises(ServerFailed):
        uploads.create(spec, TAG, lines_of(spec, 2))

    with closing(socket.create_server(("127.0.0.1", 0))) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(ConnectionFailed):
        uploads.create(replace(spec, base_url=url), TAG, lines_of(spec, 2))


def test_one_failure_of_a_question_is_not_the_last_word(uploads, spec, server) -> None:
    upload = uploads.create(spec, TAG, lines_of(spec, 3))
    server.control(batch_error_rate=0.3)

    polls = [uploads.poll(spec, upload.id) for _ in range(10)]
    answers = list(uploads.answers(spec, upload.id, SCHEMA))

    assert {poll.state for poll in polls} == {"ended"}
    assert len(answers) == 3


def test_a_provider_that_takes_nothing_in_is_not_waited_for(uploads, spec) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    slow = replace(spec, base_url=url, timeout_s=0.3)

    with closing(silent), pytest.raises(ProviderTimeout):
        uploads.create(slow, TAG, lines_of(spec, 2))


def test_a_value_that_is_not_json_is_told_before_anything_is_sent(uploads, spec, server) -> None:
    line = UploadLine(f"{TAG}-0", request_of(spec, 1, temperature=math.nan))

    with pytest.raises(BadRequest, match="NaN"):
        uploads.create(spec, TAG, [line])

    assert server.stats()["batches"] == []


@pytest.mark.parametrize("room", ["/nowhere", "/dev/full"])
def test_a_temporary_folder_without_room_is_told(uploads, spec, room, monkeypatch) -> None:
    upload = wait_for(uploads, spec, uploads.create(spec, TAG, lines_of(spec, 3)))
    opened = lambda **_: Path(room).open("r+b")  # noqa: SIM115, E731 (whoever asks closes it)
    monkeypatch.setattr("tempfile.TemporaryFile", opened)

    with pytest.raises(StoreError, match="TMPDIR"):
        uploads.create(spec, TAG, lines_of(spec, 3))
    with pytest.raises(StoreError):
        list(uploads.answers(spec, upload.id, SCHEMA))


def test_a_line_is_as_large_as_it_is_sent(uploads, spec, server) -> None:
    lines = lines_of(spec, 50)
    total = sum(map(uploads.size, lines))
    server.control(batch_max_bytes=total + 20)

    upload = uploads.create(spec, TAG, lines)

    assert wait_for(uploads, spec, upload).state == "ended"
    server.control(batch_max_bytes=total - 20)
    assert isinstance(_rejection_of(uploads, spec, lines), ProviderError)


@pytest.mark.parametrize(
    ("kind", "base_url", "lines", "megabytes"),
    [
        ("openai", "https://api.openai.com/v1/", 50_000, 200),
        ("openai", "", 50_000, 200),
        ("openai", "https://api.together.xyz/v1", 50_000, 100),
        ("simulator", "http://127.0.0.1:1/v1", 50_000, 200),
        ("anthropic", "", 100_000, 256),
    ],
)
def test_an_upload_has_no_more_than_its_provider_takes(kind, base_url, lines, megabytes) -> None:
    limits = get_uploads(kind).limits(ProviderSpec("acme", kind, base_url, "model-1"))

    assert (limits.lines, limits.bytes) == (lines, megabytes * 10**6)


class Fixed(BaseHTTPRequestHandler):
    """Answers every request with what is written down for its path."""

    def do_GET(self) -> None:
        body = self.server.bodies[self.path]
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        for byte in body if self.server.drips and "content" in self.path else ():
            if self.server.stopping.wait(0.05):
                return
            self.wfile.write(bytes([byte]))
        self.wfile.write(body)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def fixed() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Fixed)
    server.drips, server.stopping = False, threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.stopping.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_form_that_lines_were_refused_for_is_not_sent_again(fixed) -> None:
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    body = {"error": {"message": words}}
    results = [
        {"custom_id": f"a-{number}", "response": {"status_code": 400, "body": body}}
        for number in range(2)
    ]
    batch = {"id": "b1", "status": "completed", "error_file_id": "f1"}
    fixed.bodies = {
        "/batches/b1": json.dumps(batch).encode(),
        "/files/f1/content": b"\n".join(json.dumps(result).encode() for result in results),
    }
    spec = ProviderSpec("acme", "openai", f"http://127.0.0.1:{fixed.server_port}", "model-2")
    uploads = get_uploads("openai")
    line = UploadLine("a-1", request_of(spec, 1, max_tokens=50))
    before = uploads.size(line)

    answers = list(uploads.answers(spec, "b1"))

    assert [type(answer.error) for answer in answers] == [FormRefused, FormRefused]
    assert all(answer.error.retryable for answer in answers)
    assert uploads.size(line) == before + len("max_completion_tokens") - len("max_tokens")


def test_results_that_drip_are_not_waited_for(fixed) -> None:
    batch = {"id": "b1", "status": "completed", "output_file_id": "f1"}
    fixed.bodies = {"/batches/b1": json.dumps(batch).encode(), "/files/f1/content": b"x" * 1000}
    fixed.drips = True
    url = f"http://127.0.0.1:{fixed.server_port}"
    spec = ProviderSpec("acme", "openai", url, "model-4", timeout_s=0.3)
    began = time.monotonic()

    with pytest.raises(ProviderTimeout):
        list(get_uploads("openai").answers(spec, "b1"))

    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "line",
    [
        b'{"custom_id": "a", "response": null, "error": null}',
        b'{"custom_id": "a", "response": {"status_code": 0, "body": null}}',
        b'{"custom_id": "a", "response": {"status_code": 200, "body": []}}',
        b'{"custom_id": "a", "response": {"status_code": 200, "body": {"choices": []}}}',
        b'{"custom_id": "a", "response": "x", "error": "y"}',
        b'{"custom_id": "", "response": {"status_code": 200}}',
        b'{"custom_id": 7}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"null",
    ],
)
def test_a_line_of_nonsense_is_a_failed_line(fixed, line) -> None:
    batch = {"id": "b1", "status": "COMPLETED", "output_file_id": "f1", "created_at": "soon"}
    fixed.bodies = {"/batches/b1": json.dumps(batch).encode(), "/files/f1/content": line + b"\n\n"}
    spec = ProviderSpec("acme", "openai", f"http://127.0.0.1:{fixed.server_port}", "model-3")

    (answer,) = get_uploads("openai").answers(spec, "b1")

    assert type(answer.error) is ServerFailed
    assert answer.id in ("a", "")


def test_a_kind_without_batches_says_so() -> None:
    with pytest.raises(UsageError, match="has no batches"):
        get_uploads("nobody")


def _rejection_of(
    uploads: UploadProvider, spec: ProviderSpec, lines: list[UploadLine]
) -> ProviderError:
    """Why an upload was rejected: at once, or as its first poll tells."""
    try:
        upload = wait_for(uploads, spec, uploads.create(spec, TAG, lines))
    except ProviderError as error:
        return error
    assert upload.state == "rejected"
    assert list(uploads.answers(spec, upload.id)) == []
    assert upload.rejection is not None
    return upload.rejection


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.01)
