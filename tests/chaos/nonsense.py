"""Bad input of every kind, for a storm: items, tasks that misbehave, messages from outside."""

from __future__ import annotations

import base64
import json
import pickle
import random
import uuid
import zlib
from typing import Any

from batchq.broker.signing import Signer
from batchq.plan import Item
from batchq.ports import ItemRef
from batchq.queue.message import encode_message

HOSTILE = (
    *("../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "CON", ".", "..", "~", "x" * 300),
    *("ü é 漢 🙂", "\u202e\u0000\x1b[31m", "{n}", "{{ n }}", "${params.x}", "%s %(x)s", "'; DROP"),
    *('"quoted"', "line\nbreak", "$(reboot)", "null", "__proto__"),
)
TASKS = """
    import time

    def misbehave(item):
        time.sleep(item["s"])
        match item["do"]:
            case "raise":
                raise ValueError("no such colour: mauve")
            case "exit":
                raise SystemExit(3)
            case "set":
                return {1, 2}
            case "nan":
                return float("nan")
            case "large":
                return {"text": "x" * 1_000_000}
        return {"n": item["n"]}
"""
KINDS = {"raise": "task", "exit": "task", "set": "not_serializable", "nan": "not_serializable"}
KINDS["import"] = "task_not_found"
DEEDS = ("", *KINDS, "large")
STEP = """
  - name: hurt
    input: hurt.json
    id_field: id
    retry: {max_retries: 0}
    batch_size: 7
    stages:
      - {name: work, task: "storm_tasks:misbehave"}
      - {name: far, task: "not_installed_anywhere:run", when: "do == 'import'"}
"""


def hostile_items(number: int) -> list[dict[str, Any]]:
    """Items whose ids and texts are what nobody expects, and one that is large."""
    items = [{"n": n, "id": str(n), "text": ""} for n in range(number)]
    for n, text in zip(range(3, number, 7), HOSTILE * number, strict=False):
        items[n] |= {"id": f"{text}{n}", "text": text}
    items[0]["text"] = "x" * 2_000_000
    return items


def hurtful_items(number: int) -> list[dict[str, Any]]:
    """Items for a task that misbehaves."""
    deeds = (DEEDS * number)[:number]
    return [
        {"n": n, "id": f"{HOSTILE[n % len(HOSTILE)]}{n}", "do": deed, "s": 0.2}
        for n, deed in enumerate(deeds)
    ]


def wrong_reasons(errors: list[dict[str, Any]], items: list[dict[str, Any]]) -> list[str]:
    """Items that failed for another reason than their own, or should not have failed."""
    given_up = "worker_lost"  # the storm hit it three times
    return [
        f"{row['item_id'][:40]!r} failed by {row['kind']}: {row['error'][:80]}"
        for row in errors
        if row["kind"] not in (given_up, KINDS.get(items[row["item_index"]]["do"]))
    ]


def messages(rng: random.Random, real: bytes | None, ours: Signer) -> list[str | bytes]:
    """What somebody without our key may put into a queue, and somebody with an old release."""
    found = _sound(real) or _envelope()
    sealed = base64.b64decode(found["body"])
    text = sealed.partition(b"\n")[2] or sealed
    changed = sealed.replace(b'"n": ', b'"n": 1').replace(b'"v": 1', b'"v":  1')
    other = Signer("the key of somebody else")
    altered: list[dict[str, Any]] = [
        found,  # once more
        {**found, "body": _packed(text)},
        {**found, "body": _packed(changed)},
        {**found, "body": _packed(other.seal("message", text.decode()).encode())},
        {**found, "body": _packed(_of_version_0(text, ours))},
        {**found, "body": _packed(pickle.dumps(print)), "content-type": "application/x-python"},
        {**found, "body": _packed(zlib.compress(b"0" * 10**8)), "headers": {"compression": "zlib"}},
        {**found, "headers": {**found["headers"], "task": "os.system"}},
        {**found, "headers": {**found["headers"], "task": "batchq.collate_batch"}},
        {**found, "headers": {**found["headers"], "eta": "never", "timelimit": "soon"}},
        {**found, "properties": {}},
        {**found, "content-type": None, "content-encoding": "binary"},
        {**found, "content-type": "application/data", "content-encoding": "binary"},
    ]
    wrong = ['{"body": "?"}', "[1]", "null", "no JSON", b"\xff\xfe", "[" * 100_000, ""]
    made = [*(json.dumps(one) for one in altered), *wrong]
    rng.shuffle(made)
    return made


def _of_version_0(text: bytes, ours: Signer) -> bytes:
    return ours.seal("message", text.decode().replace('"v": 1', '"v": 0')).encode()


def _packed(body: bytes) -> str:
    return base64.b64encode(body).decode()


def _sound(real: bytes | None) -> dict[str, Any] | None:
    """The message, unless it is nonsense from before."""
    try:
        found: Any = json.loads(real or b"")
        base64.b64decode(found["body"]).decode()
        assert found["headers"]["task"].startswith("batchq.")
    except (ValueError, TypeError, KeyError, RecursionError, AssertionError):
        return None
    return dict(found)


def _envelope() -> dict[str, Any]:
    body = [[encode_message(ItemRef("0" * 12, 1, 0, 0), Item("0", 0, 1))], {}, {}]
    name = str(uuid.uuid4())
    delivery = {"exchange": "", "routing_key": "batchq.llm"}
    return {
        "body": _packed(json.dumps(body).encode()),
        "content-encoding": "utf-8",
        "content-type": "application/x-batchq-signed",
        "headers": {"task": "batchq.run_item", "id": name, "lang": "py", "root_id": name},
        "properties": {
            "correlation_id": name,
            "delivery_tag": name,
            "delivery_info": delivery,
            "body_encoding": "base64",
        },
    }
