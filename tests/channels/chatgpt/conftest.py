"""The servers behind ChatGPT plans, a portal that is set to them, and people who have signed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.peers.plans.chatgpt import ChatGPT, running_chatgpt
from tests.support.peers.plans.people import Person, settings_for
from tests.support.portal import Portal
from tests.support.server import Server, serving


@pytest.fixture(scope="module")
def running() -> Iterator[ChatGPT]:
    with running_chatgpt() as server:
        yield server


@pytest.fixture
def chatgpt(running: ChatGPT) -> Iterator[ChatGPT]:
    """The servers, as they are at the beginning of each test."""
    running.calls.clear()
    running.seen.clear()
    yield running
    running.slow.set()
    running.flows.set()
    running.headers, running.answers, running.events = {}, {}, None
    running.reject_access, running.seconds, running.signed_with = False, 3600, "right"
    running.claims, running.offers_device = {}, True


@pytest.fixture(scope="module")
def portal(running: ChatGPT, django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("plans") / "log", env=settings_for(running)) as server:
        yield server


@pytest.fixture
def configured(chatgpt: ChatGPT, settings: Any) -> Any:
    """The same settings in the process of the test."""
    own = {"issuer_base_url": chatgpt.url, "upstream_base_url": chatgpt.url, "upstream_allow": ["127.0.0.1"]}
    settings.CONFIG = settings.CONFIG.model_copy(update=own)
    return settings


@pytest.fixture
def signed_in(live: Portal, chatgpt: ChatGPT, configured: Any) -> Callable[..., Person]:
    """Sign a new user in."""

    def sign_in(
        shape: str = "siwc", on: bool = True, api: bool = True, seconds: int = 3600, superuser: bool = True
    ) -> Person:
        from relay.channels.chatgpt_accounts import store
        from relay.channels.chatgpt_accounts.places import place_of
        from relay.providers.plans.catalogue import read_models
        from relay.providers.plans.identity import Identity
        from relay.providers.plans.login import Tokens
        from tests.support.peers.plans import chatgpt as peer

        chatgpt.seconds = seconds
        user = live.user(balance=0, is_superuser=superuser)
        client = f"oaiapp_{user.pk}"
        given = chatgpt.tokens(client)
        chatgpt.seconds = 3600
        import time

        tokens = Tokens(
            given["access_token"], given["refresh_token"], given["id_token"], time.time() + seconds, given["scope"]
        )
        who = Identity("user-ada", f"{user.username}@example.org", "plus", "acc-ada")
        account = store.save_sign_in(user, place_of(shape), client, tokens, who, "test", None, None)
        import json

        store.save_models(account.pk, read_models(json.dumps({"models": peer.MODELS}).encode(), "0.153.4") or [])
        account.refresh_from_db()
        if on:
            store.set_on(account, True, user, None)
        if api:
            store.set_api(account, True, user, None)
        return Person(user, account, live.token(user))

    return sign_in
