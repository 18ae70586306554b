"""The text that is printed when the portal starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.conf import settings

from portal.installation import command
from portal.installation.addresses import own_address
from portal.serving.first_run import FirstRun
from relay.catalog.first_call import FirstCall, choose_call, curl
from relay.catalog.offers import usable_offers
from relay.tokens.open_relay import is_closed
from relay.tokens.relay_token import NAME, relay_token

RELAYS_ONLY: Final = (
    "It relays only: pages and jobs (notices, sums of usage, retention, tests of channels) need `serve` without "
    "--relay-only on the same database"
)


def address(host: str, port: int) -> str:
    """The URL of the portal for a browser on this machine."""
    return own_address(settings.CONFIG.public_url, host, port)


def open_relay() -> str:
    """What to say at the start of a relay that needs no token; empty if it does."""
    if settings.CONFIG.require_bearer_auth:
        return ""
    if is_closed():
        again = command.here("serve", "--no-auth", data_dir=settings.CONFIG.data_dir)
        return f"No open relay: its token was revoked, or its user disabled. To open it again: {again}"
    whom = "everybody who reaches it" if settings.CONFIG.open_relay_on_network else "programs on this machine"
    return f"Open relay: {whom} may call /v1 without a token"


def banner(host: str, port: int, first: FirstRun | None, to_terminal: bool, write: Callable[[str], object]) -> None:
    """Write the addresses of the portal and an example command.

    On the first run the password and token are included; later only the relay token, and only on a terminal.
    """
    base = address(host, port)
    write("")
    write(f"AIRelays Portal {settings.VERSION}")
    write(f"  Admin     {base}/admin/")
    write(f"  Portal    {base}/")
    write(f"  Base URL  {base}/v1")
    if said := open_relay():
        write(f"  {said}")
    token = first.token if first else _shown_token(to_terminal)
    if first:
        write("")
        write(f"  Sign in as {first.username} with the password {first.password}")
        write("  It is shown only once. To set another:")
        write(f"  {command.here('password', first.username, data_dir=settings.CONFIG.data_dir)}")
    if token:
        write(f"  Token     {token}")
        if (call := _first_call()) is not None:
            write("")
            write("Try it:")
            write("")
            write(curl(f"{base}/v1", token, call))
    else:
        write(f"  Tokens    {base}/tokens/")
    write("")
    write("Stop with Ctrl-C.")
    write("")


def _shown_token(to_terminal: bool) -> str | None:
    """The token of the first run if it can be revealed; None when the output is not a terminal."""
    if not to_terminal:
        return None
    token = relay_token()
    return token.reveal() if token and token.name == NAME else None


def _first_call() -> FirstCall | None:
    """What the relay token can call now, None when that is nothing."""
    token = relay_token()
    return choose_call(usable_offers(token.user, token), token.purpose) if token is not None else None
