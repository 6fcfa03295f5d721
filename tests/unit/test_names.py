from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.store.names import MAX_BYTES, safe_name


@pytest.mark.parametrize(
    "item_id", ["4001", "item_a", "json.decoder", "_pydecimal", "naïve", "東京-1"]
)
def test_an_ordinary_id_is_its_own_name(item_id: str) -> None:
    assert safe_name(item_id) == item_id


@pytest.mark.parametrize(
    "item_id",
    [
        "../../etc/passwd", "a/b", "a\\b", "/", ".", "..", "", " ", ".hidden", "dot.", "space ",
        "CON", "con", "nul.txt", "com1", "LPT³", "a\0b", "line\nbreak", "x" * 300, "é" * 60,
        "a:b", "50%?", "a~b", "\ud800", "A", "ß", "e\u0301", "zero\u200bwidth", "%2e%2e",
    ],
)  # fmt: skip
def test_a_hostile_id_becomes_one_component_that_ends_in_a_hash(item_id: str) -> None:
    name = safe_name(item_id)

    assert name != item_id
    assert "~" in name
    assert not set(name) & set('/\\:*?"<>|\0\n ')
    assert not name.startswith(".")
    assert name.partition(".")[0].lower() not in {"con", "nul", "com1", "lpt³"}
    assert len(name.encode()) <= MAX_BYTES


def test_the_readable_part_of_an_id_stays_in_its_name() -> None:
    assert safe_name("a/b").startswith("a_b~")


def test_a_made_name_is_never_the_name_of_an_id_that_looks_like_it() -> None:
    made = safe_name("a/b")

    assert safe_name(made) != made


@given(st.lists(st.text(max_size=40), min_size=2, max_size=6, unique=True))
def test_different_ids_are_different_files_even_where_case_and_accents_do_not_count(
    ids: list[str],
) -> None:
    names = [safe_name(item_id) for item_id in ids]

    as_mac_os_sees_them = {unicodedata.normalize("NFD", name.casefold()) for name in names}

    assert len(as_mac_os_sees_them) == len(ids)


@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_a_name_of_any_text_at_all_is_short_stable_and_no_path(item_id: str) -> None:
    name = safe_name(item_id)

    assert 0 < len(name.encode()) <= MAX_BYTES
    assert "/" not in name
    assert "\\" not in name
    assert name not in (".", "..")
    assert name[-1] not in ". "
    assert safe_name(item_id) == name
