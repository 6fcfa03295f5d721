"""What is set outside a manifest: BATCHQ_* variables, then batchq.toml, then these defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from batchq.errors import UsageError

SETTINGS_FILE = "batchq.toml"


class Settings(BaseSettings):
    """Settings of one process; built once, at its start, by `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix="BATCHQ_", toml_file=SETTINGS_FILE, extra="forbid", frozen=True
    )

    broker_url: str = Field(
        "", description="redis://, rediss:// or redis+socket:// URL; empty: the embedded stack"
    )
    catalog_url: str = Field(
        "", description="SQLAlchemy URL; empty: a SQLite file in the home folder"
    )
    home: Path = Field(
        Path(".batchq"), description="folder of the embedded stack and the default catalog"
    )
    tasks: list[str] = Field(
        default_factory=list,
        description='modules whose functions workers may run, such as ["wildcards.*"]',
    )
    redis_server: str = Field("", description="path of a redis-server or valkey-server binary")
    visibility_timeout_s: int = Field(
        12 * 3600, gt=0, description="the transport's redelivery; longer than any item takes"
    )
    lease_ttl_s: float = Field(
        15.0, gt=1, description="how long a process that says nothing is taken for alive"
    )
    log_level: str = Field("warning", description="debug, info, warning or error")

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


def redis_client_url(broker_url: str) -> str:
    """Turns a broker URL as Celery reads it into the one that redis-py reads.

    Only a unix socket differs: `redis+socket://:password@/path?virtual_host=1` becomes
    `unix://:password@/path?db=1`.
    """
    scheme, separator, rest = broker_url.partition("://")
    if scheme != "redis+socket":
        return broker_url
    return f"unix{separator}{rest.replace('virtual_host=', 'db=')}"


def backend_url(broker_url: str) -> str:
    """The part of a result backend's URL that follows its class, for the same Redis."""
    return broker_url.removeprefix("redis+") if "+socket" in broker_url else broker_url


def load_settings(**overrides: Any) -> Settings:
    """Reads the settings; raises UsageError that names the setting which is wrong."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [
            f"setting {'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors()
        ]
        message = "\n".join(lines)
        raise UsageError(f"{message}\nSee config/batchq.toml for every setting.") from error
    except ValueError as error:  # a broken TOML file, or a list in a variable that is no JSON
        raise UsageError(f"settings: {error}") from error
