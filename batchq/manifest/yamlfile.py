"""Reads YAML files with the place of every key: duplicates, includes and aliases are checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from batchq.errors import ManifestError, Problem
from batchq.manifest.models import STEP_ALIASES, TOP_ALIASES, Place

KeyPath = tuple[str | int, ...]

MAX_BYTES = 4_000_000
MAX_NODES = 200_000
MAX_DEPTH = 60
_TAG = "tag:yaml.org,2002:"
_TEXTS = {f"{_TAG}{name}" for name in ("str", "timestamp", "merge", "value")}
_PLAIN = {f"{_TAG}{name}" for name in ("int", "float", "bool", "null")}


@dataclass
class Document:
    """What a file holds. `raw` keeps how a number was written where that was not its plain form."""

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    raw: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    text: str = ""


def read_document(path: Path, above: tuple[Path, ...] = ()) -> Document:
    """Reads a manifest and the files that it includes, merged under it.

    Raises:
        ManifestError: the file cannot be read, or is no YAML mapping at all. Lesser problems are
            in the document's `problems`.
    """
    document = _Builder(path).build()
    _rename_aliases(document)
    return with_includes(document, path, above)


def with_includes(document: Document, path: Path, above: tuple[Path, ...] = ()) -> Document:
    """Lays a document over the files that it includes, which are found beside `path`."""
    merged = Document(problems=document.problems, text=document.text)
    for included in _includes(document):
        file = path.parent / included
        chain = (*above, path)
        if file.resolve() in {other.resolve() for other in chain}:
            circle = " -> ".join(other.name for other in (*chain, file))
            merged.problems.append(
                _at(document, ("include",), f"files include each other: {circle}")
            )
            continue
        try:
            below = read_document(file, chain)
        except ManifestError as error:
            merged.problems += [
                _at(document, ("include",), problem.message) if not problem.line else problem
                for problem in error.problems
            ]
            continue
        merged.problems += below.problems
        _merge(merged, below)
        merged.text += f"\n# included: {included}\n{below.text}"
    _merge(merged, document)
    return merged


def _includes(document: Document) -> list[str]:
    value = document.data.get("include")
    values = [value] if isinstance(value, str) else value
    return [entry for entry in values if isinstance(entry, str)] if isinstance(values, list) else []


def _at(document: Document, key: KeyPath, message: str) -> Problem:
    place = document.places[key]
    return Problem(place.path, place.line, place.column, place.name, message)


def _merge(target: Document, over: Document) -> None:
    """Lays one document over another: mappings deep, everything else replaced."""
    target.data = _merged(target.data, over.data)
    for old in [key for key in target.places if _is_replaced(over, key)]:
        del target.places[old]
        target.raw.pop(old, None)
    target.places.update(over.places)
    target.raw.update(over.raw)


def _is_replaced(over: Document, key: KeyPath) -> bool:
    value: Any = over.data
    for part in key:
        if not isinstance(value, dict):
            return True
        if part not in value:
            return False
        value = value[part]
    return False


def _merged(under: Any, over: Any) -> Any:
    if isinstance(under, dict) and isinstance(over, dict):
        both = dict(under)
        for key, value in over.items():
            both[key] = _merged(under[key], value) if key in under else value
        return both
    return over


def _rename_aliases(document: Document) -> None:
    """Gives the keys of seed 002 their short names; their places remember what was written."""
    for alias, key in TOP_ALIASES.items():
        if alias in document.data:
            _move(document, (alias,), tuple(key.split(".")))
    steps = document.data.get("steps")
    for index, step in enumerate(steps if isinstance(steps, list) else []):
        if isinstance(step, dict):
            for alias in [key for key in STEP_ALIASES if key in step]:
                _move(document, ("steps", index, alias), ("steps", index, STEP_ALIASES[alias]))
    config = document.data.get("config")
    if isinstance(config, dict):
        for alias in ("batch_stop_on_error", "emit_delay", "wait"):
            if alias in config:
                _move(document, ("config", alias), ("config", STEP_ALIASES[alias]))


def _move(document: Document, old: KeyPath, new: KeyPath) -> None:
    holder: Any = document.data
    for part in old[:-1]:
        holder = holder[part]
    target: Any = document.data
    for part in new[:-1]:
        target = target.setdefault(part, {}) if isinstance(part, str) else target[part]
        if not isinstance(target, dict | list):
            return  # a wrong type, which is reported elsewhere
    if new[-1] in target:
        said = _at(document, old, f"says the same as `{new[-1]}`, which is there too; keep one")
        document.problems.append(said)
        del holder[old[-1]]
        return
    target[new[-1]] = holder.pop(old[-1])
    _rename_keys(document.places, old, new)
    _rename_keys(document.raw, old, new)


def _rename_keys(values: dict[KeyPath, Any], old: KeyPath, new: KeyPath) -> None:
    for key in [key for key in values if key[: len(old)] == old]:
        values[new + key[len(old) :]] = values.pop(key)


class _Builder:
    """Turns the nodes of one file into plain values, noting where each key stands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document = Document()
        self.nodes = 0
        self.yaml = YAML(typ="safe", pure=True)
        self.yaml.composer.warn_double_anchors = False  # YAML 1.2 lets an anchor be set anew

    def build(self) -> Document:
        self.document.text = self._read()
        try:
            root = self.yaml.compose(self.document.text)
        except MarkedYAMLError as error:
            raise ManifestError([self._syntax(error)]) from error
        except (YAMLError, ValueError, RecursionError, AttributeError, AssertionError) as error:
            # ruamel raises some of these for odd bytes instead of its own errors.
            raise self._fatal(f"not YAML: {_one_line(error) or type(error).__name__}") from error
        if root is None:
            raise self._fatal("the file is empty", "`batchq init` writes an example")
        if not isinstance(root, MappingNode):
            kind = "a list" if isinstance(root, SequenceNode) else "a single value"
            raise self._fatal(f"a manifest is a mapping of keys to values; this is {kind}")
        self.document.data = self._value(root, (), ())
        return self.document

    def _read(self) -> str:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError as error:
            raise self._fatal("no such file") from error
        except IsADirectoryError as error:
            raise self._fatal("this is a folder; name the manifest file in it") from error
        except OSError as error:
            raise self._fatal(f"cannot be read: {error.strerror or error}") from error
        except ValueError as error:  # a NUL byte in the path
            raise self._fatal(f"not a path: {error}") from error
        if len(content) > MAX_BYTES:
            raise self._fatal(
                f"{len(content):,} bytes are too many for a manifest; put items into an input file"
            )
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            problem = f"not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}"
            raise ManifestError([Problem(str(self.path), line, 1, "", problem)]) from error

    def _fatal(self, message: str, hint: str = "") -> ManifestError:
        return ManifestError([Problem(str(self.path), 0, 0, "", message, hint)])

    def _syntax(self, error: MarkedYAMLError) -> Problem:
        mark = error.problem_mark or error.context_mark
        message = _one_line(error.problem or error.context or error)
        if "another document" in message:
            message = "there are two documents (a line `---` between them); a manifest is one"
        hint = ""
        if "'\\t'" in message or "tab" in message:
            hint = "indent with spaces, not with tabs"
        elif "mapping values are not allowed" in message:
            hint = "put a text that holds `: ` in quotes"
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        return Problem(str(self.path), line, column, "", f"not YAML: {message}", hint)

    def _say(self, node: Node, key: KeyPath, message: str, hint: str = "") -> None:
        mark = node.start_mark
        self.document.problems.append(
            Problem(str(self.path), mark.line + 1, mark.column + 1, key_text(key), message, hint)
        )

    def _value(self, node: Node, key: KeyPath, above: tuple[int, ...]) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self._fatal(
                f"over {MAX_NODES:,} values once its aliases are expanded; put items into a file"
            )
        if id(node) in above:
            self._say(node, key, "an alias that contains itself")
            return None
        if len(above) > MAX_DEPTH:
            raise self._fatal(f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(node, MappingNode):
            return self._mapping(node, key, (*above, id(node)))
        if isinstance(node, SequenceNode):
            values = []
            for index, entry in enumerate(node.value):
                self._note((*key, index), entry, "")
                values.append(self._value(entry, (*key, index), (*above, id(node))))
            return values
        return self._scalar(node, key)

    def _mapping(self, node: MappingNode, key: KeyPath, above: tuple[int, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        inherited: dict[str, Any] = {}
        for name_node, value_node in node.value:
            if name_node.tag == f"{_TAG}merge":
                for part in self._merge_parts(value_node):
                    found = self._value(part, key, above)
                    inherited = {**(found if isinstance(found, dict) else {}), **inherited}
                continue
            if not isinstance(name_node, ScalarNode):
                self._say(name_node, key, "a key must be a text")
                continue
            name = self._sound(str(name_node.value), name_node, key)
            path = (*key, name)
            if name in values:
                first = self.document.places[path]
                self._say(name_node, path, "this key is there twice", f"first in line {first.line}")
                continue
            self._note(path, name_node, name)
            values[name] = self._value(value_node, path, above)
        return {**inherited, **values}

    @staticmethod
    def _merge_parts(node: Node) -> Iterator[Node]:
        yield from node.value if isinstance(node, SequenceNode) else (node,)

    def _note(self, key: KeyPath, node: Node, name: str) -> None:
        mark = node.start_mark
        self.document.places[key] = Place(str(self.path), mark.line + 1, mark.column + 1, name)

    def _scalar(self, node: Node, key: KeyPath) -> Any:
        text = str(node.value)
        tag = str(node.tag)
        if tag not in _PLAIN:
            if tag not in _TEXTS:
                self._say(node, key, f"YAML tags such as {tag} are not part of a manifest")
            return self._sound(text, node, key)
        try:
            value = self.yaml.constructor.construct_object(node)
        except (YAMLError, ValueError) as error:
            self._say(node, key, f"not a value: {_one_line(error)}")
            return None
        if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
            self._say(node, key, f"`{text}` is no number that JSON knows")
            return None
        if isinstance(value, int | float) and str(value) != text:
            self.document.raw[key] = text
        return value

    def _sound(self, text: str, node: Node, key: KeyPath) -> str:
        """The text, or none at all if no file could hold it."""
        try:
            text.encode()
        except UnicodeEncodeError:
            self._say(node, key, "half of a surrogate pair, which is no character")
            return ""
        return text


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]


def key_text(key: KeyPath, places: Mapping[KeyPath, Place] | None = None) -> str:
    """Writes a key's path as people do: `steps[0].prompt`, with aliases as they were written."""
    text = ""
    for depth, part in enumerate(key, start=1):
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        place = (places or {}).get(key[:depth])
        name = place.name if place and place.name else part
        text += f".{name}" if text else name
    return text
