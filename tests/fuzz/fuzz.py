"""Feeds whatever comes to everything that reads text from outside, and looks what gets out.

    fuzz.py TARGET [--runs 100000]      guided by coverage (atheris)

A target may raise the errors that people are meant to see, and nothing else. What broke one is kept
in `regressions/TARGET-*` and tried first by every test run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

REGRESSIONS = Path(__file__).with_name("regressions")
ASCII = b"\x01"
"""How an input starts that atheris takes for ASCII."""
SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": [1, 2]}, "b": {"type": "string"}},
    "required": ["a"],
}
DATA = {"a": 1, "b": "text", "c": [1, 2], "d": {"e": None}, "f": 1.5, "g": True}
SEEDS = {
    "manifest": [
        "name: n\nsteps:\n  - name: s\n    input: {generate: 3}\n    task: a:b\n",
        "a: &x [1]\nb: *x\nversion: 1\nparams: {p: {type: int, max: 3}}\nname: ${params.p}\n",
    ],
    "condition": ["a == 1 and not (b in ['x', 'y'])", "len(c) > 1 or lower(b) != 'no'", "-f <= 2"],
    "answer": ['{"a": 1}', '```json\n{"a": 2,}\n```', "<think>x</think> so {'a': 1}", "NaN", "[[1"],
    "template": ["a {a} {d.e} {{b}}", "{", "}}{a}"],
    "jinja": ["{% for x in c %}{{ x }}{% endfor %}", "{{ d.e | tojson }}", "{% if"],
    "id": ["4001", "../../etc/passwd", "CON", "x" * 300],
    "envelope": [
        '{"body": "W10=", "headers": {"task": "t"}, "properties": {"delivery_tag": "1"}}',
        '{"body": "x", "headers": {"compression": "zlib"}, "properties": {"delivery_tag": "1"}}',
    ],
    "broker": ["redis://:p@h:1/0", "sentinel://u:p@a:1,[::1]:2,c/main/1?sentinel_password=s"],
    "message": ['{"v": 1, "run": "r", "step": 1, "batch": 0, "index": 0, "id": "0", "data": 1}'],
}


def is_told(error: Exception) -> None:
    """An error that people are meant to see says something."""
    if not str(error):
        raise AssertionError("an error without a word")


def manifest(text: str) -> None:
    from batchq.errors import BatchqError
    from batchq.manifest.loader import load_manifest

    with tempfile.TemporaryDirectory(prefix="batchq-fuzz-") as folder:
        path = Path(folder, "m.yaml")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            load_manifest(path)
        except BatchqError as error:
            is_told(error)


def condition(text: str) -> None:
    from batchq.errors import TaskError
    from batchq.text.conditions import compile_condition, evaluate

    try:
        compile_condition(text)
    except ValueError:
        return
    try:
        assert evaluate(text, DATA) in (True, False)
    except TaskError as error:
        is_told(error)


def answer(text: str) -> None:
    from batchq.errors import OutputError
    from batchq.text.parsing import parse_answer, parse_loose

    json.dumps(parse_loose(text), allow_nan=False).encode()
    for schema in (None, SCHEMA):
        for truncated in (False, True):
            try:
                found = parse_answer(text, schema, truncated=truncated)
            except OutputError as error:
                is_told(error)
            else:
                json.dumps(found.value, allow_nan=False).encode()


def template(text: str) -> None:
    from batchq.errors import TaskError
    from batchq.text.prompts import names, render

    try:
        asked = names(text)
        render(text, DATA, is_jinja=False)
    except TaskError as error:
        is_told(error)
    else:
        assert set(asked) <= {*DATA, "d.e"}


def jinja(text: str) -> None:
    from batchq.errors import TaskError
    from batchq.text.prompts import names

    try:
        names(text, is_jinja=True)
    except TaskError as error:
        is_told(error)


def item_id(text: str) -> None:
    from batchq.store.names import MAX_BYTES, safe_name

    name = safe_name(text)
    assert name not in ("", ".", ".."), name
    assert not set(name) & set('/\\\0:*?"<>|\n'), name
    assert len(name.encode()) <= MAX_BYTES
    assert name == safe_name(text)
    assert name == text or "~" in name


def message(text: str) -> None:
    from batchq.queue.message import MessageRefused, decode_message

    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    try:
        decode_message(value)
    except MessageRefused as error:
        is_told(error)


def envelope(text: str) -> None:
    from kombu.exceptions import ContentDisallowed, DecodeError

    from batchq.broker.signing import Signer
    from batchq.queue.serializer import SIGNED_TYPE, json_of
    from batchq.queue.transport import Channel, Message

    json_of(Signer("a key of the fuzzer"))
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    message = Message(value, Channel.__new__(Channel))
    message.accept = {SIGNED_TYPE}
    try:
        message.decode()
    except (ContentDisallowed, DecodeError) as error:
        is_told(error)
    else:
        raise AssertionError("nobody has signed it")


def broker(text: str) -> None:
    from pydantic import ValidationError

    from batchq.broker.signing import is_local, signer_of
    from batchq.settings import Settings, redis_client_url

    try:
        Settings(broker_url=text)
    except ValidationError as error:
        is_told(error)
        return
    redis_client_url(text)
    is_local(text)
    signer_of("", text)


TARGETS: dict[str, Callable[[str], None]] = {
    "manifest": manifest,
    "condition": condition,
    "answer": answer,
    "template": template,
    "jinja": jinja,
    "id": item_id,
    "message": message,
    "envelope": envelope,
    "broker": broker,
}


def regressions(target: str) -> list[str]:
    """What broke a target before."""
    return [
        path.read_bytes().decode("utf-8", "surrogatepass")
        for path in sorted(REGRESSIONS.glob(f"{target}-*"))
    ]


def main() -> None:
    """Fuzzes one target, guided by coverage."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("target", choices=TARGETS)
    options.add_argument("--runs", type=int, default=100_000)
    given = options.parse_args()
    import atheris

    target = TARGETS[given.target]
    with atheris.instrument_imports(include=["batchq"]):
        target("")  # what it needs is imported now

    def one(data: bytes) -> None:
        text = atheris.FuzzedDataProvider(data).ConsumeUnicode(len(data))
        try:
            target(text)
        except Exception:
            raw = text.encode("utf-8", "surrogatepass")
            name = f"{given.target}-{hashlib.sha256(raw).hexdigest()[:8]}"
            (REGRESSIONS / name).write_bytes(raw)
            raise

    folder = tempfile.mkdtemp(prefix="batchq-fuzz-")  # gone with the script that called us
    for number, seed in enumerate([*SEEDS[given.target], *regressions(given.target)]):
        Path(folder, str(number)).write_bytes(ASCII + seed.encode())
    artifacts = f"-artifact_prefix={folder}-"
    arguments = [sys.argv[0], folder, f"-runs={given.runs}", artifacts]
    atheris.Setup([*arguments, "-max_len=2000", "-timeout=20", "-verbosity=0"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
