"""Who may call: tokens, users, addresses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from portal.lib import clock
from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer nonsense", "Basic abc", "Bearer sk-" + "x" * 48, "Bearer " + "é" * 600]
)
def test_missing_malformed_and_unknown_tokens_get_one_and_the_same_answer(
    server: Server, clean_addresses: Any, header: str | None
) -> None:
    headers = {} if header is None else {b"authorization": header.encode()}
    response = httpx.get(f"{server.v1}/models", headers=headers, trust_env=False, timeout=60)
    message = check(response, 401, "authentication_error", "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in message


def test_expired_and_disabled_tokens_and_users_say_so(server: Server, live: Portal) -> None:
    from relay.models import Token

    expired = live.token(expires_at=clock.now() - timedelta(seconds=1))
    check(server.get(expired, "/v1/models"), 401, "authentication_error", "token_expired")
    user = live.user()
    token = live.token(user)
    Token.objects.filter(user=user).update(enabled=False)
    check(server.get(token, "/v1/models"), 401, "authentication_error", "token_disabled")
    user = live.user()
    token = live.token(user)
    assert server.get(token, "/v1/models").status_code == 200
    user.is_active = False
    user.save()
    check(server.get(token, "/v1/models"), 401, "authentication_error", "token_disabled")


def test_address_outside_the_allow_list_is_refused(server: Server, live: Portal) -> None:
    check(
        server.get(live.token(allowed_ips=["203.0.113.0/24"]), "/v1/models"), 403, "permission_error", "ip_not_allowed"
    )
    for allowed in ("127.0.0.0/8", "::ffff:127.0.0.1", "::ffff:127.0.0.0/104"):
        assert server.get(live.token(allowed_ips=[allowed]), "/v1/models").status_code == 200, allowed


def test_forwarding_header_of_an_untrusted_peer_is_ignored(server: Server, live: Portal) -> None:
    response = server.get(
        live.token(allowed_ips=["203.0.113.0/24"]), "/v1/models", **{"x-forwarded-for": "203.0.113.9"}
    )
    check(response, 403, "permission_error", "ip_not_allowed")


def test_token_may_come_as_x_api_key(server: Server, live: Portal) -> None:
    response = server.post("", ask(live.model()), headers={"authorization": "", "x-api-key": live.token()})
    assert response.status_code == 200
