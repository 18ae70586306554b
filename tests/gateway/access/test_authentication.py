"""Who may call: tokens, addresses, models, channels."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from portal.lib import clock
from tests.conftest import Portal, ask
from tests.support.asserts import check
from tests.support.server import Server


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer nonsense", "Basic abc", "Bearer sk-" + "x" * 48, "Bearer " + "é" * 600])
def test_missing_malformed_and_unknown_tokens_get_one_and_the_same_answer(server: Server, clean_addresses: Any, header: str | None) -> None:
    headers = {} if header is None else {b"authorization": header.encode()}
    response = httpx.get(f"{server.v1}/models", headers=headers, trust_env=False)
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


def test_repeated_bad_tokens_block_the_address_but_not_a_valid_token(server: Server, live: Portal, clean_addresses: Any) -> None:
    from relay.models import BlockedAddress

    for _ in range(8):
        check(server.get("sk-wrong", "/v1/models"), 401, "authentication_error", "invalid_api_key")
    blocked = server.get("sk-wrong", "/v1/models")
    check(blocked, 429, "rate_limit_error", "ip_temporarily_blocked")
    assert 800 < int(blocked.headers["retry-after"]) <= 900
    assert server.get(live.token(), "/v1/models").status_code == 200, "a valid token works from a blocked address"
    row = BlockedAddress.objects.get(address="127.0.0.1")
    assert row.failures == 8
    row.delete()  # what the admin's unblock does
    check(server.get("sk-wrong", "/v1/models"), 401, "authentication_error", "invalid_api_key")


def test_preflights_and_unknown_urls_do_not_count_as_bad_tokens(server: Server, clean_addresses: Any) -> None:
    for _ in range(12):
        assert httpx.options(f"{server.v1}/models", trust_env=False).status_code == 204
        assert httpx.get(f"{server.v1}/nothing-here", trust_env=False).status_code == 404
    assert server.get("sk-wrong", "/v1/models").status_code == 401


def test_a_success_clears_the_count(server: Server, live: Portal, clean_addresses: Any) -> None:
    token = live.token()
    for _ in range(3):
        for _ in range(6):
            assert server.get("sk-wrong", "/v1/models").status_code == 401
        assert server.get(token, "/v1/models").status_code == 200


def test_address_outside_the_allow_list_is_refused(server: Server, live: Portal) -> None:
    check(server.get(live.token(allowed_ips=["203.0.113.0/24"]), "/v1/models"), 403, "permission_error", "ip_not_allowed")
    assert server.get(live.token(allowed_ips=["127.0.0.0/8"]), "/v1/models").status_code == 200


def test_forwarding_header_of_an_untrusted_peer_is_ignored(server: Server, live: Portal) -> None:
    response = server.get(live.token(allowed_ips=["203.0.113.0/24"]), "/v1/models", **{"x-forwarded-for": "203.0.113.9"})
    check(response, 403, "permission_error", "ip_not_allowed")


def test_model_permission_is_enforced_on_the_call_and_in_the_list(server: Server, live: Portal) -> None:
    from django.contrib.auth.models import Group

    from relay.models import Model, ModelPermission

    user, stranger = live.user(), live.user()
    token, other = live.token(user), live.token(stranger)
    model = live.model(is_open=False)
    check(server.post(token, ask(model)), 403, "permission_error", "model_not_allowed", "model")
    check(server.get(token, f"/v1/models/{model}"), 404, "invalid_request_error", "model_not_found", "model")
    ModelPermission.objects.create(model=Model.objects.get(name=model), user=user)
    assert server.post(token, ask(model)).status_code == 200
    assert model in [entry["id"] for entry in server.get(token, "/v1/models").json()["data"]]
    check(server.post(other, ask(model)), 403, "permission_error", "model_not_allowed", "model")
    assert model not in server.get(other, "/v1/models").text
    group = Group.objects.create(name=live.name("group"))
    ModelPermission.objects.create(model=Model.objects.get(name=model), group=group)
    check(server.post(other, ask(model)), 403, "permission_error", "model_not_allowed", "model")
    stranger.groups.add(group)
    assert server.post(other, ask(model)).status_code == 200
    ModelPermission.objects.filter(group=group).update(expires_at=clock.now() - timedelta(seconds=1))
    check(server.post(other, ask(model)), 403, "permission_error", "model_not_allowed", "model")


def test_token_with_a_list_of_models_may_use_no_other(server: Server, live: Portal) -> None:
    from relay.models import Model

    one, two = live.model(), live.model()
    token = live.token(models_allowed=[Model.objects.get(name=one)])
    assert server.post(token, ask(one)).status_code == 200
    check(server.post(token, ask(two)), 403, "permission_error", "model_not_allowed", "model")
    assert [entry["id"] for entry in server.get(token, "/v1/models").json()["data"]] == [one]


def test_channel_of_a_group_serves_only_that_group(server: Server, live: Portal) -> None:
    from django.contrib.auth.models import Group

    group = Group.objects.create(name=live.name("group"))
    channel = live.channel()
    channel.groups.add(group)
    model, user = live.model(channels=[channel]), live.user()
    token = live.token(user)
    check(server.post(token, ask(model)), 503, "server_error", "no_available_channel")
    user.groups.add(group)
    assert server.post(token, ask(model)).status_code == 200
