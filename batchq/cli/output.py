"""Data to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import click

from batchq.errors import UsageError
from batchq.text.amounts import count, duration, money, seconds_text

__all__ = [
    "count",
    "duration",
    "local_time",
    "money",
    "put",
    "put_json",
    "say",
    "seconds_text",
    "short_path",
    "table",
    "whole_file",
]


def put(text: str = "") -> None:
    """Writes data, which another program may read."""
    click.echo(text)


def put_json(value: Any) -> None:
    """Writes data as JSON."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def say(text: str = "") -> None:
    """Writes what only a person reads."""
    click.echo(text, err=True)


def table(rows: Sequence[tuple[str, ...]], align: str = "") -> list[str]:
    """Lines of columns as wide as their widest cell; `align` has `>` for numbers, else `<`."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    how = align.ljust(len(widths), "<")
    return [
        "  ".join(f"{cell:{how[i]}{widths[i]}}" for i, cell in enumerate(row)).rstrip()
        for row in rows
    ]


def local_time(iso: str) -> str:
    """A UTC time as this machine's clock shows it."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%dT%H:%M:%S") if iso else ""


def short_path(path: str | Path) -> str:
    """A path from the current folder, if it is below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that takes the place of the old one when the block ends without an error."""
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temp.open("wb") as file:
            yield file
        temp.replace(path)
    except OSError as error:
        raise UsageError(f"-o {path}: {error.strerror}") from error
    finally:
        temp.unlink(missing_ok=True)
