"""Tokens of which only the SHA-256 of the secret is known: brought from a system that stores nothing else."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import pytest

from relay.models import Token
from relay.models.token import digest_of, make_token_secret
from relay.tokens.lifecycle import revoke_token, rotate_token
from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import hello

pytestmark = pytest.mark.shared


def brought(live: Portal, secret: str, **fields: Any) -> Token:
    """A token that is known by the SHA-256 of a secret."""
    token = Token(user=live.user(), name="brought", **fields)
    token.set_sha256(hashlib.sha256(secret.encode()).digest(), "sk-…" + secret[-4:])
    token.save()
    return token


def test_its_secret_opens_and_is_stored_as_any_other_from_then_on(server: Server, live: Portal) -> None:
    secret = "sk-" + secrets.token_urlsafe(16)
    token = brought(live, secret)
    assert token.reveal() is None and token.hint == "sk-…" + secret[-4:]
    model = live.model(hello)
    for _ in range(2):
        assert server.post(secret, ask(model)).status_code == 200
    token.refresh_from_db()
    assert token.digest == digest_of(secret)
    assert token.reveal() == secret
    fresh = rotate_token(token, actor=None)
    server.catch_up()
    check(server.get(secret, "/v1/models"), 401, "authentication_error", "invalid_api_key")
    assert server.get(fresh, "/v1/models").status_code == 200


def test_what_the_database_of_the_other_system_tells_opens_nothing(
    server: Server, live: Portal, clean_addresses: Any
) -> None:
    secret = "sk-" + secrets.token_urlsafe(16)
    token, sha256 = brought(live, secret), hashlib.sha256(secret.encode())
    for guess in (sha256.hexdigest(), "sk-" + sha256.hexdigest(), token.digest, sha256.digest().hex().upper()):
        check(server.get(guess, "/v1/models"), 401, "authentication_error", "invalid_api_key")
    assert token.digest not in (sha256.hexdigest(), digest_of(secret), digest_of(sha256.hexdigest()))
    assert server.get(secret, "/v1/models").status_code == 200


def test_a_secret_that_was_refused_before_opens_once_its_sha256_is_known(
    server: Server, live: Portal, clean_addresses: Any
) -> None:
    secret = make_token_secret()
    check(server.get(secret, "/v1/models"), 401, "authentication_error", "invalid_api_key")
    token = brought(live, secret)
    server.catch_up()
    assert server.get(secret, "/v1/models").status_code == 200
    token.refresh_from_db()
    revoke_token(token, actor=None)
    server.catch_up()
    check(server.get(secret, "/v1/models"), 401, "authentication_error", "invalid_api_key")


def test_one_that_is_disabled_or_revoked_says_what_others_say(
    server: Server, live: Portal, clean_addresses: Any
) -> None:
    disabled, revoked = make_token_secret(), make_token_secret()
    brought(live, disabled, enabled=False)
    revoke_token(brought(live, revoked), actor=None)
    server.catch_up()
    check(server.get(disabled, "/v1/models"), 401, "authentication_error", "token_disabled")
    check(server.get(revoked, "/v1/models"), 401, "authentication_error", "invalid_api_key")
