"""`airelays token`: the tokens by which clients use the relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from portal.cli import client, options, output, startup
from portal.cli.errors import Refusal
from portal.cli.input import values

if TYPE_CHECKING:
    from relay.models import Token


@options.group("token")
def command() -> None:
    """Show, rotate, create and list tokens. The relay that runs notices at once."""


@command.command("show")
@options.json_option
def show(as_json: bool) -> None:
    """Show the relay token: the one that the first run made."""
    with startup.database():
        from relay.tokens.lifecycle import reveal_token

        token = _relay_token()
        secret = reveal_token(token, actor=None)
        if secret is None:
            raise Refusal(
                "No copy of the relay token is kept, so it cannot be shown. Make a new one: "
                f"`{startup.own_command('token', 'rotate')}`."
            )
        found = {"bearer_token_present": True, **_about(token, secret)}
        found["next_steps"] = [f"Replace it: {startup.own_command('token', 'rotate')}"]
    _tell("Token", found, as_json)


@command.command("rotate")
@options.json_option
def rotate(as_json: bool) -> None:
    """Give the relay token a new secret. The old one stops working at once."""
    with startup.database():
        from relay.tokens.lifecycle import rotate_token

        token = _relay_token()
        found = _about(token, rotate_token(token, actor=None))
        found["next_steps"] = ["Update any clients that use the old token."]
    _tell("Token Rotated", found, as_json)


@command.command("create")
@click.argument("name", type=values.Text("a name of 1 to 60 characters", 60))
@click.option(
    "--user", "username", type=values.USER, metavar="USER", help="Whose token it is; otherwise the only superuser's."
)
@options.json_option
def create(name: str, username: str | None, as_json: bool) -> None:
    """Create a token. Its secret is shown once, here."""
    with startup.database():
        from portal.cli.people import user_named
        from relay.tokens.lifecycle import create_token

        user = user_named(username)
        _, secret = create_token(user, name, actor=None)
    if as_json:
        output.as_json({"name": name, "user": user.get_username(), "relay_token": secret})
        return
    output.title("Token Created")
    output.section("Token")
    output.field("Name", name)
    output.field("User", user.get_username())
    output.field("API key", secret)


@command.command("list")
@click.option("--user", "username", type=values.USER, metavar="USER", help="Only this user's; otherwise everybody's.")
@options.json_option
def list_tokens(username: str | None, as_json: bool) -> None:
    """List the tokens, newest first, without their secrets."""
    with startup.database():
        from portal.cli.people import user_named
        from relay.models import Token

        rows = Token.objects.filter(revoked_at=None).select_related("user").order_by("-pk")
        if username is not None:
            rows = rows.filter(user=user_named(username))
        found = [_row(token) for token in rows]
    if as_json:
        output.as_json({"tokens": found})
        return
    output.title("Tokens")
    output.section(output.counted(len(found), "token"))
    for one in found:
        output.field(one["hint"], f"{one['name']} ({one['user']}, {one['state']})")


def _row(token: Token) -> dict[str, Any]:
    return {
        "id": token.pk,
        "name": token.name,
        "user": token.user.get_username(),
        "hint": token.hint,
        "state": token.state(),
        "created_at": token.created_at.isoformat(),
        "expires_at": token.expires_at.isoformat() if token.expires_at else None,
    }


def _relay_token() -> Token:
    from relay.tokens.relay_token import relay_token

    token = relay_token()
    if token is None:
        raise Refusal(f"There is no active relay token. Make one: `{startup.own_command('token', 'create', 'Mine')}`.")
    return token


def _about(token: Token, secret: str) -> dict[str, Any]:
    """What the JSON of `show` and `rotate` has in common."""
    from django.conf import settings

    told = client.as_object(settings.CONFIG)
    return {
        "bearer_token_file": told.get("token_file"),
        "bearer_token_source": client.token_source(settings.CONFIG, token),
        "relay_token": secret,
        "name": token.name,
        "user": token.user.get_username(),
        "client": {**told, "relay_token": secret},
    }


def _tell(title: str, found: dict[str, Any], as_json: bool) -> None:
    from django.conf import settings

    if as_json:
        output.as_json(found)
        return
    output.title(title)
    output.section("Relay")
    output.field("Token", f"{found['name']} ({found['user']})")
    output.field("Kept in", found["bearer_token_file"] or "the database, encrypted")
    client.section(settings.CONFIG, found["relay_token"])
    output.next_steps(found["next_steps"])
