"""`airelays login`: sign in with ChatGPT, so that the person who runs this portal can use their own plan in it."""

from __future__ import annotations

import time
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from portal.cli import options, output
from portal.cli.errors import Refusal
from portal.cli.input import values
from portal.cli.startup import database, own_command
from portal.lib.texts import plain

if TYPE_CHECKING:
    from accounts.models import User
    from relay.channels.chatgpt_accounts.calls import DeviceCode
    from relay.models import ChatGPTAccount


@options.command("login")
@click.option("--device", is_flag=True, help="Type a code on another device, where the issuer offers that.")
@click.option("--browser/--no-browser", default=None, help="Open the browser, or only print the address.")
@click.option(
    "--user", "name", type=values.USER, metavar="NAME", help="Whose plan it is. Default: the only administrator."
)
@options.json_option
def command(device: bool, browser: bool | None, name: str | None, as_json: bool) -> None:
    """Sign in with ChatGPT, to use your own plan here. It stays off until you turn it on in the portal."""
    with database():
        from portal.cli.people import user_named
        from relay.channels.chatgpt_accounts import status_of
        from relay.providers.plans.login import LoginFailed

        user = user_named(name)
        try:
            account = _by_device(user) if device else _by_browser(user, browser, as_json)
        except LoginFailed as failed:
            raise Refusal(str(failed)) from None
        state = status_of(account)
        if as_json:
            output.as_json({"auth": state})
            return
        output.title("Login")
        output.section("OpenAI Session")
        for label, value in (("E-mail", account.email), ("Plan", account.plan), ("Account", account.account_id)):
            output.field(label, value)
        output.field("State", account.get_state_display())
        output.next_steps(
            (
                "Open the portal's page “ChatGPT”, read what the terms say, and turn your plan on there.",
                "Its use under /v1 by your own clients is a switch of its own on that page.",
            )
            if not account.is_on
            else ()
        )


def _by_browser(user: User, browser: bool | None, quiet: bool) -> ChatGPTAccount:
    """Sign in with a browser on this machine, or on another one by pasting the address where it ended."""
    from django.conf import settings

    from relay.channels.chatgpt_accounts import sign_in
    from relay.channels.chatgpt_accounts.callback import listening

    with listening(sign_in.callback_port()) as callback:
        begun = sign_in.begin(user, callback.port)
        callback.expect(begun.login.state)
        say = _saying(quiet)
        say("Open this address, sign in and give your consent:")
        say(f"\n{begun.address}\n")
        if browser:
            webbrowser.open(begun.address)
        say("Waiting for the browser. On another machine, press Ctrl-C and paste the address where it ended.")
        try:
            address = callback.wait(settings.CONFIG.login_timeout_seconds)
        except KeyboardInterrupt:
            address = click.prompt("Address", err=True)
        if address is None:
            raise Refusal(f"Nobody signed in in time. Run `{own_command('login')}` again.")
        return sign_in.finish(user, begun, address)


def _by_device(user: User) -> ChatGPTAccount:
    """Sign in by a code that is typed on another device."""
    from django.conf import settings

    from relay.channels.chatgpt_accounts import sign_in

    device: DeviceCode = sign_in.begin_device(user)
    code = plain(device.user_code)
    click.echo(f"Open {device.address} on any device and type the code {code}.", err=True)
    until = time.monotonic() + settings.CONFIG.login_timeout_seconds
    with output.progress("Waiting for the code"):
        while time.monotonic() < until:
            if (account := sign_in.finish_device(user, device)) is not None:
                return account
            time.sleep(device.interval)
    raise Refusal(f"Nobody typed the code in time. Run `{own_command('login', '--device')}` again.")


def _saying(quiet: bool) -> Callable[[str], None]:
    """How to tell the user something: on stderr where standard output has JSON."""
    return lambda text: click.echo(text, err=quiet)
