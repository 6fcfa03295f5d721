"""What holds for inputs that are fetched from a real S3 server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchq.errors import PlanError
from batchq.runs.fetch import fetch, pin_url
from batchq.store.files import open_files


@pytest.fixture
def url(object_store: Any) -> str:
    return f"{object_store.bucket}/outputs/words"


def test_latest_in_a_path_is_the_version_that_its_pointer_names(url: str) -> None:
    open_files(url).point("latest", "v3")

    assert pin_url(f"{url}/latest/collated/01_a.json") == f"{url}/v3/collated/01_a.json"


def test_a_folder_that_is_only_called_latest_stays_as_it_is(url: str) -> None:
    assert pin_url(f"{url}/latest/a.json") == f"{url}/latest/a.json"


def test_an_object_that_changes_does_not_change_the_copy_of_before(
    url: str, tmp_path: Path
) -> None:
    files = open_files(url)
    files.write("a.jsonl", b"1\n")
    first = fetch(f"{url}/a.jsonl", tmp_path)
    again = fetch(f"{url}/a.jsonl", tmp_path)
    files.write("a.jsonl", b"2\n")

    second = fetch(f"{url}/a.jsonl", tmp_path)

    assert first == again
    assert (first.name, first.read_bytes()) == ("a.jsonl", b"1\n")
    assert second.read_bytes() == b"2\n"
    assert len(list((tmp_path / "inputs").iterdir())) == 2


def test_an_object_that_is_not_there_is_an_error_and_leaves_nothing(
    url: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=r"a\.json: no such object"):
        fetch(f"{url}/a.json", tmp_path)

    assert list(tmp_path.iterdir()) == []
