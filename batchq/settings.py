"""What is set outside a manifest: BATCHQ_* variables, then batchq.toml, then these defaults."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from batchq.broker.sentinels import SCHEME, is_sentinel, parse_sentinels
from batchq.broker.signing import MIN_CHARACTERS, OFF
from batchq.errors import UsageError

SETTINGS_FILE = "batchq.toml"
BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")
SQL_SCHEMES = ("sqlite:", "postgresql:", "postgresql+psycopg:")


class Settings(BaseSettings):
    """Settings of one process; built once, at its start, by `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix="BATCHQ_", toml_file=SETTINGS_FILE, extra="forbid", frozen=True
    )

    broker_url: str = Field(
        "",
        description="redis://, rediss://, redis+socket:// or sentinel:// URL; empty: the embedded "
        "stack",
    )
    signing_key: str = Field(
        "",
        repr=False,
        description="secret of 16 characters or more that messages are signed with, the same "
        "everywhere; empty: the broker's password; off: nothing is signed",
    )
    catalog_url: str = Field(
        "", description="SQLAlchemy URL; empty: a SQLite file in the home folder"
    )
    cache_url: str = Field(
        "",
        description="SQLAlchemy or Redis URL of the cache of answers; empty: a SQLite file in the "
        "home folder for the embedded stack, the newest answers in the Redis of a broker",
    )
    home: Path = Field(
        Path(".batchq"), description="folder of the embedded stack and the default catalog"
    )
    tasks: list[str] = Field(
        default_factory=list,
        description='modules whose functions workers may run, such as ["wildcards.*"]',
    )
    redis_server: str = Field("", description="path of a redis-server or valkey-server binary")
    lease_ttl_s: float = Field(
        15.0, gt=1, description="how long a process that says nothing is taken for alive"
    )
    grace_s: float = Field(
        25.0, gt=0, description="how long a worker that is told to end lets its items finish"
    )
    outage_s: float = Field(
        300.0, gt=0, description="a provider that answers nobody for longer pauses its runs"
    )
    metrics_port: int = Field(
        0, ge=0, le=65535, description="port of a worker's or coordinator's metrics; 0: none"
    )
    metrics_address: str = Field(
        "127.0.0.1", description="address that metrics are served at; whoever reaches it reads them"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="text or json: how workers and coordinators write their logs"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "warning", description="debug, info, warning or error"
    )

    @field_validator("broker_url")
    @classmethod
    def _is_redis_url(cls, url: str) -> str:
        if url and (problem := _problem_of(url)):  # the URL may hold a password: never repeat it
            raise ValueError(
                f"{problem}; expected a URL such as redis://127.0.0.1:6379/0, "
                "rediss://:PASSWORD@HOST:6379/0, redis+socket:///path/of/redis.sock or "
                "sentinel://:PASSWORD@HOST:26379,HOST:26379/MASTER/0"
            )
        return url

    @field_validator("cache_url")
    @classmethod
    def _is_cache_url(cls, url: str) -> str:
        is_redis = url.startswith(("redis", f"{SCHEME}:"))
        is_wrong = _problem_of(url) if is_redis else not url.startswith(SQL_SCHEMES)
        if url and is_wrong:
            raise ValueError(
                "expected a URL such as sqlite:////path/cache.sqlite, "
                "postgresql://user@host/batchq or redis://127.0.0.1:6379/1"
            )
        return url

    @field_validator("signing_key")
    @classmethod
    def _is_long_enough(cls, key: str) -> str:
        if key and key != OFF and len(key) < MIN_CHARACTERS:
            raise ValueError(
                f"it has {len(key)} characters, {MIN_CHARACTERS} are the fewest; make one with "
                "`openssl rand -hex 32`"
            )
        return key

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic calls by name)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic calls by name)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Orders the sources: arguments, environment, batchq.toml."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def effective_catalog_url(self) -> str:
        """The catalog's URL with its default filled in, absolute."""
        return self.catalog_url or f"sqlite:///{self.home.absolute() / 'catalog.sqlite'}"

    @property
    def local_cache_url(self) -> str:
        """The URL of the cache for workers of this host only, absolute."""
        return self.cache_url or f"sqlite:///{self.home.absolute() / 'cache.sqlite'}"


def _problem_of(url: str) -> str:
    if "cluster" in url.partition(":")[0]:
        return (
            "a Redis Cluster spreads keys over servers, and Celery's queues want them on one: give "
            "the address of a single Redis, or of Sentinels"
        )
    try:
        if is_sentinel(url):
            parse_sentinels(url)
            return ""
    except ValueError as error:
        return str(error)
    try:
        parts = urlsplit(url)
        _ = parts.port  # it is parsed here, and only now
    except ValueError as error:
        return (
            "its port is no number up to 65535"
            if "port" in str(error).lower()
            else "this is no URL"
        )
    if parts.scheme not in BROKER_SCHEMES:
        return f"it starts with none of {', '.join(f'{name}://' for name in BROKER_SCHEMES)}"
    if parts.scheme == "redis+socket":
        return "" if parts.path else "it names no socket"
    database = parts.path.strip("/")
    return "" if not database or database.isdecimal() else "its database is no number"


def redis_client_url(broker_url: str) -> str:
    """Turns a broker URL as Celery reads it into the one that redis-py reads.

    Only a unix socket differs: `redis+socket://:password@/path?virtual_host=1` becomes
    `unix://:password@/path?db=1`.
    """
    scheme, separator, rest = broker_url.partition("://")
    if scheme != "redis+socket":
        return verified(broker_url)
    return f"unix{separator}{rest.replace('virtual_host=', 'db=')}"


def backend_url(broker_url: str) -> str:
    """The part of a result backend's URL that follows its class, for the same Redis."""
    return broker_url.removeprefix("redis+") if "+socket" in broker_url else verified(broker_url)


def verified(url: str) -> str:
    """A `rediss://` URL that has certificates checked, unless it says otherwise.

    Celery's transport takes any certificate where nothing is said, and its backend refuses the URL.
    """
    if not url.startswith("rediss:") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def load_settings(**overrides: Any) -> Settings:
    """Reads the settings; raises UsageError that names the setting which is wrong."""
    _refuse_misspelt(os.environ)
    try:
        return Settings(**overrides)
    except ValidationError as error:
        message = "\n".join(map(_explained, error.errors()))
        raise UsageError(f"{message}\nSee config/batchq.toml for every setting.") from error
    except ValueError as error:  # a broken TOML file, or a list in a variable that is no JSON
        raise UsageError(f"settings: {_unreadable(error)}") from error


def _refuse_misspelt(env: Mapping[str, str]) -> None:
    """Refuses a variable that is nearly a setting: it would be ignored without a word."""
    known = {f"BATCHQ_{name.upper()}" for name in Settings.model_fields}
    for name in sorted(env):
        if name.startswith("BATCHQ_") and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if close:
                raise UsageError(f"{name}: there is no such setting (did you mean {close[0]}?)")


def _unreadable(error: ValueError) -> str:
    if isinstance(error, SettingsError):  # pydantic does not say what it expects
        return f"{error}; a list in a variable is JSON, such as BATCHQ_TASKS='[\"wildcards.*\"]'"
    return f"{SETTINGS_FILE}: {error}"


def _explained(part: Any) -> str:
    name = ".".join(map(str, part["loc"]))
    if part["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, Settings.model_fields, n=1)
        return f"setting {name}: there is no such setting" + (
            f" (did you mean {close[0]}?)" if close else ""
        )
    return f"setting {name} (BATCHQ_{name.upper()}): {part['msg'].removeprefix('Value error, ')}"
