"""The small types of a manifest: durations, counts, money, names, and what is not done yet."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from batchq.errors import UsageError
from batchq.manifest.labels import check_label

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmM])?")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_TIMES = {"k": 1_000, "m": 1_000_000, None: 1}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d+)?)\s*([kKmMgGtT]?)(?:i?[bB])?")
_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_TASK = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOLLARS = re.compile(r"\d{1,15}(?:\.\d{1,12})?")
_VERSION = re.compile(r"v\d+")
NEWEST = "newest"
MAX_DURATION_S = 366 * 86400.0
MIN_PERIOD_S = 0.01
MIN_USD, MAX_USD = Decimal("0.000001"), 1_000_000
MAX_TOKENS = 10**15  # what the numbers of Lua hold exactly, with room for sums


class Part(BaseModel):
    """A mapping of the manifest with fixed keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def wrong(message: str) -> PydanticCustomError:
    """An error whose text reaches the user as it is."""
    return PydanticCustomError("manifest", "{message}", {"message": message})


def shown(value: Any) -> str:
    """Names a value and its type in people's words, cut short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"the number `{value}`"
    if isinstance(value, str):
        return f"the text `{value if len(value) <= 40 else value[:37] + '...'}`"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def parse_duration(value: Any) -> float:
    """Reads `90s`, `5m`, `100ms`, `2h`, `1d` or bare seconds; returns seconds."""
    match = None
    if not isinstance(value, bool) and isinstance(value, str | int | float):
        match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise wrong(f"expected a duration such as 90s, 5m or 100ms, found {shown(value)}")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > MAX_DURATION_S:
        raise wrong(f"{value} is longer than a year")
    return seconds


def parse_period(value: Any) -> float:
    """Reads a duration that is long enough for something to happen in it."""
    seconds = parse_duration(value)
    if seconds < MIN_PERIOD_S:
        raise wrong(f"must be at least {MIN_PERIOD_S * 1000:.0f}ms, found {shown(value)}")
    return seconds


def parse_count(value: Any) -> int:
    """Reads `400k`, `2M` or a whole number."""
    match = None
    if not isinstance(value, bool) and isinstance(value, str | int | float):
        match = _COUNT.fullmatch(str(value).strip().removeprefix("-"))
    if match is None:
        raise wrong(f"expected a whole number, such as 600 or 400k, found {shown(value)}")
    exact = float(match[1]) * _TIMES[match[2].lower() if match[2] else None]
    if exact != int(exact):
        raise wrong(f"expected a whole number, found {shown(value)}")
    if str(value).strip().startswith("-"):
        raise wrong(f"must not be negative, found {value}")
    return int(exact)


def parse_positive_count(value: Any) -> int:
    """Reads a count of at least 1."""
    number = parse_count(value)
    if number < 1:
        raise wrong("must be at least 1, found 0")
    return number


def parse_size(value: Any) -> int:
    """Reads an amount of memory, `6G` or `500M` or bytes; G is 2**30 as in a container's limits."""
    match = None
    if not isinstance(value, bool) and isinstance(value, str | int):
        match = _SIZE.fullmatch(str(value).strip())
    if match is None or not float(match[1]):
        raise wrong(f"expected an amount of memory such as 6G or 500M, found {shown(value)}")
    return int(float(match[1]) * _BYTES[(match[2] or "").upper()])


def parse_usd(value: Any) -> int:
    """Reads an amount of dollars, `25` or `0.50`, as whole nano-dollars."""
    match = None
    if not isinstance(value, bool) and isinstance(value, str | int | float):
        match = _DOLLARS.fullmatch(str(value).strip())
    if match is None:
        raise wrong(f"expected a number of dollars such as 25 or 0.50, found {shown(value)}")
    usd = Decimal(match[0])
    if not MIN_USD <= usd <= MAX_USD:
        raise wrong(f"expected 0.000001 to {MAX_USD:,} dollars, found {shown(value)}")
    return int(usd * 1_000_000_000)


def parse_token_budget(value: Any) -> int:
    """Reads a positive count of tokens that Redis can add up exactly."""
    if isinstance(value, str | int | float) and len(str(value)) > 20:
        raise wrong(f"more tokens than there are: {shown(value)}")
    tokens = parse_positive_count(value)
    if tokens > MAX_TOKENS:
        raise wrong(f"must be at most {MAX_TOKENS:,}, found {shown(value)}")
    return tokens


