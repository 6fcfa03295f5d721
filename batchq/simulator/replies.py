"""What the model says to a call: a good answer, or one that a fault has spoilt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from batchq.simulator.answers import UnanswerableSchema, answer_json, answer_text
from batchq.simulator.chat import (
    CHARS_PER_TOKEN,
    Answer,
    Call,
    Ending,
    Rejected,
    Rejection,
    Structure,
    estimate_tokens,
)
from batchq.simulator.faults import Fault

REFUSAL = "I'm sorry, but I can't help with that."
ANY_OBJECT = json.dumps(
    {
        "type": "object",
        "properties": {"answer": {"type": "string"}, "confidence": {"type": "number"}},
        "required": ["answer", "confidence"],
    }
)
"""The form of an answer for which JSON is wanted but no schema given."""


def identify(call: Call) -> int:
    """Numbers a call by model, prompt and schema: the same in either format, and in every run."""
    text = "\0".join((call.model, call.structure, call.tool, call.schema, call.prompt))
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def make_answer(call: Call, seed: int, prompt: int) -> Answer:
    """Writes the good answer to a call, cut off where its own max_tokens says so.

    Raises:
        Rejected: if its schema is not one, or cannot be answered.
    """
    random = Random(seed * 2**64 + prompt)
    value = None
    if call.structure is Structure.TEXT:
        text = answer_text(call.prompt, random)
    else:
        try:
            value = answer_json(_checked_schema(call.schema or ANY_OBJECT), call.prompt, random)
        except UnanswerableSchema as error:
            raise Rejected(Rejection.BAD_REQUEST, f"Invalid schema: {error}") from error
        text = json.dumps(value, ensure_ascii=False)
    if call.max_tokens is not None and len(text) > call.max_tokens * CHARS_PER_TOKEN:
        return _answer(call, text[: call.max_tokens * CHARS_PER_TOKEN], Ending.LENGTH)
    return _answer(call, text, Ending.DONE, value)


def spoil(call: Call, answer: Answer, fault: Fault, prompt: int) -> Answer:
    """Turns a good answer into a refusal, half an answer or garbage."""
    match fault:
        case Fault.REFUSAL:
            return _answer(call, REFUSAL, Ending.REFUSAL)
        case Fault.TRUNCATION:
            return _answer(call, answer.text[: len(answer.text) // 2], Ending.LENGTH)
        case Fault.GARBAGE:
            return _answer(call, _garble(answer.text, prompt), Ending.DONE)
    return answer


def _answer(call: Call, text: str, ending: Ending, value: Any = None) -> Answer:
    return Answer(
        text=text,
        ending=ending,
        input_tokens=input_tokens(call),
        output_tokens=estimate_tokens(text),
        value=value,
        structure=call.structure,
        tool=call.tool,
    )


def input_tokens(call: Call) -> int:
    """Counts the tokens of a prompt and its schema."""
    return max(1, -(-(len(call.prompt) + len(call.schema)) // CHARS_PER_TOKEN))


def _garble(text: str, prompt: int) -> str:
    """Breaks a text in one of the ways in which models do."""
    middle = max(1, len(text) // 2)
    match prompt % 3:
        case 0:
            return "Here is what I found, though I am not sure about the form you want."
        case 1:
            return f"{text[:middle]} ... and so on"
        case _:
            return f"```json\n{{{text[middle:]}"


@lru_cache(maxsize=256)
def _checked_schema(text: str) -> Mapping[str, Any]:
    """Parses and checks a schema; a batch sends the same one with every call."""
    schema: dict[str, Any] = json.loads(text)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        problem = f"Invalid schema: {error.json_path}: {error.message}"
        raise Rejected(Rejection.BAD_REQUEST, problem) from error
    return schema
