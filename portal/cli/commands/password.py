"""`airelays password`: set the password of a user of the portal."""

from __future__ import annotations

import secrets
import sys

import click

from portal.cli import options, output, startup
from portal.cli.errors import Refusal
from portal.cli.input import values

_LONGEST = 4096  # characters that are read of a pipe


@options.command("password")
@click.argument("username", type=values.USER, required=False, metavar="[USER]")
@click.option("--generate", is_flag=True, help="Make a random password, and show it once.")
def command(username: str | None, generate: bool) -> None:
    """Set a user's password.

    Without a name, that of the only superuser. It is asked for twice, or read from a pipe. The user's sessions and
    staff keys end.
    """
    with startup.database():
        from django.contrib.auth.password_validation import validate_password
        from django.core.exceptions import ValidationError
        from django.db import transaction

        from accounts.models import AuditEvent, StaffKey
        from portal.cli.people import user_named

        user = user_named(username, "")
        password = secrets.token_urlsafe(12) if generate else _asked(user.get_username())
        try:
            validate_password(password, user)
        except ValidationError as error:
            raise Refusal(" ".join(error.messages)) from None
        with transaction.atomic():
            user.set_password(password)
            user.save(update_fields=["password"])
            AuditEvent.write("password.set", None, user)
            ended = StaffKey.revoke_all(user, None)
    output.title("Password Set")
    output.section("Portal")
    output.field("User", user.get_username())
    if ended:
        output.field("Staff keys", f"{ended} revoked")
    if generate:
        output.field("Password", f"{password} (shown only once)")


def _asked(username: str) -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        answer: str = click.prompt(f"New password of {username}", hide_input=True, confirmation_prompt=True)
        return answer
    given = sys.stdin.readline(_LONGEST).rstrip("\r\n") if sys.stdin is not None else ""
    if not given:
        raise Refusal("No password was given. Pipe one in, or use --generate.")
    return given
