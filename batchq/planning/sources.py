"""Opens the places that items come from: files, globs, functions, numbers, another step."""

from __future__ import annotations

import contextlib
import csv
import glob
import importlib
import inspect
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from pydantic_core import from_json

from batchq.errors import PlanError, StoreError
from batchq.expand import expand
from batchq.manifest.checks import is_glob
from batchq.outcome import Json
from batchq.plan import InputSpec
from batchq.text.files import decode, read_text
from batchq.text.tabular import read_parquet

_BINARY_PROBE = 8192
MAX_LINE_BYTES = 64 * 1024 * 1024
"""No item is as long (`store.frozen`), and a file without line ends is not read into memory."""
MAX_JSON_BYTES = 1024 * 1024 * 1024
"""A larger file of one JSON document would take ten times as much memory."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"), (dict, "an object"), (str, "a text"), (int, "a number"),
    (float, "a number"), (type(None), "null"),
)  # fmt: skip

Row = tuple[str, Json]
"""A value and the place that an error about it points at."""


def kind_of(value: Any) -> str:
    """Names the JSON type of a value for people."""
    if isinstance(value, list):
        return "a list"
    return next((words for kind, words in _KINDS if isinstance(value, kind)), type(value).__name__)


def read_rows(
    spec: InputSpec, base_dir: Path, previous: Iterable[Json] | None, params: Mapping[str, Any]
) -> Iterator[Row]:
    """Reads the values of an input, each with its place; raises PlanError as it comes to it."""
    source = spec.source
    if not source:
        if previous is None:
            raise PlanError("this step reads the output before it, which is not there yet")
        return _values(previous, "the output before it")
    if spec.experiment is not None:
        return ((job.name, dict(job.params)) for job in expand(spec.experiment))
    if source.startswith("generate:"):
        count = int(source.removeprefix("generate:"))
        return ((f"item {n}", {"index": n, "number": n + 1}) for n in range(count))
    if source.startswith("py:"):
        return _from_function(source, base_dir, params)
    path = base_dir / source
    if is_glob(source) and not path.exists():
        return _from_files(source, base_dir)
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return _from_jsonl(path, source)
    if suffix == ".csv":
        return _from_csv(path, source)
    if suffix == ".json":
        return _from_json(path, source, is_whole=spec.whole)
    if suffix == ".parquet":
        return _from_parquet(path, source)
    raise PlanError(
        f"{source}: expected a .json, .jsonl, .csv or .parquet file, or a glob of files"
    )


def _values(values: Iterable[Json], name: str) -> Iterator[Row]:
    if isinstance(values, Mapping | str):
        values = [values]  # a collate function may give one document
    return ((f"{name}, element {at}", value) for at, value in enumerate(values))


def _reject(text: str) -> NoReturn:
    raise ValueError(f"{text} is not part of JSON")


def _loads(text: str) -> Json:
    try:
        return from_json(text, allow_inf_nan=False)  # three times as fast
    except ValueError:
        return _loads_slowly(text)  # which takes some more, and knows the place of what is wrong


def _loads_slowly(text: str) -> Json:
    value = json.loads(text, parse_constant=_reject)
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("half of a surrogate pair, which is no character") from error
    return value


def _from_json(path: Path, name: str, *, is_whole: bool) -> Iterator[Row]:
    if path.is_file() and path.stat().st_size > MAX_JSON_BYTES:
        raise PlanError(
            f"{name}: {path.stat().st_size:,} bytes are too many for one JSON document, which is "
            "read whole; save one object a line as .jsonl, which is read line by line"
        )
    text = read_text(path, name)
    if not text.strip():
        raise PlanError(f"{name}: the file is empty; expected a JSON array")
    try:
        data = _loads(text)
    except json.JSONDecodeError as error:
        hint = "; one object a line is .jsonl" if error.msg == "Extra data" else ""
        place = f"{name}:{error.lineno}:{error.colno}"
        raise PlanError(f"{place}: not JSON: {error.msg}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{name}: not JSON: {error}") from error
    if is_whole and not isinstance(data, list):
        return iter([(name, data)])
    if not isinstance(data, list):
        keys = [key for key, value in data.items() if isinstance(value, list)] if isinstance(
            data, dict) else []  # fmt: skip
        hint = f"; it holds a list under `{keys[0]}`: save that one alone" if keys else ""
        raise PlanError(f"{name}: expected a JSON array, found {kind_of(data)}{hint}")
    return ((f"{name}, element {at}", value) for at, value in enumerate(data))


def _open(path: Path, name: str) -> io.BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise PlanError(f"{name}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise PlanError(f"{name}: cannot be read: {error}") from error


def _lines(path: Path, name: str) -> Iterator[str]:
    """The lines of a file with their ends; raises PlanError at the first that is not UTF-8."""
    offset = 0
    with _open(path, name) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), start=1):
            if len(line) == MAX_LINE_BYTES:
                raise PlanError(
                    f"{name}:{number}: the line has {MAX_LINE_BYTES:,} bytes or more; each item "
                    "belongs on a line of its own"
                )
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise PlanError(
                    f"{name}:{number}: not UTF-8: byte 0x{line[error.start]:02x} at offset "
                    f"{offset + error.start}; save the file as UTF-8"
                ) from error
            offset += len(line)


def _from_jsonl(path: Path, name: str) -> Iterator[Row]:
    for number, line in enumerate(_lines(path, name), start=1):
        if not line.strip():
            continue
        try:
            yield f"{name}:{number}", _loads(line)
        except json.JSONDecodeError as error:
            raise PlanError(f"{name}:{number}:{error.colno}: not JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{name}:{number}: not JSON: {error}") from error


def _from_csv(path: Path, name: str) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the stock limit of 128 KiB refuses long texts
    rows = csv.reader(_lines(path, name), strict=True)
    try:
        header = next(rows, None)
        if not header:
            raise PlanError(f"{name}: the file is empty; expected a line of column names")
        double = next((column for column in header if header.count(column) > 1), None)
        if double is not None:
            raise PlanError(f"{name}:1: the column `{double}` is there twice")
        for row in rows:
            if not row:
                continue
            place = f"{name}:{rows.line_num}"
            if len(row) != len(header):
                raise PlanError(f"{place}: {len(row)} fields under {len(header)} columns")
            yield place, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise PlanError(f"{name}:{rows.line_num}: not CSV: {error}") from error


def _from_parquet(path: Path, name: str) -> Iterator[Row]:
    _open(path, name).close()
    try:
        for number, row in enumerate(read_parquet(str(path)), start=1):
            yield f"{name}, row {number}", row
    except StoreError as error:
        raise PlanError(f"{name}: {error}") from error
    except ValueError as error:
        raise PlanError(f"{name}: cannot be read: {error}") from error


def _from_files(pattern: str, base_dir: Path) -> Iterator[Row]:
    """Each file as {path, name, text}; `text` is null for a binary file, one with NUL bytes."""
    # Path.glob takes neither absolute patterns nor ..; glob.glob does.
    found = sorted(glob.glob(pattern, root_dir=base_dir, recursive=True))  # noqa: PTH207
    files = [base_dir / path for path in found if (base_dir / path).is_file()]
    if not files:
        raise PlanError(f"{pattern}: no file matches in {base_dir}")
    for path in files:
        shown = str(path.relative_to(base_dir)) if path.is_relative_to(base_dir) else str(path)
        with _open(path, shown) as file:
            content = file.read()
        text = None if b"\0" in content[:_BINARY_PROBE] else decode(content, shown)
        yield shown, {"path": str(path.absolute()), "name": path.name, "text": text}


def _from_function(source: str, base_dir: Path, params: Mapping[str, Any]) -> Iterator[Row]:
    module_name, _, function_name = source.removeprefix("py:").partition(":")
    with _on_path(base_dir):
        function = _imported(source, module_name, function_name, base_dir)
        try:
            values = function(dict(params)) if _takes_params(function) else function()
            if isinstance(values, Mapping | str | bytes) or not isinstance(values, Iterable):
                raise PlanError(
                    f"{source}: must return a list or yield items, not {kind_of(values)}"
                )
            for at, value in enumerate(values):
                yield f"{source}, element {at}", _as_json(source, at, value)
        except PlanError:
            raise
        except (Exception, SystemExit) as error:  # user code, which may raise anything
            raise PlanError(f"{source}: {_where(error)}{type(error).__name__}: {error}") from error


def _imported(source: str, module: str, name: str, base_dir: Path) -> Callable[..., Any]:
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise PlanError(
            f"{source}: cannot import {module}: {type(error).__name__}: {error}; it is looked "
            f"for in {base_dir} and among the installed packages"
        ) from error
    function = getattr(loaded, name, None)
    if not callable(function):
        functions = [key for key, value in vars(loaded).items() if inspect.isfunction(value)]
        listed = ", ".join(functions) or "no functions"
        raise PlanError(f"{source}: {module} has no function `{name}`; it has: {listed}")
    return function  # type: ignore[no-any-return]  # callable() narrows Any to no signature


def _takes_params(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind({})
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return False
    return True


def _as_json(source: str, at: int, value: Any) -> Json:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise PlanError(f"{source}, element {at}: not JSON: {error}") from error


def _where(error: BaseException) -> str:
    """The last line of user code in a traceback."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file != __file__:
            place = f"{Path(file).name}:{trace.tb_lineno}: "
        trace = trace.tb_next
    return place


@contextlib.contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    text = str(folder.absolute())
    sys.path.insert(0, text)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(text)
