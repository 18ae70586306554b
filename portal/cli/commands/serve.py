"""`airelays serve`: prepare the installation if that is needed, and serve it."""

from __future__ import annotations

import signal
import sys
from typing import Final

import click

from portal.cli import options, startup
from portal.cli.input import values

_TERMINATED: Final = 128 + signal.SIGTERM


@options.command("serve")
@click.option("--host", type=values.Address(), metavar="ADDRESS", help="Address to listen on.")
@click.option("--port", type=values.PORT, help="Port to listen on.")
@click.option("--workers", type=values.Number(1, 64), help="Worker processes.")
@click.option("--no-auth", is_flag=True, help="Serve clients without a token, on this machine only.")
@click.option("--relay-only", is_flag=True, help="Serve /v1 and health checks alone: no pages, no jobs.")
@click.option("--network-scope", type=values.NETWORK_SCOPE, help="Who may connect.")
def command(
    host: str | None,
    port: int | None,
    workers: int | None,
    no_auth: bool,
    relay_only: bool,
    network_scope: str | None,
) -> None:
    """Serve the relay and the portal until Ctrl-C.

    The first time, the database is made, with an administrator, a token and a demo model; not with --relay-only, which
    serves beside a portal that has pages and does the jobs.
    """
    # Flags stand above all other settings, for the workers too.
    options.set_flags(
        host=host,
        port=port,
        workers=workers,
        network_scope=network_scope,
        no_auth=no_auth,
        relay_only="true" if relay_only else None,
    )
    startup.django_ready()
    from django.conf import settings
    from django.core.management import call_command

    from portal.management.commands.start import Command

    start = Command()
    start.open_again = no_auth
    start.status_of_term = _TERMINATED
    chosen = settings.CONFIG
    with startup.refusals():
        call_command(
            start,
            host=host or chosen.host,
            port=port or chosen.port,
            workers=workers or chosen.workers,
            relay_only=chosen.relay_only,
            skip_checks=False,
        )
    if start.terminated:
        sys.exit(_TERMINATED)
