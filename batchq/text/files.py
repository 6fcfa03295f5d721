"""Finds and reads the text files that a manifest names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from batchq.errors import PlanError

PROMPT_SUFFIXES = (".md", ".txt", ".j2", ".md.j2")


def decode(content: bytes, name: str) -> str:
    """Decodes UTF-8 with or without a BOM; raises PlanError with the bad byte's place."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise PlanError(
            f"{name}:{line}: not UTF-8: byte 0x{content[error.start]:02x} at offset "
            f"{error.start}; save the file as UTF-8"
        ) from error


def read_text(path: Path, name: str) -> str:
    """Reads a text file; `name` is what the manifest calls it. Raises PlanError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise PlanError(f"{name}: no such file") from error
    except IsADirectoryError as error:
        raise PlanError(f"{name}: this is a folder, not a file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise PlanError(f"{name}: cannot be read: {error}") from error
    return decode(content, name)


def is_inline(value: str) -> bool:
    """Whether a prompt is the text itself: it has more than one line."""
    return "\n" in value


def find_prompt(base_dir: Path, value: str) -> Path:
    """The file of a prompt: the path, or a bare name looked up in prompts/."""
    path = base_dir / value
    if path.is_file() or Path(value).suffix:
        return path
    candidates = [base_dir / "prompts" / f"{value}{suffix}" for suffix in PROMPT_SUFFIXES]
    return next((candidate for candidate in candidates if candidate.is_file()), path)


def read_schema(path: Path, name: str) -> dict[str, Any]:
    """Reads a JSON Schema; raises PlanError if it is no JSON object."""
    text = read_text(path, name)
    try:
        schema = json.loads(text)
    except json.JSONDecodeError as error:
        raise PlanError(f"{name}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise PlanError(f"{name}: nested too deeply") from error
    if not isinstance(schema, dict):
        raise PlanError(f"{name}: a JSON Schema is an object")
    return schema
