from __future__ import annotations

from batchq.plan import InputSpec
from batchq.planning.items import read_items
from batchq.planning.seen import Seen


def test_a_text_is_new_once():
    seen = Seen()
    texts = [f"item {number}" for number in range(20_000)]

    assert not any(seen.add(text) for text in texts)
    assert all(seen.add(text) for text in texts)
    assert not seen.add("another")


def test_an_id_whose_hash_alone_was_there_is_no_duplicate(tmp_path, monkeypatch):
    (tmp_path / "in.jsonl").write_text('{"id": "a"}\n{"id": "b"}\n{"id": "c"}\n')
    monkeypatch.setattr(Seen, "add", lambda _self, _text: True)

    items = read_items(InputSpec(source="in.jsonl", id_field="id"), tmp_path)

    assert [item.id for item in items] == ["a", "b", "c"]
