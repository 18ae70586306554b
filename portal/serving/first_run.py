"""The first run of an installation: administrator, first token and demo channel, created in one transaction."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from django.conf import settings
from django.db import transaction

from accounts.models import AuditEvent, User
from portal.installation.sign_ins import find_sign_ins
from relay.channels import chatgpt_accounts
from relay.models import Channel, ChannelModel, Model, ModelPrice
from relay.providers.demo import MODEL
from relay.providers.vendors import demo
from relay.storage.adoption.adopt import adopt, adopt_once
from relay.tokens.lifecycle import create_token
from relay.tokens.relay_token import NAME

logger = logging.getLogger(__name__)
ADMIN_NAME = "admin"
_LOST = 20  # lines of what could not be taken over
_SOURCE = 100  # characters of where a sign-in was found


@dataclass(frozen=True, slots=True)
class FirstRun:
    """Credentials of the first run, to be shown once. The password is stored as a hash only."""

    username: str
    password: str
    token: str


def first_run() -> FirstRun | None:
    """Set up an empty installation. Returns None if users exist already."""
    password = secrets.token_urlsafe(12)
    with transaction.atomic():
        if User.objects.exists():  # inside the transaction, so that only one of two starting programs sets up
            return None
        admin = User.objects.create_superuser(ADMIN_NAME, password=password)
        channel = Channel.objects.create(
            name="Demo",
            provider=demo.VENDOR.key,
            priority=-100,
            notes="Built in: answers without any upstream. Disable it when you have channels of your own.",
        )
        model = Model.objects.create(
            name=MODEL,
            display_name="Demo (no language model)",
            description="Answers with a fixed text, to see everything work.",
            owned_by="airelays",
            is_open=True,
        )
        ChannelModel.objects.create(channel=channel, model=model)
        ModelPrice.objects.create(model=model, input=0, output=0, source=demo.VENDOR.key)
        _, secret = create_token(admin, NAME, actor=None, secret=_former_token())
        AuditEvent.write("setup", None, admin)
    return FirstRun(ADMIN_NAME, password, secret)


def take_over(tell: Callable[[str], object] = lambda text: None) -> list[str]:
    """Take over what AIRelays 0.x has stored in the data folder, for the first superuser. Returns what to say of it.

    Called at each start: AIRelays may have stored more since the last. `tell` is told what takes long.
    """
    owner = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if owner is None:
        return []
    done = adopt(
        settings.DATA_DIR, owner, lambda count: tell(f"Taking over {count} files and conversations of AIRelays 0.x …")
    )
    for line in done.lost[:_LOST]:
        logger.warning("%s", line)
    if len(done.lost) > _LOST:
        logger.warning("%d more of AIRelays 0.x were not taken over as they were", len(done.lost) - _LOST)
    said = []
    if done.files or done.conversations:
        said.append(
            f"Taken over from AIRelays 0.x for {owner.username}: {done.files} files, "
            f"{done.conversations} conversations."
        )
    for found in find_sign_ins(settings.DATA_DIR, keychain=_was_home_of_former()):
        if adopt_once(
            f"sign-in:{found.fingerprint}", partial(chatgpt_accounts.adopt, found.auth, found.source[-_SOURCE:])
        ):
            said.append(f"Taken over from AIRelays 0.x: the sign-in at ChatGPT in {found.source}, which is off.")
    return said


def _was_home_of_former() -> bool:
    """Whether AIRelays 0.x has used the data folder, and may have kept its sign-in in the keychain."""
    return any((settings.DATA_DIR / name).exists() for name in ("relay-token", "accounts", "auth.json"))


def _former_token() -> str:
    """The token of AIRelays 0.x if this was its data folder, so that its clients go on; else empty."""
    try:
        return settings.CONFIG.relay_token()
    except ValueError as error:
        logger.warning("%s", error)
        return ""
