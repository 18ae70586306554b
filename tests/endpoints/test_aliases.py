"""Further names of models: what they stand for, and what they never hide. Each endpoint is tried in the table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from portal.lib.money import NANO
from relay.models import Model, ModelAlias, ModelPermission
from tests.support.asserts import check, until
from tests.support.portal import Portal, ask
from tests.support.server import Server

pytestmark = pytest.mark.shared

ANTHROPIC = {"anthropic-version": "2023-06-01"}


def alias_of(name: str, alias: str = "") -> str:
    return ModelAlias.objects.create(model=Model.objects.get(name=name), name=alias or f"claude-{name}").name


def test_an_alias_is_as_permitted_as_its_model(live: Portal, server: Server) -> None:
    user, stranger = live.user(), live.user()
    token, other, own = live.token(user), live.token(stranger), live.model(is_open=False)
    alias = alias_of(own)
    ModelPermission.objects.create(model=Model.objects.get(name=own), user=user)
    limited = live.token(user, models_allowed=[Model.objects.get(name=live.model())])
    staff = live.token(live.user(is_staff=True))
    server.catch_up()
    assert server.post(token, ask(alias)).status_code == 200
    for refused in (other, limited, staff):
        for name in (own, alias):
            check(server.post(refused, ask(name)), 403, "permission_error", "model_not_allowed", "model")
            check(server.get(refused, f"/v1/models/{name}"), 404, "invalid_request_error", "model_not_found", "model")
        assert alias not in server.get(refused, "/v1/models").text
    listed = live.token(user, models_allowed=[Model.objects.get(name=own)])
    assert [one["id"] for one in server.get(listed, "/v1/models").json()["data"]] == [own, alias]
    assert server.post(listed, ask(alias)).status_code == 200


def test_an_alias_goes_with_its_model(live: Portal, server: Server) -> None:
    own, token = live.model(), live.token()
    alias, row = alias_of(own), Model.objects.get(name=own)
    server.catch_up()
    assert server.post(token, ask(alias)).status_code == 200
    assert server.post(token, ask(f"openai/{alias}")).status_code == 200, "as LiteLLM writes it"
    row.enabled = False
    row.save()
    server.catch_up()
    check(server.post(token, ask(alias)), 404, "invalid_request_error", "model_not_found", "model")
    assert server.get(token, f"/v1/models/{alias}").status_code == 404
    row.enabled = True
    row.save()
    ModelAlias.objects.get(name=alias).delete()
    server.catch_up()
    check(server.post(token, ask(alias)), 404, "invalid_request_error", "model_not_found", "model")
    assert server.post(token, ask(own)).status_code == 200
    alias_of(own)
    server.catch_up()
    assert server.post(token, ask(alias)).status_code == 200
    gone = live.model(price=None)
    alias = alias_of(gone)
    Model.objects.get(name=gone).delete()
    assert not ModelAlias.objects.filter(name=alias).exists()


def test_an_alias_of_a_disabled_model_is_not_one_of_a_family(live: Portal, server: Server) -> None:
    own, family = live.model(), live.name("family")
    Model.objects.filter(name=live.model()).update(name=f"{family}-*", is_open=True)
    alias = alias_of(own, f"{family}-one")
    token = live.token()
    server.catch_up()
    assert server.post(token, ask(alias)).status_code == 200
    assert live.upstream.last(own).model == own
    Model.objects.get(name=own).save()  # announced
    Model.objects.filter(name=own).update(enabled=False)
    server.catch_up()
    check(server.post(token, ask(alias)), 404, "invalid_request_error", "model_not_found", "model")


def test_a_model_of_that_name_is_never_hidden(live: Portal, server: Server) -> None:
    """Also where it came after the alias, past the forms that refuse it."""
    own, later, token = live.model(), live.model(), live.token()
    alias = alias_of(own, f"later-{later}")
    Model.objects.filter(name=later).update(name=alias)
    server.catch_up()
    response = server.post(token, ask(alias))
    assert response.status_code == 503 or live.record(response).model == alias
    assert [one["id"] for one in server.get(token, "/v1/models").json()["data"]].count(alias) <= 1
    assert live.upstream.count(own) == 0
    Model.objects.filter(name=alias).update(enabled=False)
    server.catch_up()
    check(server.post(token, ask(alias)), 404, "invalid_request_error", "model_not_found", "model")


def test_lists_of_each_api_have_aliases(live: Portal, server: Server) -> None:
    own = live.model()
    Model.objects.filter(name=own).update(display_name="The Model", context_window=64_000, abilities=["chat"])
    alias = alias_of(own)
    token = live.token(models_allowed=[Model.objects.get(name=own)])
    server.catch_up()
    openai = server.get(token, "/v1/models").json()["data"]
    assert [(one["id"], one["display_name"]) for one in openai] == [(own, "The Model"), (alias, "The Model")]
    assert "alias_target" not in openai[0] and openai[1]["alias_target"] == {"slug": own, "name": "The Model"}
    assert openai[0]["pricing"] == openai[1]["pricing"] and openai[1]["context_length"] == 64_000
    one = server.get(token, f"/v1/models/{alias}").json()
    assert (one["id"], one["alias_target"]["slug"]) == (alias, own)

    # As Claude Code asks; it lists those that begin with “claude”.
    page = server.get(token, "/v1/models?limit=1000", **ANTHROPIC).json()
    assert [(one["id"], one["display_name"], one["max_input_tokens"]) for one in page["data"]] == [
        (own, "The Model", 64_000),
        (alias, "The Model", 64_000),
    ]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, own, alias)
    first = server.get(token, "/v1/models?limit=1", **ANTHROPIC).json()
    assert ([one["id"] for one in first["data"]], first["has_more"]) == ([own], True)
    after = server.get(token, f"/v1/models?limit=1&after_id={own}", **ANTHROPIC).json()
    assert ([one["id"] for one in after["data"]], after["has_more"]) == ([alias], False)
    before = server.get(token, f"/v1/models?limit=1&before_id={alias}", **ANTHROPIC).json()
    assert ([one["id"] for one in before["data"]], before["has_more"]) == ([own], False)
    assert server.get(token, f"/v1/models/{alias}", **ANTHROPIC).json()["id"] == alias

    gemini = server.get(token, "/v1beta/models", **{"x-goog-api-key": token}).json()["models"]
    assert [one["name"] for one in gemini] == [f"models/{own}", f"models/{alias}"]
    second = alias_of(own, f"claude-too-{own}")
    server.catch_up()
    page = server.get(token, "/v1/models?limit=1000", **ANTHROPIC).json()
    told = {one["id"]: one["display_name"] for one in page["data"]}
    assert told == {own: "The Model", alias: f"The Model ({alias})", second: f"The Model ({second})"}
    codex = server.get(token, "/v1/models?client_version=0.171.0").json()["models"]
    assert {(one["slug"], one["display_name"]) for one in codex} == {
        (own, "The Model"),
        (alias, alias),
        (second, second),
    }


def test_overrides_of_a_model_hold_for_its_aliases(live: Portal, server: Server) -> None:
    """What is held for is what is sent, whatever name the client used."""
    rule: dict[str, Any] = {"do": "set", "path": "max_tokens", "value": 500}
    own = live.model(price={"input": 0, "output": 1000}, overrides=[rule])
    channel = Model.objects.get(name=own).channels.get()
    channel.overrides = [{**rule, "models": [own]}]
    channel.save()
    alias, token = alias_of(own), live.token(live.user(balance=1000 * NANO))
    server.catch_up()
    for name in (own, alias):
        response = server.post(token, ask(name, max_tokens=5))
        assert response.status_code == 200, response.text
        assert live.record(response).reserved == 500 * NANO // 1000
        assert live.upstream.last(own).json["max_tokens"] == 500


def test_limits_and_prices_are_those_of_the_model(live: Portal, server: Server) -> None:
    own = live.model(price={"input": 0, "output": 0}, max_rpm=2)
    alias, token = alias_of(own), live.token()
    server.catch_up()
    statuses = [server.post(token, ask(name)).status_code for name in (own, alias, own, alias)]
    assert statuses == [200, 200, 429, 429]
    refused = server.post(token, ask(alias))
    from relay.models import RefusedRequest

    found = until(lambda: RefusedRequest.objects.filter(model__in=(own, alias)).first())
    assert found.model in (own, alias) and json.loads(refused.text)["error"]["code"] == "rate_limit_exceeded"
