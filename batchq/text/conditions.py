"""The language of `when:`: comparisons, and, or, not, in; names, literals, len() and lower()."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from batchq.errors import TaskError
from batchq.outcome import Json
from batchq.text.prompts import flatten

MAX_LENGTH = 1_000
MAX_DEPTH = 30


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Compares by size; what is missing is neither less nor more than anything."""
    return lambda left, right: None not in (left, right) and compare(left, right)


def _is_in(left: Any, right: Any) -> bool:
    return right is not None and left in right


_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: _is_in,
    ast.NotIn: lambda left, right: not _is_in(left, right),
    ast.Is: lambda left, right: left is right,
    ast.IsNot: lambda left, right: left is not right,
}
_CONSTANTS = {"true": True, "false": False, "null": None}
_FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "len": lambda value: 0 if value is None else len(value),
    "lower": lambda text: None if text is None else text.lower(),
}
_WORDS = {
    ast.Attribute: "a field of a field is written with __, as in a__b",
    ast.Subscript: "a field of a field is written with __, as in a__b",
    ast.BinOp: "no arithmetic",
    ast.JoinedStr: "no f-strings",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that has been checked. `names` are the fields that it asks for."""

    text: str
    names: tuple[str, ...]
    tree: ast.expr


@lru_cache(maxsize=256)
def compile_condition(text: str) -> Condition:
    """Checks a condition; raises ValueError that says what is not allowed in it."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a condition has at most {MAX_LENGTH} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"not a condition: {error.msg} (column {error.offset})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a condition: {error}") from error
    asked: list[str] = []
    _check(tree, asked, 0)
    return Condition(text, tuple(dict.fromkeys(asked)), tree)


def _check(node: ast.expr, asked: list[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("the condition is nested too deeply")
    match node:
        case ast.Constant(value=str() | int() | float() | None):
            return
        case ast.Name(id=name):
            if name not in _CONSTANTS:
                asked.append(name)
            return
        case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
            inner = parts
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            inner = [operand]
        case ast.Compare(left=left, comparators=rights):
            inner = [left, *rights]
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            inner = [argument]
        case ast.Call():
            raise ValueError("only len(x) and lower(x) can be called")
        case _:
            reason = _WORDS.get(type(node), "only comparisons, and, or, not, in, names and values")
            raise ValueError(f"`{ast.unparse(node)}` is not allowed: {reason}")
    for part in inner:
        _check(part, asked, depth + 1)


def evaluate(text: str, data: Json) -> bool:
    """Whether a condition holds for an item; `data` is the item with the stages before.

    A field that the item does not have is null, as one that is null: it equals nothing but null,
    is neither less nor more than anything, holds nothing and counts as false.

    Raises:
        TaskError: kind "prompt", if two values cannot be compared.
    """
    condition = compile_condition(text)
    try:
        return bool(_value(condition.tree, flatten(data)))
    except (TypeError, AttributeError) as error:
        raise TaskError(f"when: `{text}`: {error}", kind="prompt") from error


def _value(node: ast.expr, known: Mapping[str, Json]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return known[name] if name in known else _CONSTANTS.get(name)
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, known) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, known) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, known)
        case ast.UnaryOp(operand=operand):
            value = _value(operand, known)
            return None if value is None else -value
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part, known) for part in parts]
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return _FUNCTIONS[name](_value(argument, known))
        case ast.Compare(left=left, ops=ops, comparators=rights):
            return _compare(_value(left, known), ops, rights, known)
    raise AssertionError(f"{type(node).__name__} passed the check")  # compile_condition refuses it


def _compare(
    left: Any, ops: list[ast.cmpop], rights: list[ast.expr], known: Mapping[str, Json]
) -> bool:
    for op, node in zip(ops, rights, strict=True):
        right = _value(node, known)
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True
