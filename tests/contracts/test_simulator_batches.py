"""The simulator's batches, seen through the official clients."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

DEADLINE_S = 20.0
ENDPOINT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def openai_client(running_simulator: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{running_simulator.url}/v1", api_key="sk-test", max_retries=0, timeout=DEADLINE_S
    ) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic_client(running_simulator: Any) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=running_simulator.url, api_key="sk-test", max_retries=0, timeout=DEADLINE_S
    ) as client:
        yield client


@pytest.fixture
def client(openai_client: openai.OpenAI, batch_simulator: Any) -> openai.OpenAI:
    return openai_client


@pytest.fixture
def messages(anthropic_client: anthropic.Anthropic, batch_simulator: Any) -> Any:
    return anthropic_client.messages.batches


def body_of(number: int) -> dict[str, Any]:
    content = f"What is number {number} about?"
    return {"model": "m", "max_tokens": 500, "messages": [{"role": "user", "content": content}]}


def line_of(number: int, **changes: Any) -> bytes:
    whole = {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT}
    return json.dumps({**whole, "body": body_of(number), **changes}).encode() + b"\n"


def send(client: openai.OpenAI, content: bytes) -> Any:
    file = client.files.create(file=("lines.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint=ENDPOINT,
        completion_window="24h",
        metadata={"run": "r1"},
    )


def ask(count: int) -> list[Any]:
    return [{"custom_id": f"line-{number}", "params": body_of(number)} for number in range(count)]


def read(client: openai.OpenAI, file_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_a_batch_of_openai_goes_from_its_file_to_its_results(client: openai.OpenAI) -> None:
    content = b"".join(map(line_of, range(5)))
    before = client.chat.completions.create(**body_of(3))

    batch = send(client, content)
    ended = client.batches.retrieve(batch.id)
    results = {line["custom_id"]: line for line in read(client, ended.output_file_id)}

    assert (batch.status, ended.status) == ("validating", "completed")
    assert ended.request_counts.to_dict() == {"total": 5, "completed": 5, "failed": 0}
    assert ended.metadata == {"run": "r1"}
    assert abs(ended.created_at - time.time()) < 60
    assert ended.completed_at is not None
    assert ended.error_file_id is None
    assert client.files.content(ended.input_file_id).content == content
    response = results["line-3"]["response"]
    assert response["status_code"] == 200
    assert response["body"]["choices"] == before.to_dict()["choices"]
    assert response["body"]["usage"] == before.to_dict()["usage"]


def test_files_are_listed_told_and_deleted(client: openai.OpenAI) -> None:
    sent = [client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch") for _ in range(3)]

    listed = [file.id for file in client.files.list(limit=2)]
    client.files.delete(sent[0].id)

    assert listed == [file.id for file in reversed(sent)]
    told = client.files.retrieve(sent[1].id)
    assert (told.filename, told.bytes, told.purpose) == ("a.jsonl", 3, "batch")
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(sent[0].id)


def test_lists_of_batches_go_on_page_by_page(
    client: openai.OpenAI, messages: Any, batch_simulator: Any
) -> None:
    made = [send(client, line_of(number)).id for number in range(3)]
    others = [messages.create(requests=ask(1)).id for _ in range(3)]

    assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]
    assert [batch.id for batch in messages.list(limit=2)] == others[::-1]
    assert next(batch.id for batch in messages.list(before_id=others[0], limit=1)) == others[1]
    told = batch_simulator.stats()["batches"]
    assert [batch["id"] for batch in told] == [*made, *others]
    assert told[0]["metadata"] == {"run": "r1"}


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (b"", "empty_file", None),
        (line_of(1) + b"{nonsense\n", "invalid_request", 2),
        (line_of(1) + line_of(1), "duplicate_custom_id", 2),
        (line_of(1, custom_id=None), "invalid_request", 1),
        (line_of(1, url="/v1/embeddings"), "invalid_request", 1),
        (line_of(1) + line_of(2, body={**body_of(2), "model": "n"}), "mismatched_model", 2),
        (line_of(1) + line_of(2) + line_of(3), "too_many_requests", None),
    ],
)
def test_a_file_that_is_wrong_fails_the_batch(
    client: openai.OpenAI, batch_simulator: Any, content: bytes, code: str, line: int | None
) -> None:
    batch_simulator.control(batch_max_lines=2)

    batch = send(client, content)
    ended = client.batches.retrieve(batch.id)

    assert (batch.status, ended.status) == ("validating", "failed")
    (error,) = ended.errors.data
    assert (error.code, error.line) == (code, line)
    assert ended.failed_at is not None
    assert (ended.output_file_id, ended.error_file_id) == (None, None)


def test_openai_tells_of_lines_without_an_answer_in_a_file_of_errors(
    client: openai.OpenAI, batch_simulator: Any
) -> None:
    batch_simulator.control(batch_expire_rate=0.5, batch_window_s=0.2, server_error_rate=0.3)
    batch = send(client, b"".join(map(line_of, range(30))))
    ended = batch
    end = time.monotonic() + DEADLINE_S
    while ended.status != "expired":
        assert time.monotonic() < end
        ended = client.batches.retrieve(batch.id)

    errors = read(client, ended.error_file_id)

    expired = [line for line in errors if line["response"] is None]
    failed = [line for line in errors if line["response"] is not None]
    assert {line["error"]["code"] for line in expired} == {"batch_expired"}
    assert {line["response"]["status_code"] for line in failed} == {500}
    assert len(failed) == ended.request_counts.failed
    assert len(read(client, ended.output_file_id)) == ended.request_counts.completed
    assert len(expired) + len(failed) + ended.request_counts.completed == 30


def test_a_batch_of_openai_is_cancelled(client: openai.OpenAI, batch_simulator: Any) -> None:
    batch_simulator.control(batch_s=60, batch_cancel_s=0.2)
    batch = send(client, b"".join(map(line_of, range(3))))
    running = client.batches.retrieve(batch.id)

    cancelling = client.batches.cancel(batch.id)
    ended = cancelling
    end = time.monotonic() + DEADLINE_S
    while ended.status == "cancelling":
        assert time.monotonic() < end
        ended = client.batches.retrieve(batch.id)

    assert [running.status, cancelling.status] == ["in_progress", "cancelling"]
    assert ended.status == "cancelled"
    assert {line["error"]["code"] for line in read(client, ended.error_file_id)} == {
        "batch_cancelled"
    }
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_what_openai_would_refuse_is_refused(client: openai.OpenAI) -> None:
    file = client.files.create(file=("a.jsonl", line_of(1)), purpose="batch")
    create: Any = client.batches.create
    good = {"input_file_id": file.id, "endpoint": ENDPOINT, "completion_window": "24h"}

    for wrong in (
        {"endpoint": "/v1/embeddings"},
        {"completion_window": "1h"},
        {"metadata": {"a": "b" * 513}},
    ):
        with pytest.raises(openai.BadRequestError):
            create(**{**good, **wrong})
    with pytest.raises(openai.NotFoundError):
        create(**{**good, "input_file_id": "file-of-others"})
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_of_others")
    with pytest.raises(openai.BadRequestError):
        client.files.create(file=("a.jsonl", b""), purpose="vision")
    with pytest.raises(openai.BadRequestError):
        client.post("/files", body={"purpose": "batch"}, cast_to=object)


def test_a_message_batch_goes_from_its_requests_to_its_results(messages: Any) -> None:
    batch = messages.create(requests=ask(5))
    ended = messages.retrieve(batch.id)
    results = {line.custom_id: line.result for line in messages.results(batch.id)}

    assert (batch.processing_status, ended.processing_status) == ("in_progress", "ended")
    assert (batch.request_counts.processing, ended.request_counts.succeeded) == (5, 5)
    assert results.keys() == {f"line-{number}" for number in range(5)}
    message = results["line-3"].message
    assert message.content[0].text.endswith(".")
    assert message.usage.output_tokens > 0
    assert ended.expires_at > ended.ended_at >= ended.created_at


def test_a_message_batch_tells_each_line_its_own_fate(messages: Any, batch_simulator: Any) -> None:
    batch_simulator.control(batch_expire_rate=0.5, batch_window_s=0.2, overloaded_rate=0.3)
    batch = messages.create(requests=ask(30))
    end = time.monotonic() + DEADLINE_S
    while messages.retrieve(batch.id).processing_status != "ended":
        assert time.monotonic() < end

    results = [line.result for line in messages.results(batch.id)]

    counts = messages.retrieve(batch.id).request_counts
    kinds = [result.type for result in results]
    assert kinds.count("succeeded") == counts.succeeded > 0
    assert kinds.count("errored") == counts.errored > 0
    assert kinds.count("expired") == counts.expired > 0
    errors = {result.error.error.type for result in results if result.type == "errored"}
    assert errors == {"overloaded_error"}


def test_a_message_batch_is_cancelled_and_deleted(messages: Any, batch_simulator: Any) -> None:
    batch_simulator.control(batch_s=60)
    batch = messages.create(requests=ask(3))
    with pytest.raises(anthropic.ConflictError):
        messages.delete(batch.id)

    ended = messages.cancel(batch.id)

    assert (ended.processing_status, ended.request_counts.canceled) == ("ended", 3)
    assert {line.result.type for line in messages.results(batch.id)} == {"canceled"}
    messages.delete(batch.id)
    with pytest.raises(anthropic.NotFoundError):
        messages.retrieve(batch.id)


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([], "requests"),
        ([{"custom_id": "a"}], r"requests\.0\.params"),
        ([{"custom_id": "a b", "params": body_of(1)}], "pattern"),
        (ask(1) + ask(1), "twice"),
        (ask(4), "too many"),
    ],
)
def test_a_message_batch_that_is_wrong_is_refused_at_once(
    messages: Any, batch_simulator: Any, requests: list[Any], words: str
) -> None:
    batch_simulator.control(batch_max_lines=3)

    with pytest.raises(anthropic.BadRequestError, match=words):
        messages.create(requests=requests)


def test_both_tell_when_the_queue_is_full(
    client: openai.OpenAI, messages: Any, batch_simulator: Any
) -> None:
    batch_simulator.control(batch_s=60, batch_queue_tokens=20)

    failed = client.batches.retrieve(send(client, b"".join(map(line_of, range(5)))).id)
    with pytest.raises(anthropic.RateLimitError, match="queue"):
        messages.create(requests=ask(5))
    taken = messages.create(requests=ask(2))

    assert failed.errors.data[0].code == "token_limit_exceeded"
    assert taken.processing_status == "in_progress"


def test_it_tells_what_was_paid_on_which_way(client: openai.OpenAI, batch_simulator: Any) -> None:
    batch_simulator.control(input_price=2, output_price=10)
    client.chat.completions.create(**body_of(1))

    client.batches.retrieve(send(client, line_of(1) + line_of(2)).id)
    stats = batch_simulator.stats()
    contents = batch_simulator.get("/paid")["contents"]

    online, batch = stats["paid"]["online"], stats["paid"]["batch"]
    assert (online["answers"], batch["answers"]) == (1, 2)
    assert online["usd"] == (2 * online["input_tokens"] + 10 * online["output_tokens"]) / 1e6
    assert batch["usd"] == (2 * batch["input_tokens"] + 10 * batch["output_tokens"]) / 2e6
    assert (stats["paid"]["contents"], stats["paid"]["twice"], stats["duplicates"]) == (2, 1, 1)
    assert sorted(contents.values(), key=str) == [
        {"online": 0, "batch": 1},
        {"online": 1, "batch": 1},
    ]


def test_the_same_seed_gives_the_same_fates(client: openai.OpenAI, batch_simulator: Any) -> None:
    options = {"batch_expire_rate": 0.4, "batch_malformed_rate": 0.3, "batch_duplicate_rate": 0.3}
    files = []
    for _ in range(2):
        batch_simulator.start_anew()
        batch_simulator.control(**options, batch_window_s=0.01)
        batch = send(client, b"".join(map(line_of, range(20))))
        end = time.monotonic() + DEADLINE_S
        while (ended := client.batches.retrieve(batch.id)).status != "expired":
            assert time.monotonic() < end
        files.append(client.files.content(ended.output_file_id).content)

    assert files[0] == files[1]
