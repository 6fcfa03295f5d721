from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from batchq.errors import UsageError
from batchq.settings import Settings, backend_url, load_settings, redis_client_url

EXAMPLE = Path(__file__).parents[2] / "config/batchq.toml"

GOOD = (
    "",
    "redis://",
    "redis://localhost:6379/0",
    "redis://:p%40ss@host:6380/3?socket_timeout=5",
    "rediss://user:secret@host/1",
    "redis+socket:///run/redis.sock",
    "redis+socket://:secret@/run/redis.sock?virtual_host=2",
    "sentinel://:secret@one:26379,two:26379,three/main/0?sentinel_password=other",
)
BAD = {
    "nonsense": "it starts with none of redis://, rediss://, redis+socket://",
    "http://:s3cret@localhost:6379": "it starts with none of",
    "redis://:s3cret@localhost:port/0": "its port is no number up to 65535",
    "redis://:s3cret@localhost:70000/0": "its port is no number up to 65535",
    "redis://:s3cret@[::1/0": "this is no URL",
    "redis://:s3cret@localhost/first": "its database is no number",
    "redis+socket://": "it names no socket",
    "sentinel://:s3cret@one:26379": "it names no master after its hosts",
    "sentinel://:s3cret@one/main?db=s3cret": "it has an option that is not known: db",
    "redis+cluster://:s3cret@one:7000": "a Redis Cluster spreads keys over servers",
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("url", GOOD)
def test_a_url_that_celery_and_redis_read_is_taken_as_it_is(url: str) -> None:
    assert Settings(broker_url=url).broker_url == url


@pytest.mark.parametrize(("url", "problem"), BAD.items())
def test_a_broker_url_that_makes_no_sense_is_explained_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str, problem: str
) -> None:
    monkeypatch.setenv("BATCHQ_BROKER_URL", url)

    with pytest.raises(UsageError) as caught:
        load_settings()

    message = str(caught.value)
    assert message.startswith(f"setting broker_url (BATCHQ_BROKER_URL): {problem}")
    assert "redis://127.0.0.1:6379/0" in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite:////tmp/c.sqlite",
        "postgresql+psycopg://u@h/d",
        "redis://h/1",
        "redis+socket:///s",
    ],
)
def test_a_cache_may_be_in_each_of_three_databases(url: str) -> None:
    assert Settings(cache_url=url).cache_url == url


@pytest.mark.parametrize("url", ["mysql://:s3cret@h/d", "/tmp/c.sqlite", "redis://:s3cret@h/first"])
def test_a_cache_url_that_nothing_opens_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError, match=r"BATCHQ_CACHE_URL.*expected a URL such as") as caught:
        load_settings(cache_url=url)

    assert "s3cret" not in str(caught.value)


def test_a_signing_key_that_is_short_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match=r"BATCHQ_SIGNING_KEY\): it has 6 characters") as caught:
        load_settings(signing_key="s3cret")

    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(Settings(signing_key="s3cret and more of it"))
    assert Settings(signing_key="off").signing_key == "off"


def test_every_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHQ_LEASE_TTL_S", "soon")
    monkeypatch.setenv("BATCHQ_LOG_LEVEL", "loud")

    with pytest.raises(UsageError) as caught:
        load_settings()

    assert "BATCHQ_LEASE_TTL_S" in str(caught.value)
    assert "BATCHQ_LOG_LEVEL" in str(caught.value)


def test_an_unknown_key_of_the_settings_file_is_refused() -> None:
    Path("batchq.toml").write_text('brokerurl = "redis://localhost"\n')

    with pytest.raises(UsageError, match=r"setting brokerurl: .* \(did you mean broker_url\?\)"):
        load_settings()


def test_a_variable_wins_over_the_settings_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("batchq.toml").write_text('log_level = "info"\nhome = "there"\n')
    monkeypatch.setenv("BATCHQ_LOG_LEVEL", "debug")

    settings = load_settings()

    assert settings.log_level == "debug"
    assert settings.home == Path("there")


def test_a_socket_is_named_in_three_ways() -> None:
    url = "redis+socket://:x@/run/r.sock?virtual_host=2"

    assert redis_client_url(url) == "unix://:x@/run/r.sock?db=2"
    assert backend_url(url) == "socket://:x@/run/r.sock?virtual_host=2"
    assert redis_client_url("redis://h") == "redis://h"


def test_the_example_file_names_every_setting_with_its_default() -> None:
    written = tomllib.loads(EXAMPLE.read_text("utf-8"))

    assert list(written) == list(Settings.model_fields)
    assert Settings(**written) == Settings()


def test_the_example_file_can_be_used_as_it_is() -> None:
    Path("batchq.toml").write_bytes(EXAMPLE.read_bytes())

    assert load_settings() == Settings()


def test_a_log_level_that_celery_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHQ_LOG_LEVEL", "loud")

    with pytest.raises(UsageError, match=r"\(BATCHQ_LOG_LEVEL\): Input should be 'debug', 'info'"):
        load_settings()


def test_a_list_in_a_variable_that_is_no_json_is_told_how_to_write_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATCHQ_TASKS", "a, b")

    with pytest.raises(UsageError, match=r"""BATCHQ_TASKS='\["wildcards"""):
        load_settings()


def test_a_settings_file_that_is_no_toml_is_named_with_the_line() -> None:
    Path("batchq.toml").write_text('home = ".batchq"\nbroker_url =\n')

    with pytest.raises(UsageError, match=r"settings: batchq.toml: .* \(at line 2,"):
        load_settings()


def test_arguments_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHQ_LEASE_TTL_S", "9")

    assert load_settings(lease_ttl_s=7).lease_ttl_s == 7
    assert load_settings().lease_ttl_s == 9


def test_a_variable_that_is_nearly_a_setting_is_refused(monkeypatch):
    monkeypatch.setenv("BATCHQ_BROKERURL", "redis://localhost")

    with pytest.raises(UsageError, match=r"BATCHQ_BROKERURL.*did you mean BATCHQ_BROKER_URL"):
        load_settings()


def test_a_variable_of_the_users_own_is_left_alone(monkeypatch):
    monkeypatch.setenv("BATCHQ_MY_PROVIDERS_KEY", "x")

    load_settings()
