"""A step as Python code writes it, and the manifest that a list of them makes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

from batchq.manifest import models as manifest
from batchq.manifest.loader import load_document
from batchq.manifest.models import STEP_ALIASES, Manifest, Place
from batchq.manifest.yamlfile import Document, KeyPath, with_includes

HERE = "run_pipeline()"
PROVIDERS_FILE = "providers.yaml"
"""Holds `providers:` for pipelines that name none in Python."""

_PARAMETERS: dict[KeyPath, str] = {
    ("name",): "pipeline_name",
    ("status",): "pipeline_status",
    ("labels", "module"): "module_number",
    ("labels", "path"): "path_letter",
    ("config", "output_dir"): "output_dir",
    ("notes",): "notes",
    ("providers",): "providers",
    ("include",): "providers",
    ("steps",): "steps",
}

Name = str | os.PathLike[str]
Span = str | float
"""Seconds, or a text such as "90s" or "5m"."""


class StepKeys(TypedDict, total=False):
    """The parameters of a `Step`: the keys of a manifest's step, then their longer names."""

    name: str
    input: Name | Mapping[str, int]
    output_file: str
    prompt: Name
    system: Name
    provider: str
    model: str
    options: Mapping[str, Any]
    output_schema: Name | Mapping[str, Any]
    task: str
    command: Sequence[Name]
    stages: Sequence[Mapping[str, Any]]
    once: bool
    collate: str
    dedup: Mapping[str, Any]
    params: Mapping[str, Any]
    needs: str | Sequence[str]
    id_field: str
    output_id_field: str
    id_start: int
    only: Sequence[str | int] | None
    skip: Sequence[str | int] | None
    limit: int | None
    sample: Mapping[str, Any]
    skip_existing: bool | str
    stop_on_error: bool
    max_failures: int | str | None
    retry: Mapping[str, Any]
    timeout: Span
    batch_mode: bool
    batch_size: int
    concurrent_batches: int
    batch_delay: Span
    queue: str | None
    save_prompts: bool
    setup: str
    resources: Mapping[str, int | str]
    save_stats: bool
    analyze: bool | str
    metrics: str | Sequence[str]
    mode: str
    deadline: Span
    # Longer names, each for one of those above.
    prompt_name: Name
    input_file: Name | Mapping[str, int]
    batch_id_field: str
    batch_output_id_field: str
    batch_id_start: int
    batch_only_items: Sequence[str | int] | None
    batch_skip_items: Sequence[str | int] | None
    batch_skip_existing: bool | str
    batch_stop_on_error: bool
    emit_delay: Span
    wait: Span


@dataclass(frozen=True, init=False, repr=False)
class Step:
    """One step of a pipeline: where its items come from, and what is done with each.

    Every key of a step in a manifest is a parameter, under its short name (`prompt`, `input`,
    `id_field`, `only`, ...) or under its long one (`prompt_name`, `input_file`, `batch_id_field`,
    `batch_only_items`, ...). What is left out, or None, has the manifest's default: items one by
    one (`batch_mode=True`), numbers from 1, failed items do not end the run. Paths start from
    `base_dir` of `run_pipeline`. Durations are seconds, or texts such as `"5m"`.

    A step without a `name` is called after its output file, its prompt or its function.

    Raises:
        TypeError: a parameter that does not exist, or two names of the same one. Wrong values are
            told by `run_pipeline`, all at once.
    """

    keys: Mapping[str, Any]
    written: Mapping[str, str] = field(compare=False)

    def __init__(self, **keys: Unpack[StepKeys]) -> None:
        values: dict[str, Any] = {}
        written: dict[str, str] = {}
        for name, value in keys.items():
            key = STEP_ALIASES.get(name, name)
            if key not in manifest.Step.model_fields:
                raise TypeError(f"Step() has no parameter {name!r}{_nearest(name)}")
            if key in written:
                raise TypeError(
                    f"Step() got {written[key]!r} and {name!r}, which mean the same; keep one"
                )
            written[key] = name
            if value is not None:
                values[key] = _plain(value)
        object.__setattr__(self, "keys", values)
        object.__setattr__(self, "written", written)

    def __repr__(self) -> str:
        values = ", ".join(f"{self.written[key]}={value!r}" for key, value in self.keys.items())
        return f"Step({values})"


def build_manifest(
    steps: Sequence[Step],
    base_dir: Path,
    *,
    providers: Mapping[str, Mapping[str, Any]] | None,
    output_dir: Name,
    labels: Mapping[str, str | int | None],
    **texts: str,
) -> Manifest:
    """Makes the manifest that YAML with the same keys would make.

    `texts` are its name, status and notes. Without `providers` those of `providers.yaml` in
    `base_dir` are taken, if it is there. Raises ManifestError with every problem.
    """
    data: dict[str, Any] = {
        **texts,
        "labels": {key: value for key, value in labels.items() if value is not None},
        "config": {"output_dir": os.fspath(output_dir)},
        "steps": [
            {"name": name, **step.keys} for name, step in zip(_names(steps), steps, strict=True)
        ],
    }
    if providers is not None:
        data["providers"] = _plain(providers)
    elif (base_dir / PROVIDERS_FILE).is_file():
        data["include"] = [PROVIDERS_FILE]
    place = base_dir / HERE
    return load_document(with_includes(Document(data, _places(steps)), place), place)


def _places(steps: Sequence[Step]) -> dict[KeyPath, Place]:
    names: dict[KeyPath, str] = {**_PARAMETERS}
    for index, step in enumerate(steps):
        names["steps", index] = ""
        names.update({("steps", index, key): name for key, name in step.written.items()})
    return {key: Place(HERE, 0, 0, name) for key, name in names.items()}


def _names(steps: Sequence[Step]) -> list[str]:
    """The names of the steps; one that has none is called after what it makes or does."""
    taken = [str(step.keys["name"]) for step in steps if "name" in step.keys]
    names = []
    for number, step in enumerate(steps, 1):
        if "name" in step.keys:
            names.append(str(step.keys["name"]))
            continue
        prompt = str(step.keys.get("prompt", ""))
        name = (
            Path(str(step.keys.get("output_file", ""))).stem
            or (Path(prompt).stem if "\n" not in prompt else "")
            or str(step.keys.get("task", "")).rpartition(":")[2]
            or f"step{number}"
        )
        if name in taken:
            name = f"{name}{number}"
        taken.append(name)
        names.append(name)
    return names


def _nearest(name: str) -> str:
    known = [*manifest.Step.model_fields, *STEP_ALIASES]
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(known))}"


def _plain(value: Any) -> Any:
    """The value as YAML would give it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
