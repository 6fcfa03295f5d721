"""Checks what types cannot say: that files are there, names fit together, conditions are sound.

It reads the raw mapping, so that these problems are told together with wrong types.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from batchq.errors import PlanError, TaskError
from batchq.plan import MAX_BATCH_SIZE, is_remote
from batchq.text.conditions import compile_condition
from batchq.text.files import find_prompt, is_inline, read_schema, read_text
from batchq.text.prompts import names
from batchq.text.tabular import NEEDS_PYARROW, has_parquet

KeyPath = tuple[str | int, ...]
Report = Callable[[KeyPath, str, str], None]

WORKS = ("prompt", "task", "command", "stages")
INPUT_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
OUTPUT_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".yaml")
RUN_SOURCE = re.compile(r"run:(?P<pipeline>[^@/]+)@(?P<version>[^@/]+)(/(?P<step>.+))?")
"""An input that is the output of another run: run:NAME@latest, run:NAME@v3/STEP."""
BASE_URLS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "simulator": "",
}


LIMITS_ALONE = "api"
"""The kind of a provider that is no model: what tasks call under its limits."""


def is_glob(path: str) -> bool:
    """Whether a path holds a wildcard."""
    return any(sign in path for sign in "*?[")


def check(data: Mapping[str, Any], base_dir: Path, report: Report) -> None:
    """Reports everything that is wrong in how the parts of a manifest fit together."""
    providers = _mapping(data.get("providers"))
    for name, provider in providers.items():
        _check_provider(("providers", name), _mapping(provider), report)
    config = _mapping(data.get("config"))
    output_dir = config.get("output_dir")
    if isinstance(output_dir, str) and is_remote(output_dir):
        problem = _store_problem(output_dir)
        if problem:
            report(("config", "output_dir"), *problem)
    _check_batch_size(("config",), config, report)
    _check_files(("config",), config, base_dir, report)
    steps = data.get("steps")
    seen: list[str] = []
    for index, raw in enumerate(steps if isinstance(steps, list) else []):
        step = _mapping(raw)
        _check_step(("steps", index), step, seen, report)
        _check_input(("steps", index), step, seen, base_dir, report)
        _check_files(("steps", index), step, base_dir, report)
        for key, work in _works(("steps", index), step):
            _check_provider_of(key, [work, step, config], providers, report)
        if isinstance(step.get("name"), str):
            seen.append(step["name"])


def _store_problem(url: str) -> tuple[str, str] | None:
    """What is wrong with a place on an object store, and a hint; None if nothing is."""
    scheme, _, rest = url.partition("://")
    bucket = rest.partition("/")[0]
    if scheme != "s3":
        return f"outputs cannot be kept at {scheme}://", "name a folder, or s3://bucket/prefix"
    if "@" in bucket:
        return "keys do not belong in a URL", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if is_glob(rest):
        return "*, ? and [ would be taken for a pattern", "use other signs in the prefix"
    return None if bucket else ("there is no bucket in it", "expected s3://bucket/prefix")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _works(key: KeyPath, step: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """The step itself or its stages: the parts that can have a prompt."""
    stages = step.get("stages")
    if isinstance(stages, list):
        for index, stage in enumerate(stages):
            yield (*key, "stages", index), _mapping(stage)
    else:
        yield key, step


def near(name: str, known: Sequence[str] | Mapping[str, Any], what: str) -> str:
    """A hint for a name that does not exist."""
    close = difflib.get_close_matches(name, list(known), n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"{what}: {', '.join(known)}" if known else f"there are no {what}"


def _check_provider(key: KeyPath, provider: Mapping[str, Any], report: Report) -> None:
    kind, url = provider.get("kind"), provider.get("base_url")
    if isinstance(url, str) and url:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            report((*key, "base_url"), "expected a URL such as https://api.example.com/v1", "")
        elif parts.username or parts.password:
            message = "a URL with a user or a password would put a secret into the plan"
            report((*key, "base_url"), message, "name the key's variable: api_key_env: NAME")
    if "simulator" in provider and kind != "simulator":
        report((*key, "simulator"), "only a provider of `kind: simulator` has this", "")
    elif provider.get("simulator") and url:
        message = "changes nothing beside a `base_url`: that server has options of its own"
        report((*key, "simulator"), message, "keep one of the two")
    rates = _mapping(provider.get("limits")).get("rates")
    for index, rate in enumerate(rates if isinstance(rates, list) else []):
        if isinstance(rate, Mapping) and ("requests" in rate) == ("tokens" in rate):
            where = (*key, "limits", "rates", index)
            report(where, "a rate has either `requests` or `tokens`", "{requests: 100, per: 10s}")


def _check_provider_of(
    key: KeyPath,
    levels: Sequence[Mapping[str, Any]],
    providers: Mapping[str, Any],
    report: Report,
) -> None:
    """Checks that a prompt has a provider that exists and a model."""
    if "prompt" not in levels[0]:
        return
    named = next((level["provider"] for level in levels if level.get("provider")), None)
    if named is None and len(providers) == 1:
        named = next(iter(providers))
    if named is None:
        hint = "name one under `providers:`" if not providers else f"one of {', '.join(providers)}"
        report((*key, "prompt"), "a prompt needs a `provider`", hint)
        return
    if not isinstance(named, str) or named not in providers:
        where = (*key, "provider") if "provider" in levels[0] else (*key, "prompt")
        report(where, f"no provider `{named}`", near(str(named), providers, "providers"))
        return
    provider = _mapping(providers[named])
    if provider.get("kind") == LIMITS_ALONE:
        message = f"no prompt can be sent to `{named}`: it is of `kind: {LIMITS_ALONE}`"
        report((*key, "prompt"), message, "a task calls it, under context.limit")
        return
    has_model = any(level.get("model") for level in (*levels, provider))
    if not has_model and provider.get("kind") != "simulator":
        hint = f"model: NAME under providers.{named}"
        report((*key, "prompt"), f"no model: neither here nor in provider `{named}`", hint)


def _check_step(key: KeyPath, step: Mapping[str, Any], seen: Sequence[str], report: Report) -> None:
    name = step.get("name")
    if isinstance(name, str) and name in seen:
        report((*key, "name"), f"two steps are called `{name}`", "")
    _check_one_work(key, step, WORKS, report)
    _check_batch_size(key, step, report)
    stages = step.get("stages")
    stage_names: list[Any] = []
    for index, raw in enumerate(stages if isinstance(stages, list) else []):
        stage, where = _mapping(raw), (*key, "stages", index)
        _check_one_work(where, stage, WORKS[:3], report)
        if stage.get("name") in stage_names:
            report((*where, "name"), f"two stages are called `{stage['name']}`", "")
        stage_names.append(stage.get("name"))
        if isinstance(stage.get("when"), str) and stage["when"]:
            try:
                compile_condition(stage["when"])
            except ValueError as error:
                report((*where, "when"), str(error), "")
    file = step.get("output_file")
    if isinstance(file, str) and file:
        if Path(file).suffix not in OUTPUT_SUFFIXES:
            message = f"expected a name that ends in {', '.join(OUTPUT_SUFFIXES)}"
            report((*key, "output_file"), message, f"{Path(file).stem}.json")
        elif Path(file).suffix == ".parquet" and not has_parquet():
            report((*key, "output_file"), NEEDS_PYARROW, "or use .csv")
        elif Path(file).suffix == ".parquet" and step.get("collate") is not None:
            message = "what a collate function gives cannot be read back from Parquet"
            report((*key, "output_file"), message, "use .json, .jsonl or .yaml")
        if "/" in file or "\\" in file:
            report(
                (*key, "output_file"), "a file name without folders; it is put into collated/", ""
            )


def _check_one_work(
    key: KeyPath, work: Mapping[str, Any], kinds: Sequence[str], report: Report
) -> None:
    present = [kind for kind in kinds if work.get(kind) is not None]
    listed = ", ".join(f"`{kind}`" for kind in kinds)
    if not present:
        report(key, f"nothing to do: one of {listed} is needed", "")
    elif len(present) > 1:
        report((*key, present[1]), f"only one of {listed} can be given", f"{present[0]} is there")
    if "task" not in present and work.get("setup") is not None:
        report((*key, "setup"), "only a `task` can be set up for", "")
    if "prompt" not in present and work.get("output_schema") is not None:
        report((*key, "output_schema"), "only a prompt has an output_schema", "")


def _check_batch_size(key: KeyPath, part: Mapping[str, Any], report: Report) -> None:
    size = part.get("batch_size")
    if isinstance(size, int) and size > MAX_BATCH_SIZE:
        message = (
            f"at most {MAX_BATCH_SIZE}, found {size}: what an item costs the queue grows with "
            "its batch"
        )
        report((*key, "batch_size"), message, "more at a time: concurrent_batches")


def _check_input(
    key: KeyPath, step: Mapping[str, Any], seen: Sequence[str], base_dir: Path, report: Report
) -> None:
    needs = step.get("needs")
    for name in [needs] if isinstance(needs, str) else needs if isinstance(needs, list) else []:
        if isinstance(name, str) and name not in seen:
            hint = near(name, seen, "steps before this one")
            report((*key, "needs"), f"no step `{name}` before this one", hint)
    source = step.get("input")
    if source is None and not seen and not needs:
        report(key, "the first step needs an `input`", "a .json, .jsonl or .csv file, for example")
    if isinstance(source, str):
        problem = _input_problem(source, base_dir)
        if problem:
            report((*key, "input"), *problem)
    _check_sample((*key, "sample"), _mapping(step.get("sample")), base_dir, report)


def _check_sample(key: KeyPath, sample: Mapping[str, Any], base_dir: Path, report: Report) -> None:
    """Checks what a guided sample goes by; other methods may stand beside it, as a param's value.

    So one manifest can be submitted both ways.
    """
    is_guided = sample.get("method") == "guided"
    if is_guided and not sample.get("by"):
        report((*key, "method"), "`guided` needs `by`: the fields to look at", "by: [emotion]")
    if is_guided and not sample.get("reference"):
        hint = "reference: reference.json"
        report((*key, "method"), "`guided` needs a `reference` to come near to", hint)
    for name in ("reference", "existing"):
        source = sample.get(name)
        if not isinstance(source, str):
            continue
        problem = _input_problem(source, base_dir)
        if problem is None and (is_remote(source) or source.startswith(("run:", "generate:"))):
            problem = ("expected a file, a glob or py:module:function", "")
        if problem:
            report((*key, name), *problem)


def _input_problem(source: str, base_dir: Path) -> tuple[str, str] | None:
    """What is wrong with an input, and a hint; None if nothing is."""
    if source.startswith("py:"):
        module, _, function = source.removeprefix("py:").partition(":")
        is_sound = all(part.isidentifier() for part in (*module.split("."), function))
        return None if is_sound else ("expected py:module:function", "")
    if source.startswith("run:"):
        is_sound = bool(RUN_SOURCE.fullmatch(source))
        return None if is_sound else ("expected run:NAME@VERSION", "such as run:words@latest/STEP")
    if is_remote(source):
        return _url_problem(source)
    if source.startswith("generate:"):
        number = source.removeprefix("generate:")
        is_sound = number.isdecimal() and int(number) > 0
        return None if is_sound else ("expected {generate: N}", "")
    path = base_dir / source
    if is_glob(source) and not path.exists():
        return None
    suffix = path.suffix.lower()
    if suffix == ".parquet" and not has_parquet():
        return NEEDS_PYARROW, "or use .csv"
    if suffix not in INPUT_SUFFIXES:
        return f"expected a file that ends in {', '.join(INPUT_SUFFIXES)}", (
            "a glob such as texts/*.txt makes each file an item"
        )
    if path.is_dir():
        return f"{source} is a folder", f"{source}/* makes each file in it an item"
    return None if path.exists() else (f"no such file: {source}", _near_file(base_dir, source))


def _url_problem(url: str) -> tuple[str, str] | None:
    if not url.startswith("s3://"):
        return f"{url.partition('://')[0]}:// cannot be read", "name a file, or s3://bucket/key"
    if Path(url).suffix.lower() not in INPUT_SUFFIXES or is_glob(url):
        return f"expected an object that ends in {', '.join(INPUT_SUFFIXES)}", "without wildcards"
    return None


def _near_file(base_dir: Path, source: str) -> str:
    path = Path(source)
    try:
        files = [entry.name for entry in (base_dir / path).parent.iterdir()]
    except OSError:
        return f"there is no folder {path.parent} either"
    close = difflib.get_close_matches(path.name, files, n=1)
    return f"did you mean {path.with_name(close[0])}?" if close else "paths start at the manifest"


def _check_files(key: KeyPath, part: Mapping[str, Any], base_dir: Path, report: Report) -> None:
    """Checks prompts and schemas of a step and its stages."""
    for where, work in dict([(key, part), *_works(key, part)]).items():
        for kind in ("prompt", "system"):
            value = work.get(kind)
            if isinstance(value, str):
                _check_prompt((*where, kind), value, base_dir, report)
        schema = work.get("output_schema")
        try:
            if isinstance(schema, str):
                schema = read_schema(base_dir / schema, schema)
        except PlanError as error:
            hint = "" if (base_dir / str(schema)).exists() else _near_file(base_dir, str(schema))
            report((*where, "output_schema"), str(error), hint)
            continue
        if isinstance(schema, Mapping):
            from batchq.text.schemas import check_schema  # jsonschema takes 0.15 s to import

            for problem in check_schema(schema):
                report((*where, "output_schema"), f"not a JSON Schema: {problem}", "")


def _check_prompt(key: KeyPath, value: str, base_dir: Path, report: Report) -> None:
    if is_inline(value):
        return
    path = find_prompt(base_dir, value)
    try:
        text = read_text(path, value)
        if path.suffix == ".j2":
            names(text, is_jinja=True)
    except PlanError as error:
        hint = "" if path.exists() else _near_file(base_dir, value)
        report(key, str(error), hint)
    except TaskError as error:
        report(key, f"{value}: {error}", "")
    else:
        if not text.strip():
            report(key, f"{value}: the prompt is empty", "")
