"""`airelays check`: checks the settings and, for a deployment, what is around the portal; asks no upstream."""

from __future__ import annotations

import click

from portal.cli import options, reports


@options.command("check")
@click.option(
    "--deploy",
    is_flag=True,
    help="Check the deployment, too: the machine, the public address, TLS, and what the proxy lets through.",
)
@options.json_option
def command(deploy: bool, as_json: bool) -> None:
    """Check the settings, or a whole deployment, and say what to do.

    Looks at settings, keys, data folder, port, database and books.
    With --deploy it also comes in by AIRELAYS_PUBLIC_URL, as users do: run it beside the running portal. Upstreams are
    not reached; `airelays doctor` does that.

    Prints nothing secret: the output can be sent to support. Exits with 1 if a check failed.
    """
    reports.show("Check", as_json, upstreams=False, deployment=deploy)
