"""What a valid token may use: models, families of models, channels of a group, kinds of endpoint."""

from __future__ import annotations

from datetime import timedelta

import pytest

from portal.lib import clock
from relay.models import Model, ModelPermission, Token
from relay.models.token import digest_of
from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, completion

pytestmark = pytest.mark.shared


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


@pytest.mark.parametrize(
    ("purpose", "path", "allowed"),
    [
        ("chat", "/v1/chat/completions", True),
        ("chat", "/v1/embeddings", True),
        ("chat", "/v1/images/generations", False),
        ("images", "/v1/chat/completions", False),
        ("audio", "/v1/audio/speech", True),
        ("audio", "/v1/chat/completions", False),
        ("tasks", "/v1/chat/completions", False),
        ("", "/v1/chat/completions", True),
    ],
)
def test_a_token_opens_what_it_is_for(live: Portal, server: Server, purpose: str, path: str, allowed: bool) -> None:
    model, token = live.model(), live.token(purpose=purpose)
    body = {
        "model": model,
        "input": "x",
        "prompt": "x",
        "voice": "alloy",
        "messages": [{"role": "user", "content": "x"}],
    }
    answer = server.post(token, body, path)
    code = (
        answer.json().get("error", {}).get("code")
        if answer.headers["content-type"].startswith("application/json")
        else None
    )
    assert (code != "purpose_not_allowed") is allowed, answer.text
    if not allowed:
        assert answer.status_code == 403 and answer.json()["error"]["type"] == "permission_error"
    assert server.get(token, "/v1/models").status_code == 200 and server.get(token, "/v1/usage").status_code == 200


def test_a_family_of_models_serves_every_name_that_fits(live: Portal, server: Server) -> None:
    seen: list[str] = []

    async def say(call: Call) -> None:
        seen.append(call.json["model"])
        await call.reply(200, completion())

    prefix = live.name("gpt-4-gizmo-family") + "-"
    channel = live.channel()
    model = Model.objects.get(name=live.model(channels=[channel], price={"input": 1, "output": 2}))
    model.name = prefix + "*"
    model.save()
    live.upstream.script(f"{prefix}g-abc", say)
    token = live.token()
    answer = server.post(token, ask(f"{prefix}g-abc"))
    assert answer.status_code == 200 and seen == [f"{prefix}g-abc"], answer.text
    record = live.record(answer)
    assert record.model == f"{prefix}g-abc" and record.cost > 0, (
        "at the family's price, under the name that was asked for"
    )
    found = server.get(token, f"/v1/models/{prefix}g-abc").json()
    assert found["id"] == f"{prefix}g-abc" and found["pricing"]["output"] == "2", "what can be called is there"
    assert server.get(token, f"/v1/models/{prefix}*").status_code == 404
    assert prefix + "*" not in [entry["id"] for entry in server.get(token, "/v1/models").json()["data"]]
    assert (
        server.post(token, ask(prefix)).status_code == 404
        and server.post(token, ask("other-" + prefix + "x")).status_code == 404
    )
    model.is_open = False
    model.save()
    assert server.post(token, ask(f"{prefix}g-abc")).status_code == 403
    ModelPermission.objects.create(model=model, user=Token.objects.get(digest=digest_of(token)).user)
    assert server.post(token, ask(f"{prefix}g-abc")).status_code == 200


def test_a_gpt_is_found_by_its_id_alone(live: Portal, server: Server) -> None:
    gpt = live.name("g-Gpt").replace("-", "x", 2).replace("gx", "g-", 1)
    model = Model.objects.get(name=live.model())
    model.name = f"gpt-4-gizmo-{gpt}"
    model.save()
    answer = server.post(live.token(), ask(gpt))
    assert answer.status_code == 200 and live.record(answer).model == f"gpt-4-gizmo-{gpt}"


def test_a_name_of_any_length_costs_no_more_than_a_look(server: Server, live: Portal) -> None:
    """A prefix that is repeated is taken off in one loop, and nothing is looked for under a name that is too long."""
    token, model = live.token(), live.model()
    assert server.post(token, ask("openai/" * 3 + model)).status_code == 200
    answer = server.post(token, ask("openai/" * 150_000))
    check(answer, 404, "invalid_request_error", "model_not_found", "model")
    assert len(answer.content) < 1000
    check(server.post(token, ask("g-" + "x" * 1_000_000)), 404, "invalid_request_error", "model_not_found", "model")
