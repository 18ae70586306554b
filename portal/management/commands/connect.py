from __future__ import annotations

import json
import os
import re
import socket
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from accounts.models import User
from portal.clients import files
from portal.clients.app import ClientApp
from portal.clients.apps import APPS
from portal.clients.offered import chat_models
from portal.clients.target import CannotConnect, OfferedModel, Target, check_answers, chosen, look_up
from portal.installation.addresses import own_address
from portal.pages.own_plan.offered import plan_models
from relay.catalog.offers import usable_offers
from relay.models import Token
from relay.models.token import digest_of, make_token_secret
from relay.tokens.lifecycle import create_token, reveal_token, revoke_token

_SECRET: Final = re.compile(r"sk-[A-Za-z0-9]+")


class Command(BaseCommand):
    help = (
        "Connect a coding agent on this machine to the portal: writes the agent's own settings, after it has shown the "
        "difference and kept a copy. --undo puts back what was there."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        names = ", ".join(f"{app.key} ({app.label})" for app in APPS.values())
        parser.add_argument("app", choices=sorted(APPS), metavar="APP", help=names)
        parser.add_argument("--model", default="", help="model that it begins with; otherwise the first by name")
        parser.add_argument("--url", default="", help="address of the portal; otherwise that of this one")
        parser.add_argument("--token", default="", help="token to use; otherwise one is made for it")
        parser.add_argument("--user", default="", help="whose token is made; otherwise the only superuser's")
        parser.add_argument("--undo", action="store_true", help="put back what was there, and revoke the token")
        parser.add_argument("--force", action="store_true", help="undo although a file was changed since")
        parser.add_argument("--dry-run", action="store_true", help="show the difference, and change nothing")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument("--json", action="store_true", help="one JSON object, for machines; does not ask")

    def handle(self, *args: Any, **options: Any) -> None:
        app = APPS[options["app"]]
        try:
            if options["undo"]:
                self._undo(app, options)
            else:
                self._connect(app, options)
        except CannotConnect as why:
            raise CommandError(str(why), returncode=why.code) from None

    def _connect(self, app: ClientApp, options: dict[str, Any]) -> None:
        own: _OwnToken | None = None
        if options["token"]:
            target = look_up(options["url"] or _own_address(), options["token"], options["model"])
        elif options["url"]:
            raise CannotConnect("A token of that portal is needed as well: --token sk-…", 2)
        else:
            own = _own_token(app, options["user"])
            check_answers(_own_address())
            models = chat_models(usable_offers(own.user))
            known = {one.name for one in models}
            models += [OfferedModel(name) for name in plan_models(own.user, under_v1=True) if name not in known]
            target = chosen(_own_address(), own.secret, models, options["model"])
        changes = [one for one in files.planned(app, target, os.environ, Path.home()) if not one.is_none]
        if not options["json"]:
            self.stdout.write("".join(change.shown(target.token) + "\n" for change in changes), ending="")
        paths = [str(one.path) for one in changes]
        if options["dry_run"]:
            self._say(options, f"{app.label} is left as it is.", changed=False, files=paths)
        elif options["yes"] or options["json"] or self._agrees():
            self._write(app, target, own, changes, options)
        else:
            self.stdout.write("Nothing was changed.")

    def _agrees(self) -> bool:
        if not sys.stdin.isatty():
            raise CannotConnect("Nobody can be asked here. Say --yes to write this, or --dry-run to see it only.")
        return input("Write this? [y/N] ").strip().lower() in {"y", "yes"}

    def _write(
        self,
        app: ClientApp,
        target: Target,
        own: _OwnToken | None,
        changes: list[files.FileChange],
        options: dict[str, Any],
    ) -> None:
        made = own.make(app) if own is not None else None
        try:
            copies = files.write(app, changes, settings.DATA_DIR)
        except CannotConnect:
            if made is not None:
                revoke_token(made, actor=None)
            raise
        for name in app.overrides:
            if os.environ.get(name) and not options["json"]:
                self.stderr.write(f"{name} is set in this shell and stands above the file: unset it.")
        kept = f" What was there before: {', '.join(map(str, copies))}." if copies else ""
        self._say(
            options,
            f"{app.label} goes through {target.address} and begins with {target.model}.{kept} Start it: {app.begin}",
            changed=bool(changes),
            files=[str(one.path) for one in changes],
            model=target.model,
            url=target.address,
        )

    def _undo(self, app: ClientApp, options: dict[str, Any]) -> None:
        written = {
            digest_of(secret) for text in files.texts(app, settings.DATA_DIR) for secret in _SECRET.findall(text)
        }
        back = files.undo(app, settings.DATA_DIR, options["force"])
        named = Token.objects.filter(name=_token_name(app), revoked_at=None).select_related("user")
        # Anybody may call a token so: it is the one that was written, or a superuser's, where the file is gone.
        tokens = [token for token in named if token.user.is_superuser or token.digest in written]
        for token in tokens:
            revoke_token(token, actor=None)
        revoked = " Its token was revoked." if tokens else ""
        text = f"{app.label} is as it was before: {', '.join(map(str, back))}.{revoked}"
        self._say(options, text, changed=True, files=[str(path) for path in back])

    def _say(self, options: dict[str, Any], text: str, **found: Any) -> None:
        self.stdout.write(json.dumps(found) if options["json"] else text)


@dataclass(frozen=True, slots=True)
class _OwnToken:
    """The token of this portal that an app gets."""

    user: User
    secret: str
    is_there: bool

    def make(self, app: ClientApp) -> Token | None:
        """Make it, unless it is there."""
        if self.is_there:
            return None
        return create_token(self.user, _token_name(app), actor=None, secret=self.secret)[0]


def _own_token(app: ClientApp, username: str) -> _OwnToken:
    """The token that was made for an app before, or else one that is not made yet. Raises CannotConnect."""
    users = User.objects.filter(is_active=True)
    found = list((users.filter(username=username) if username else users.filter(is_superuser=True))[:2])
    if username and not found:
        raise CannotConnect(f"There is no active user “{username}”.", 2)
    if len(found) != 1:
        raise CannotConnect("There is not exactly one superuser. Say with --user whose token it is to be.")
    for token in Token.objects.filter(user=found[0], name=_token_name(app), purpose=""):
        if token.state() == "active" and (secret := reveal_token(token, actor=None)):
            return _OwnToken(found[0], secret, True)
    return _OwnToken(found[0], make_token_secret(), False)


def _token_name(app: ClientApp) -> str:
    return f"{app.label} on {socket.gethostname()}"[:60]


def _own_address() -> str:
    config = settings.CONFIG
    return own_address(config.public_url, config.host, config.port)
