"""Starts a simulator: `python -m batchq.simulator --rpm 60 --server-error-rate 0.1`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from batchq.errors import UsageError
from batchq.simulator import SimulatorOptions, read_options
from batchq.simulator.server import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is told to stop; the first line on stdout is the base URL."""
    given = vars(_parser().parse_args(arguments))
    host, port, pipe = given.pop("host"), given.pop("port"), given.pop("parent_pipe")
    try:
        options = read_options({**_mapping(given.pop("options")), **_typed(given)})
        serve(options, host, port, _announce, parent_pipe=pipe)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _announce(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m batchq.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--options", default="{}", help="options as a JSON object")
    parser.add_argument(
        "--parent-pipe", type=int, metavar="FD", help="end when this pipe reaches its end"
    )
    for name, field in SimulatorOptions.model_fields.items():
        is_list = field.default == ()
        help_text = f"{field.description} (a,b,c)" if is_list else field.description
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=(help_text or "").replace("%", "%%"),
        )
    return parser


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--options: this is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError("--options: a JSON object such as '{\"rpm\": 60}' is needed")
    return value


def _typed(given: dict[str, str]) -> dict[str, Any]:
    """Turns the texts of a command line into lists and numbers; what is neither stays a text."""
    return {
        name: _names(text) if SimulatorOptions.model_fields[name].default == () else _number(text)
        for name, text in given.items()
    }


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    sys.exit(main())
