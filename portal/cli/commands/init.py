"""`airelays init`: write the configuration, and prepare the data folder with a first token."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from portal.cli import client, options, output, startup
from portal.cli.errors import Refusal
from portal.cli.input import values
from portal.config import Config
from portal.installation import command as airelays
from portal.installation import config_file, sources

if TYPE_CHECKING:
    from portal.serving.first_run import FirstRun
    from relay.models import Token


_NEW = {True: "created, shown below and only once", False: "that of AIRelays 0.x, shown below and only once"}


@options.command("init")
@click.option("--force", is_flag=True, help="Write these settings into a configuration file that exists.")
@click.option("--no-auth", is_flag=True, help="An open relay: clients need no token.")
@click.option("--show-token", is_flag=True, help="Show the token also when it was made before.")
@click.option("--host", type=values.Address(), metavar="ADDRESS", help="Address that `serve` listens on.")
@click.option("--port", type=values.PORT, help="Port that `serve` listens on.")
@click.option("--network-scope", type=values.NETWORK_SCOPE, help="Who may connect.")
@options.json_option
def command(
    force: bool,
    no_auth: bool,
    show_token: bool,
    host: str | None,
    port: int | None,
    network_scope: str | None,
    as_json: bool,
) -> None:
    """Set the relay up: a configuration file, the database, a token. What is there already stays."""
    given = {"--no-auth": no_auth or None, "--host": host, "--port": port, "--network-scope": network_scope}
    file = startup.checked(config_file.path)
    there = file.is_file()
    if there and not force:
        for flag in (flag for flag, value in given.items() if value is not None):
            raise Refusal(
                f"{file} already exists; {flag} would not be written. Re-run with --force to rewrite the config, or "
                "edit the file."
            )
    options.set_flags(host=host, port=port, network_scope=network_scope, no_auth=no_auth)
    with _not_read_yet(file):
        config = startup.settings()
        _check_scope(config)
        if force or not there:
            startup.checked(lambda: config_file.check(file))
        wanted = client.requires_token(config) and not no_auth
        first, token, adopted = _prepared() if wanted else (None, None, [])
    if force or not there:
        startup.checked(lambda: config_file.write(file, _values(config, there)))
    config = startup.settings()
    if no_auth:
        _open_again(config)
    secret = token.reveal() if token is not None and (first is not None or show_token) else None
    found = _found(config, file, force or not there, first, secret)
    found["taken_over"] = adopted
    found["bearer_token_source"] = client.token_source(config, token) if token is not None else None
    if as_json:
        output.as_json(found)
    else:
        _tell(config, found, first, secret)


@contextmanager
def _not_read_yet(file: Path) -> Iterator[None]:
    """A file that is named must exist once settings are read: inside, one that is not written yet is empty."""
    named = os.environ.get("AIRELAYS_CONFIG")
    if not file.is_file():
        os.environ["AIRELAYS_CONFIG"] = os.devnull
    try:
        yield
    finally:
        if named is None:
            os.environ.pop("AIRELAYS_CONFIG", None)
        else:
            os.environ["AIRELAYS_CONFIG"] = named


def _check_scope(config: Config) -> None:
    scope = os.environ.get("AIRELAYS_NETWORK_SCOPE", "").strip().lower()
    if scope == "any" and _is_open(config):
        raise Refusal(
            '`network_scope = "any"` (anyone on the internet) requires `require_bearer_auth = true`: enable the API '
            'key, or limit `network_scope` to "private" or "loopback".'
        )


def _is_open(config: Config) -> bool:
    wanted = os.environ.get("AIRELAYS_REQUIRE_BEARER_AUTH", "").strip().lower()
    return wanted in {"0", "false", "no", "off"} or not client.requires_token(config)


def _prepared() -> tuple[FirstRun | None, Token | None, list[str]]:
    """Prepare the data folder. Returns what the first run made, the relay token, and what was taken over of 0.x."""
    with startup.refusals(), output.progress("Preparing the database"):
        from portal.management.preparation import prepare
        from portal.serving.first_run import take_over
        from relay.tokens.relay_token import relay_token

        first = prepare(lambda text: None)
        return first, relay_token(), take_over()


def _open_again(config: Config) -> None:
    """Open a relay again whose token was revoked, if there is a database yet. It is `serve` that makes one."""
    if not config.database_url and not (config.data_dir / "state.sqlite3").exists():
        return
    with startup.refusals():
        from portal.services.migrations import migrations_missing
        from relay.tokens.open_relay import open_again

        if not migrations_missing():
            open_again()


def _values(config: Config, there: bool) -> dict[str, str | int | bool]:
    """The settings that are written: those that hold now."""
    values: dict[str, str | int | bool] = {"host": config.host, "port": config.port}
    if config.data_dir != sources.default_data_dir():
        values["data_dir"] = str(config.data_dir)
    if there or _is_open(config):
        values["require_bearer_auth"] = not _is_open(config)
    if scope := os.environ.get("AIRELAYS_NETWORK_SCOPE", "").strip():
        values["network_scope"] = scope
    return values


def _found(config: Config, file: Path, written: bool, first: FirstRun | None, secret: str | None) -> dict[str, Any]:
    token_file = config.relay_token_file()
    return {
        "app_name": "AIRelays",
        "config_path": str(file),
        "config_created": written,
        "data_dir": str(config.data_dir),
        "bearer_token_file": str(token_file) if token_file else None,
        "bearer_token_created": first is not None and not _is_old(config, first.token),
        "relay_token": secret,
        "network_scope": client.network_scope(config),
        "effective_network_scope": client.effective_network_scope(config),
        "admin": {"username": first.username, "password": first.password} if first is not None else None,
        "client": client.as_object(config),
        "next_steps": _next_steps(config),
    }


def _is_old(config: Config, token: str) -> bool:
    """Whether a token is the one that AIRelays 0.x made."""
    try:
        return config.relay_token() == token
    except ValueError:  # that one is not taken over
        return False


def _next_steps(config: Config) -> list[str]:
    base = client.base_url(config).removesuffix("/v1")
    return [
        f"Start the relay: {airelays.here('serve', data_dir=config.data_dir)}",
        f"Add an upstream in the admin, once it runs: {base}/admin/",
        f"Connect a coding agent: {airelays.here('connect', '--help')}",
    ]


def _tell(config: Config, found: dict[str, Any], first: FirstRun | None, secret: str | None) -> None:
    output.title("Initialized")
    output.section("Relay")
    output.field("Config", f"{found['config_path']} ({'written' if found['config_created'] else 'existing'})")
    output.field("Data folder", config.data_dir)
    output.field("Listener", client.base_url(config).removesuffix("/v1"))
    output.field("Reached by", client.effective_network_scope(config))
    if found["bearer_token_source"]:
        hidden = f"existing, shown by: {found['client'].get('reveal_token_command')}"
        output.field("Token", _NEW[found["bearer_token_created"]] if first else "shown below" if secret else hidden)
    elif not client.requires_token(config):
        output.field("Token", "none: every client on this machine is served")
    if found["taken_over"]:
        output.section("AIRelays 0.x")
        for line in found["taken_over"]:
            output.line(line)
    if first is not None:
        output.section("Portal")
        output.field("User", first.username)
        output.field("Password", f"{first.password} (shown only once)")
    client.section(config, secret)
    output.next_steps(found["next_steps"])
