"""The settings of an installation, each with its type, default and description.

Where they come from is in `portal.installation.sources`, those of AIRelays 0.x in `portal.installation.legacy`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from portal.installation import legacy, sources
from portal.installation.settings.data import Data
from portal.installation.settings.listening import Listening
from portal.installation.settings.logs import Logs
from portal.installation.settings.money import Money
from portal.installation.settings.monitoring import Monitoring
from portal.installation.settings.people import People
from portal.installation.settings.plans import Plans
from portal.installation.settings.requests import Requests
from portal.installation.settings.stored import Stored
from portal.installation.settings.upstreams import Upstreams
from portal.installation.sources import ConfigError
from portal.installation.values import wanted
from portal.lib.texts import Message

if TYPE_CHECKING:
    from django.http import HttpRequest


# In the order of `docs/configure.md`, whose tables are made of them.
GROUPS = (Listening, Data, Stored, Requests, Upstreams, Plans, People, Money, Monitoring, Logs)


class Config(Listening, Data, Stored, Requests, Upstreams, Plans, People, Money, Monitoring, Logs, BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(extra="forbid", env_ignore_empty=True, frozen=True)

    # What is to be said of the settings when the portal starts, and on the page of the installation.
    _notices: list[Message] = PrivateAttr(default_factory=list)
    _old: dict[str, object] = PrivateAttr(default_factory=dict)  # settings of AIRelays 0.x
    _files: list[Path] = PrivateAttr(default_factory=list)

    @property
    def notices(self) -> list[Message]:
        """What is to be said of settings that are known but have no effect, or are not known."""
        return self._notices

    @property
    def files(self) -> list[Path]:
        """The files that settings were read from."""
        return self._files

    def relay_token(self) -> str:
        """The token of AIRelays 0.x in the data folder or its settings, empty without one. Raises ValueError."""
        return legacy.relay_token(self._old, self.data_dir)

    def given_token(self) -> str:
        """The token that the settings of AIRelays 0.x give themselves, empty without one."""
        return str(self._old.get("bearer_token") or "").strip()

    def relay_token_file(self) -> Path | None:
        """The file in which AIRelays 0.x keeps its token, None without one."""
        try:
            path = legacy.token_file(self._old, self.data_dir)
            return path if path.is_file() else None
        except (OSError, RuntimeError):
            return None

    def origin(self, request: HttpRequest) -> str:
        """The URL of this portal without a trailing slash: as configured, otherwise that of the request."""
        return self.public_url or f"{request.scheme}://{request.get_host()}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # load() merges the sources: pydantic-settings supports neither several prefixes nor sections of TOML.
        return (init_settings,)


def load(
    flags: dict[str, object] | None = None, environ: dict[str, str] | None = None, folder: Path | None = None
) -> Config:
    """Read the settings from flags, environment, `.env` files and configuration file. Raises ConfigError.

    `folder`: whose `.env` counts; the working folder, unless an environment is given.
    """
    found = sources.collect(Config.model_fields, flags or {}, environ, folder)
    try:
        found.notices += legacy.apply(found.given, found.old)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    try:
        config = Config(**found.given)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "?"
        if first["type"] == "extra_forbidden":
            raise ConfigError(found.unknown(field)) from error
        about = Config.model_fields.get(field)
        why = wanted(first["type"], first["msg"], first.get("ctx", {}), about.metadata if about is not None else ())
        raise ConfigError(found.refusal(field, first.get("input"), why)) from error
    config._notices.extend(found.notices)
    config._old.update(found.old)
    config._files.extend(found.files)
    return config
