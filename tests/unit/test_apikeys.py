"""A key is read alike by whoever looks for one, and never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchq.__main__ import main
from batchq.host.apikeys import read_api_key
from batchq.manifest.loader import check_environment, load_manifest

MANIFEST = """\
name: keyed
providers: {own: {kind: openai, model: m, base_url: "http://127.0.0.1:9", api_key_env: OWN_KEY}}
steps: [{name: a, input: {generate: 1}, prompt: "Say {number}.\\n"}]
"""


def test_a_file_goes_before_the_variable_and_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "key"
    env = {"OWN_KEY": "old", "OWN_KEY_FILE": str(file)}

    file.write_text("first\n")
    before = read_api_key("OWN_KEY", env)
    file.write_text("mended\n")

    assert (before, read_api_key("OWN_KEY", env)) == ("first", "mended")
    assert read_api_key("OWN_KEY", {"OWN_KEY": " old\n"}) == "old"


@pytest.mark.parametrize(
    ("env", "content", "words"),
    [
        ({}, b"", "the variable OWN_KEY is not set"),
        ({"OWN_KEY": "  "}, b"", "the variable OWN_KEY is not set"),
        ({"OWN_KEY": "s\u00e9cret"}, b"", "the value of OWN_KEY cannot be a key"),
        ({"OWN_KEY": "sk-1\nsk-2"}, b"", "the value of OWN_KEY cannot be a key"),
        ({"OWN_KEY_FILE": "key"}, b"", "the file of OWN_KEY_FILE is empty"),
        ({"OWN_KEY_FILE": "key"}, b"\xff\xfe", "the file of OWN_KEY_FILE is no text"),
        ({"OWN_KEY_FILE": "none"}, b"", "cannot read OWN_KEY_FILE: .*none"),
    ],
)
def test_what_is_wrong_with_a_key_is_said_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], content: bytes, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "m.yaml").write_text(MANIFEST)

    with pytest.raises(ValueError, match=words) as raised:
        read_api_key("OWN_KEY", env)

    (problem,) = check_environment(load_manifest(tmp_path / "m.yaml"), env)
    assert problem.message == str(raised.value)
    assert "sk-" not in problem.message


def test_a_key_in_a_file_is_found_by_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCHQ_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BATCHQ_BROKER_URL", raising=False)
    monkeypatch.setenv("OWN_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "key").write_text("very-secret")
    (tmp_path / "m.yaml").write_text(MANIFEST)
    monkeypatch.setattr("sys.argv", ["batchq", "doctor", "m.yaml", "--json"])

    sound = main()
    told = capsys.readouterr().out
    (tmp_path / "key").unlink()
    monkeypatch.setenv("BATCHQ_REDIS_SERVER", str(tmp_path / "no-server"))
    broken = main()

    found = {one["name"]: one for one in json.loads(told)}
    missing = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert (sound, broken) == (0, 6)
    assert found["key of own"]["detail"] == "OWN_KEY_FILE is set"
    assert found["catalog"]["ok"]
    assert found["home folder"]["ok"]
    assert "very-secret" not in told
    assert "cannot read OWN_KEY_FILE" in missing["key of own"]["detail"]
    assert not missing["embedded Redis"]["ok"]
