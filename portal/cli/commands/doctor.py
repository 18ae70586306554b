"""`airelays doctor`: checks the installation, says what to do, and exits with 1 if anything failed."""

from __future__ import annotations

import click

from portal.cli import options, reports


@options.command("doctor")
@click.option("--skip-response", is_flag=True, help="Make no real request to an upstream: it costs a few tokens.")
@options.json_option
def command(skip_response: bool, as_json: bool) -> None:
    """Check the installation, and say what to do.

    Looks at settings, data folder, port, clock, database, books, channels and one real request.

    Prints nothing secret: the output can be sent to support. Exits with 1 if a check failed.
    """
    reports.show("Doctor", as_json, response=not skip_response)
