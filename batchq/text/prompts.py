"""Fills an item's fields into prompt texts: `{field}`, or Jinja2 for files that end in .j2."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from batchq.errors import TaskError
from batchq.outcome import Json

if TYPE_CHECKING:
    from jinja2 import Environment, Template

_FIELD = re.compile(r"\{([^\W\d]\w*)\}")
_SHOWN_NAMES = 30
_MAX_DEPTH = 20  # nested deeper, a field has no name of its own; its parent has
_MAX_RENDERED = 50_000_000  # characters: a loop in a template must not eat the worker's memory


def as_text(value: Json) -> str:
    """A value as it stands in a prompt: texts as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def flatten(data: Json) -> dict[str, Json]:
    """Lists the names that an item offers.

    Fields, and nested ones joined by `__`; `item` is the whole item unless a field is called so.
    A field that is literally called `a__b` wins over `b` inside `a`.
    """
    names: dict[str, Json] = {}
    if isinstance(data, Mapping):
        for path, value in _walk("", data, _MAX_DEPTH):
            names.setdefault(path, value)
        names.update((str(key), value) for key, value in data.items())
    names.setdefault("item", data)
    return names


def _walk(prefix: str, data: Mapping[Any, Json], depth: int) -> Iterator[tuple[str, Json]]:
    for key, value in data.items():
        path = f"{prefix}{key}"
        yield path, value
        if isinstance(value, Mapping) and depth:
            yield from _walk(f"{path}__", value, depth - 1)


def unknown_name(name: str, known: Mapping[str, Any]) -> TaskError:
    """The error for a name that the item does not have; lists those it has, nearest first."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    ordered = near + [other for other in known if other not in near]
    listed = ", ".join(ordered[:_SHOWN_NAMES]) or "no fields at all"
    more = f" and {len(ordered) - _SHOWN_NAMES} more" if len(ordered) > _SHOWN_NAMES else ""
    return TaskError(f"the item has no field `{name}`; it has: {listed}{more}", kind="prompt")


def render(template: str, data: Json, *, is_jinja: bool) -> str:
    """Fills `data` into a template; what is filled in is never looked at again.

    Raises:
        TaskError: kind "prompt", if a name is missing or a Jinja2 template fails.
    """
    if is_jinja:
        return _render_jinja(template, data)
    known: dict[str, Json] | None = None
    parts: list[str] = []
    for is_field, text in _parts(template):
        if not is_field:
            parts.append(text)
            continue
        if known is None:
            known = flatten(data)
        if text not in known:
            raise unknown_name(text, known)
        parts.append(as_text(known[text]))
    return "".join(parts)


def names(template: str, *, is_jinja: bool = False) -> list[str]:
    """The names that a template asks for, each once, in order."""
    if not is_jinja:
        return list(dict.fromkeys(text for is_field, text in _parts(template) if is_field))
    from jinja2 import TemplateSyntaxError, meta

    try:
        return sorted(meta.find_undeclared_variables(_environment().parse(template)))
    except TemplateSyntaxError as error:
        raise _bad_template(error, error.lineno) from error
    except (RecursionError, ValueError, OverflowError) as error:  # of its braces, or its numbers
        raise _bad_template(error) from error


@lru_cache(maxsize=256)
def _parts(template: str) -> tuple[tuple[bool, str], ...]:
    """Cuts a template into texts (False, text) and fields (True, name).

    `{{` opens an escape that the `}}` which matches it closes; both become one brace. So
    `}}` at the end of nested JSON, which no `{{` opened, stays as it is.
    """
    parts: list[tuple[bool, str]] = []
    text: list[str] = []
    escaped: list[bool] = []  # the braces that are open: whether each was written double
    at = 0
    for brace in re.finditer(r"[{}]", template):
        start = brace.start()
        if start < at:
            continue
        text.append(template[at:start])
        at = start + 1
        if brace[0] == "{":
            field = _FIELD.match(template, start)
            if template.startswith("{{", start):
                at = start + 2
                escaped.append(True)
                text.append("{")
            elif field:
                parts += [(False, "".join(text)), (True, field[1])]
                text = []
                at = field.end()
            else:
                escaped.append(False)
                text.append("{")
        else:
            was_double = escaped[-1] if escaped else False
            if was_double and template.startswith("}}", start):
                at = start + 2
            if escaped and (not was_double or at == start + 2):
                escaped.pop()
            text.append("}")
    text.append(template[at:])
    parts.append((False, "".join(text)))
    return tuple(parts)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import StrictUndefined, Undefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Undefined) else as_text(value)

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        finalize=finalize,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["tojson"] = to_json  # the stock one escapes < > & for HTML
    return environment


@lru_cache(maxsize=256)
def _template(text: str) -> Template:
    return _environment().from_string(text)


def _render_jinja(template: str, data: Json) -> str:
    from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError

    known = flatten(data)
    try:
        pieces: list[str] = []
        size = 0
        for piece in _template(template).generate(known):
            size += len(piece)
            if size > _MAX_RENDERED:
                raise TaskError("the rendered prompt is over 50 million characters", kind="prompt")
            pieces.append(piece)
        return "".join(pieces)
    except TemplateSyntaxError as error:
        raise _bad_template(error, error.lineno) from error
    except UndefinedError as error:
        missing = re.match(r"'(\w+)' is undefined", error.message or "")
        if missing:
            raise unknown_name(missing[1], known) from error
        raise TaskError(f"template: {error.message}", kind="prompt") from error
    except (
        TemplateError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise _bad_template(error) from error


def _bad_template(error: Exception, line: int | None = None) -> TaskError:
    place = f" line {line}" if line else ""
    return TaskError(f"template{place}: {error}", kind="prompt")