def parse_share_or_count(value: Any) -> int | str:
    """Reads `10%` (kept as it is) or a count."""
    if isinstance(value, str) and (match := _SHARE.fullmatch(value.strip())):
        if float(match[1]) > 100:
            raise wrong(f"{value} is more than all of the items")
        return value.strip()
    return parse_count(value)


def share_of(value: int | str | None) -> tuple[int | None, float | None]:
    """Splits what `parse_share_or_count` gave into a count and a share from 0 to 1."""
    if isinstance(value, str):
        return None, float(value.rstrip("% ")) / 100
    return value, None


def parse_task(value: Any) -> str:
    """Checks `package.module:function`."""
    if not isinstance(value, str) or not _TASK.fullmatch(value):
        raise wrong(f"expected `package.module:function`, found {shown(value)}")
    return value


def parse_variable(value: Any) -> str:
    """Checks the name of an environment variable; never repeats a value, which may be a key."""
    if isinstance(value, str) and value.startswith("${"):
        raise wrong("write the variable's name alone, without ${...}: the key is read by workers")
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise wrong(
            "this is the NAME of an environment variable, such as OPENAI_API_KEY, not the key; "
            "if a real key stood here, take it out of the file and replace it"
        )
    return value


def parse_ids(value: Any) -> list[str]:
    """Reads a list of ids, numbers among them, as texts."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list):
        raise wrong(f'expected a list of ids such as ["4001"], found {shown(value)}')
    for entry in value:
        if isinstance(entry, bool | float) or not isinstance(entry, str | int):
            raise wrong(f"expected ids, found {shown(entry)} among them; put it in quotes")
    return [str(entry) for entry in value]


def parse_skip_existing(value: Any) -> str:
    """Reads true (the newest version), a version such as v2, or false."""
    if value is None or value is False or value == "":
        return ""
    if value is True or value == NEWEST:
        return NEWEST
    if isinstance(value, str) and _VERSION.fullmatch(value):
        return value
    raise wrong(f"expected true, false or a version such as v2, found {shown(value)}")


def parse_label(value: Any) -> str:
    """Reads a word for how mature a version is."""
    if not isinstance(value, str):
        raise wrong(f"expected a word such as beta, found {shown(value)}")
    try:
        return check_label(value)
    except UsageError as error:
        raise wrong(str(error)) from error


def parse_texts(value: Any) -> list[str]:
    """Reads one text or a list of texts."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(entry, str) for entry in values):
        raise wrong(f"expected a text or a list of texts, found {shown(value)}")
    return values


def _refuse(value: Any) -> Any:
    """Lets pass what asks for nothing; the loader writes the message, which needs the key."""
    if value is None or value is False:
        return None
    raise PydanticCustomError("not_yet", "not done yet")


def _schema(kind: str | list[str], example: Any, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": kind, "examples": [example], **more})


Duration = Annotated[float, BeforeValidator(parse_duration), _schema(["string", "number"], "90s")]
Period = Annotated[float, BeforeValidator(parse_period), _schema(["string", "number"], "90s")]
Count = Annotated[int, BeforeValidator(parse_count), _schema(["integer", "string"], "400k")]
PositiveCount = Annotated[
    int, BeforeValidator(parse_positive_count), _schema(["integer", "string"], 50)
]
Size = Annotated[int, BeforeValidator(parse_size), _schema(["integer", "string"], "6G")]
Usd = Annotated[int, BeforeValidator(parse_usd), _schema(["number", "string"], 25)]
TokenBudget = Annotated[
    int, BeforeValidator(parse_token_budget), _schema(["integer", "string"], "2M")
]
ShareOrCount = Annotated[
    int | str, BeforeValidator(parse_share_or_count), _schema(["integer", "string"], "10%")
]
TaskName = Annotated[str, BeforeValidator(parse_task), _schema("string", "package.module:function")]
VariableName = Annotated[str, BeforeValidator(parse_variable), _schema("string", "OPENAI_API_KEY")]
Ids = Annotated[
    list[str],
    BeforeValidator(parse_ids),
    _schema("array", ["4001"], items={"type": ["string", "integer"]}),
]
SkipExisting = Annotated[
    str, BeforeValidator(parse_skip_existing), _schema(["boolean", "string"], example=True)
]
Label = Annotated[str, BeforeValidator(parse_label), _schema("string", "beta")]
Texts = Annotated[list[str], BeforeValidator(parse_texts), _schema(["array", "string"], ["text"])]
NotYet = Annotated[SkipJsonSchema[Any], BeforeValidator(_refuse)]
"""A key of the format whose behaviour does not exist yet: refused by name, never ignored."""
