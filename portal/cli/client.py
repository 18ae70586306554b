"""What clients need to reach the relay, as the commands tell it: an object for programs, a section for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from portal.cli import output
from portal.config import Config
from portal.installation import addresses, command
from portal.lib import net

if TYPE_CHECKING:
    from relay.models import Token


def base_url(config: Config) -> str:
    return f"{addresses.own_address(config.public_url, config.host, config.port)}/v1"


def requires_token(config: Config) -> bool:
    return config.require_bearer_auth


def network_scope(config: Config) -> str:
    """Who may connect: "loopback", "private" or "any"."""
    return config.network_scope


def effective_network_scope(config: Config) -> str:
    """The same; who listens on a loopback address is reached from this machine alone."""
    return "loopback" if net.is_loopback_name(config.host) else network_scope(config)


def as_object(config: Config) -> dict[str, Any]:
    """The `client` of the commands' JSON. The token itself is not in it."""
    base = base_url(config)
    found: dict[str, Any] = {"base_url": base, "models_url": f"{base}/models"}
    if not requires_token(config):
        return {
            **found,
            "requires_bearer_auth": False,
            "api_key_note": (
                "No relay token is required. If your client insists on an api_key value, any non-empty placeholder "
                "string is acceptable. An upstream is still required."
            ),
        }
    file = config.relay_token_file()
    return {
        **found,
        "requires_bearer_auth": True,
        "authorization_header": "Authorization: Bearer <AIRelays token>",
        "token_file": str(file) if file else None,
        "reveal_token_command": command.here("token", "show", data_dir=config.data_dir),
        "rotate_token_command": command.here("token", "rotate", data_dir=config.data_dir),
    }


def section(config: Config, token: str | None = None) -> None:
    """Print “Client Setup”. `token`: shown in place of the command that shows it."""
    told = as_object(config)
    output.section("Client Setup")
    output.field("Base URL", told["base_url"])
    if told["requires_bearer_auth"]:
        output.field("API key", token or f"the relay token: {told['reveal_token_command']}")
    else:
        output.field("API key", "none is needed; any text where a client insists on one")


def token_source(config: Config, token: Token | None) -> str | None:
    """Where else the token stands: "env", "file", or "database" for nowhere. None without a token."""
    from relay.models.token import digest_of
    from relay.tokens.relay_token import token_file

    if token is None:
        return None
    if token_file(token.digest) is not None:
        return "file"
    given = config.given_token()
    return "env" if given and digest_of(given) == token.digest else "database"
