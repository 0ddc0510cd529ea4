"""All settings in one place, gathered from the parts that read them; unknown keys are refused.

Order of precedence: command line, environment (`TRUNKLINE_SERVICES__BODY_BYTES=4096`),
TOML file, defaults.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from trunkline.adapters.hbase.settings import Settings as HbaseSettings
from trunkline.adapters.keyring.settings import Settings as KeyringSettings
from trunkline.adapters.memory.cached import CachedSettings
from trunkline.adapters.mysql.settings import Settings as MysqlSettings
from trunkline.adapters.redis.settings import Settings as RedisSettings
from trunkline.adapters.sqlite.settings import Settings as SqliteSettings
from trunkline.errors import ConfigInvalid
from trunkline.gateway.settings import GatewaySettings
from trunkline.http.ops import OpsSettings
from trunkline.services.settings import ServiceSettings

ENVIRONMENT_PREFIX = "TRUNKLINE_"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every setting, a section for each part."""

    data: Annotated[
        str,
        msgspec.Meta(
            description="The data directory; of a cluster's server: its keys and its address."
        ),
    ] = "trunkline-data"
    tiers: Annotated[
        Literal["embedded", "cluster"],
        msgspec.Meta(
            description="`embedded`: all in the data directory. `cluster`: Redis, MySQL and HBase."
        ),
    ] = "embedded"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        msgspec.Meta(description="From which level on events are logged."),
    ] = "info"
    gateway: GatewaySettings = GatewaySettings()
    ops: OpsSettings = OpsSettings()
    services: ServiceSettings = ServiceSettings()
    cached: CachedSettings = CachedSettings()
    sqlite: SqliteSettings = SqliteSettings()
    keyring: KeyringSettings = KeyringSettings()
    mysql: MysqlSettings = MysqlSettings()
    redis: RedisSettings = RedisSettings()
    hbase: HbaseSettings = HbaseSettings()

    @property
    def data_path(self) -> Path:
        """The data directory."""
        return Path(self.data)


def load(file: Path | None, environment: Mapping[str, str], overrides: Mapping[str, Any]) -> Config:
    """The configuration; raises `ConfigInvalid`, which names the key.

    `overrides` are dotted names (`gateway.port`) with values; None is left out.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigInvalid(f"{file} cannot be read: {error}.") from None
    for name, text in environment.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            path = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            _put(values, path, text)
    for path, value in overrides.items():
        if value is not None:
            _put(values, path, value)
    try:
        # Values from the environment are text: numbers are read from it.
        return msgspec.convert(values, Config, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(f"{error}.") from None


def shown(config: Config) -> dict[str, Any]:
    """All settings as they count, without passwords and keys."""
    return _without_secrets(msgspec.to_builtins(config))


def _without_secrets(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_secrets(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if "password" not in name and name != "json"
    }


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigInvalid(f"`{section}` is a section, not a value.")
        values = inner
    values[name] = value
