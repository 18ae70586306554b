"""What is kept of clients: digests of the ids of their sessions, never the ids."""

from __future__ import annotations

import logging

import pytest

from relay.gateway.exchange.client import NO_SESSION, Client, session_of
from relay.gateway.snapshot.callers import Caller
from relay.models.session import session_code, session_of_code
from relay.protocols.naming.sessions import SessionIds


def caller(user: int, token: int) -> Caller:
    return Caller("digest", token, user, False, frozenset(), False, False, 0.0, None, ())


def test_one_id_of_two_users_or_two_tokens_is_two_sessions() -> None:
    ids = SessionIds("s", "a", "p")
    mine, again = session_of(caller(1, 1), ids), session_of(caller(1, 1), ids)
    others = [session_of(caller(2, 1), ids), session_of(caller(1, 2), ids), session_of(caller(12, 1), ids)]
    assert mine == again and None not in mine and len({mine.key, *(one.key for one in others)}) == 4
    assert len({*mine, *(number for one in others for number in one)}) == 12


def test_numbers_of_users_and_tokens_do_not_run_together() -> None:
    assert session_of(caller(1, 12), SessionIds("3")).key != session_of(caller(11, 2), SessionIds("3")).key
    assert session_of(caller(1, 1), SessionIds("1:s")).key != session_of(caller(1, 11), SessionIds("s")).key


def test_a_digest_depends_on_the_portals_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = session_of(caller(1, 1), SessionIds("s"))
    monkeypatch.setattr("relay.gateway.exchange.client.settings.TOKEN_KEY", b"another key of 32 random letters")
    assert session_of(caller(1, 1), SessionIds("s")) != before


@pytest.mark.parametrize("text", ["s", "ü" * 256, "\udcff", "a\0b"], ids=ascii)
def test_a_digest_fits_its_column_and_its_address(text: str) -> None:
    key = session_of(caller(1, 1), SessionIds(text)).key
    assert key is not None and -(2**63) <= key < 2**63
    assert len(session_code(key)) == 16 and session_of_code(session_code(key)) == key


@pytest.mark.parametrize("code", ["", "0" * 15, "0" * 17, "G" * 16, "ABCDEF0123456789", "٠" * 16, "-" + "0" * 15])
def test_other_texts_are_no_session(code: str) -> None:
    assert session_of_code(code) is None


def test_a_client_without_ids_has_no_session() -> None:
    client = Client({b"user-agent": b"curl/8"})
    client.enter(caller(1, 1))
    assert client.session is NO_SESSION and client.session.conversation == "" and client.app == "curl"


def test_an_agent_id_alone_makes_no_session() -> None:
    client = Client({b"x-claude-code-agent-id": b"a"})
    client.enter(caller(1, 1))
    assert client.session is NO_SESSION


def test_the_id_of_a_request_that_is_that_of_its_session_is_not_kept() -> None:
    codex = Client({b"session-id": b"s", b"thread-id": b"t", b"x-client-request-id": b"t"})
    assert codex.request_id == ""
    own = Client({b"session-id": b"s", b"x-client-request-id": b"mine"})
    assert own.request_id == "mine"
    named = Client({b"x-client-request-id": b"s"})
    named.enter(caller(1, 1), lambda: SessionIds("s"))
    assert named.request_id == ""
    long = Client({b"session-id": b"x" * 200, b"x-client-request-id": b"x" * 200})
    assert long.request_id == ""


def test_no_id_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client = Client({b"session-id": b"my-session", b"x-client-request-id": b"my-session"})
        client.enter(caller(1, 1))
    assert "my-session" not in caplog.text
