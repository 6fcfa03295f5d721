"""Reads the prices of a user's project, `config/prices.yaml`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from batchq.endpoint import Prices
from batchq.errors import ManifestError, Problem
from batchq.manifest.endpoints import Prices as PricesPart
from batchq.manifest.wording import report_errors
from batchq.manifest.yamlfile import Document, KeyPath, key_text, read_document
from batchq.planning.pricing import PriceTable

PATH = "config/prices.yaml"


def load_prices(base_dir: Path) -> PriceTable:
    """Reads the prices beside the manifest, else those of the current folder; empty without any.

    Raises ManifestError with everything that is wrong in the file.
    """
    for path in (base_dir / PATH, Path(PATH)):
        if path.is_file():
            return _read(path)
    return {}


def _read(path: Path) -> PriceTable:
    document = read_document(path)
    problems = list(document.problems)
    table = {}
    for name, row in document.data.items():
        try:
            one = PricesPart.model_validate(row)
        except ValidationError as error:
            problems += _problems(error, document, path, str(name))
        else:
            table[str(name)] = Prices(one.input_per_1m, one.output_per_1m, one.batch)
    if problems:
        raise ManifestError(problems)
    return table


def _problems(error: ValidationError, document: Document, path: Path, name: str) -> list[Problem]:
    found: list[Problem] = []

    def tell(key: KeyPath, message: str, hint: str) -> None:
        full = (name, *key)
        place = next(
            (document.places[full[:depth]] for depth in (2, 1) if full[:depth] in document.places),
            None,
        )
        line, column = (place.line, place.column) if place else (0, 0)
        found.append(Problem(str(path), line, column, key_text(full), message, hint))

    report_errors(error, {}, document.data[name], tell)
    return found
