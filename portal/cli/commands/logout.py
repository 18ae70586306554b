"""`airelays logout`: end a sign-in with ChatGPT, here and at the issuer."""

from __future__ import annotations

import click

from portal.cli import options, output
from portal.cli.input import values
from portal.cli.startup import database
from portal.lib.texts import plain


@options.command("logout")
@click.option(
    "--user", "name", type=values.USER, metavar="NAME", help="Whose sign-in it is. Default: the only administrator."
)
@options.json_option
def command(name: str | None, as_json: bool) -> None:
    """Sign out of ChatGPT, here and at the issuer."""
    with database():
        from portal.cli.people import user_named
        from relay.channels.chatgpt_accounts import sign_in, store

        account = store.account_of(user_named(name))
        gone = account is not None and account.state != "signed_out"
        email = account.email if account is not None else ""
        told = False
        if account is not None and gone:
            with output.progress("Telling the issuer"):
                told = sign_in.sign_out(account)
    if as_json:
        output.as_json({"deleted": gone, "revoked": told, "signed_out": [email] if gone else [], "remaining": []})
    elif not gone:
        click.echo("OpenAI session: already empty")
    else:
        click.echo(f"Signed out: {plain(email) or 'the ChatGPT account'}")
        if not told:
            click.echo("The issuer could not be told: end the sign-in in ChatGPT's settings as well.", err=True)
