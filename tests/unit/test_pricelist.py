from __future__ import annotations

import pytest

from batchq.endpoint import Prices
from batchq.errors import ManifestError
from batchq.planning.pricelist import load_prices


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text: str, folder: str = "."):
        path = tmp_path / folder / "config/prices.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return tmp_path / folder

    return write


def test_prices_are_read_from_beside_the_manifest(write):
    write("openai/m: {input_per_1m: 9, output_per_1m: 9}")
    base = write("openai/m: {input_per_1m: 0.5, output_per_1m: 2}", "deep")

    assert load_prices(base) == {"openai/m": Prices(0.5, 2.0)}


def test_a_manifest_in_a_folder_below_finds_the_prices_of_the_project(write, tmp_path):
    write("openai/m: {input_per_1m: 0.5, output_per_1m: 2}")

    assert load_prices(tmp_path / "manifests") == {"openai/m": Prices(0.5, 2.0)}


def test_no_file_is_no_prices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert load_prices(tmp_path) == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{input_per_1m: -1, output_per_1m: 2}", "prices.yaml:2:12: openai/m.input_per_1m"),
        ("{input_per_1m: 1}", "openai/m.output_per_1m"),
        ("{input_per_1m: .nan, output_per_1m: 1}", "no number"),
        ("{input: 1, input_per_1m: 1, output_per_1m: 1}", "unknown key `input`"),
        ("5", "prices.yaml:2:1: openai/m: expected a mapping"),
        ("cheap", "expected a mapping"),
    ],
)
def test_what_is_no_price_is_refused_with_its_place(write, row, message):
    base = write(f"# prices\nopenai/m: {row}")

    with pytest.raises(ManifestError) as refused:
        load_prices(base)

    assert message in str(refused.value)
