"""`airelays status`: the settings that hold, whether the relay runs, its upstreams, and what clients need."""

from __future__ import annotations

from collections import Counter
from typing import Any

from portal.cli import client, options, output, startup
from portal.config import Config


@options.command("status")
@options.json_option
def command(as_json: bool) -> None:
    """Show settings, upstreams, and what clients need."""
    with startup.database(), output.progress("Reading the database"):
        from django.conf import settings

        found = _found(settings.CONFIG)
    if as_json:
        output.as_json(found)
    else:
        _tell(settings.CONFIG, found)


def _found(config: Config) -> dict[str, Any]:
    from django.db import connection

    from portal.cli.upstreams import accounts, sign_ins
    from portal.installation import config_file
    from relay.tokens.relay_token import relay_token
    from relay.usage.running import live_workers

    token = relay_token()
    listed, signed_in = accounts(), sign_ins()
    workers = live_workers()
    served = any(one["serves"] for one in listed) or any(one["ready_for_requests"] for one in signed_in)
    by_provider: dict[str, Counter[str]] = {}
    for one in listed:
        count = by_provider.setdefault(one["provider"], Counter(channels=0, serving=0))
        count["channels"] += 1
        count["serving"] += one["serves"]
    file = startup.checked(config_file.path)
    return {
        "relay": {
            "config_path": str(file) if file.is_file() else None,
            "data_dir": str(config.data_dir),
            "database": connection.display_name,
            "host": config.host,
            "port": config.port,
            "public_url": config.public_url or None,
            "running": bool(workers),
            "workers": len(workers),
            "require_bearer_auth": client.requires_token(config),
            "bearer_token_present": token is not None,
            "bearer_token_source": client.token_source(config, token),
            "network_scope": client.network_scope(config),
            "effective_network_scope": client.effective_network_scope(config),
        },
        "auth": {
            "authenticated": any(one["authenticated"] and one["enabled"] for one in listed),
            "accounts": listed,
            "sign_ins": signed_in,
        },
        "providers": {name: dict(count) for name, count in sorted(by_provider.items())},
        "client": client.as_object(config),
        "next_steps": _next_steps(config, bool(workers), token is not None, served),
    }


def _next_steps(config: Config, runs: bool, has_token: bool, served: bool) -> list[str]:
    steps = []
    if not has_token and client.requires_token(config):
        steps.append(f"Make a token: {startup.own_command('token', 'create', 'My token')}")
    if not runs:
        steps.append(f"Start the relay: {startup.own_command('serve')}")
    if not served:
        steps.append(f"Add an upstream in the admin: {client.base_url(config).removesuffix('/v1')}/admin/")
    return steps


def _tell(config: Config, found: dict[str, Any]) -> None:
    relay = found["relay"]
    output.title("Status")
    output.section("Relay")
    output.field("Running", f"yes, {output.counted(relay['workers'], 'worker')}" if relay["running"] else "no")
    output.field("Listener", client.base_url(config).removesuffix("/v1"))
    output.field("Reached by", relay["effective_network_scope"])
    output.field("Config", relay["config_path"])
    output.field("Data folder", relay["data_dir"])
    output.field("Database", relay["database"])
    if relay["require_bearer_auth"]:
        output.field("Relay token", "present" if relay["bearer_token_present"] else None)
    else:
        output.field("Relay token", "not required")
    output.section("Upstreams")
    for one in found["auth"]["accounts"]:
        output.field(one["name"], one["status"])
    if not found["auth"]["accounts"]:
        output.line("none")
    for one in found["auth"]["sign_ins"]:
        output.section("OpenAI Session")
        output.field("Account", one["email"] or one["account_id"])
        output.field("Plan", one["plan_type"])
        output.field("Used by", f"{one['user']} alone")
        output.field("State", str(one["state"]).replace("_", " ") + ("" if one["enabled"] else ", not turned on"))
        windows = one["windows"] or {}
        for window in (windows.get("primary"), windows.get("secondary")):
            if window:
                output.field(f"Used of {window['label']}", f"{window['used_percent']:g} %")
    client.section(config)
    output.next_steps(found["next_steps"])
