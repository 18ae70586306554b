"""The list of models."""

from __future__ import annotations

import pytest

from tests.support.portal import Portal
from tests.support.server import Server


def test_models_tell_their_window_abilities_and_price(live: Portal, server: Server) -> None:
    from accounts.models import GroupSettings
    from relay.models import Model

    name = live.model(price={"input": "2.5", "output": 10, "cached_input": "0.25", "per_image": "0.04"})
    row = Model.objects.get(name=name)
    row.context_window, row.max_output_tokens, row.abilities = 128_000, 16_000, ["chat", "vision"]
    row.save()
    user = live.user()
    found = server.get(live.token(user), f"/v1/models/{name}").json()
    assert (found["context_window"], found["max_output_tokens"], found["abilities"]) == (
        128_000,
        16_000,
        ["chat", "vision"],
    )
    assert found["pricing"] == {
        "currency": "USD",
        "tokens_per": "1000000",
        "input": "2.5",
        "output": "10",
        "cached_input": "0.25",
        "per_image": "0.04",
    }
    from django.contrib.auth.models import Group

    group = Group.objects.create(name=live.name("half"))
    GroupSettings.objects.update_or_create(group=group, defaults={"price_multiplier": "0.5"})
    user.groups.add(group)
    assert server.get(live.token(user), f"/v1/models/{name}").json()["pricing"]["input"] == "1.25"


@pytest.mark.parametrize("path", ["/v1/models/a/b/c", "/v1/models/openai%2Fgpt-x"])
def test_a_model_that_is_not_there(live: Portal, server: Server, path: str) -> None:
    assert server.get(live.token(), path).json()["error"]["code"] == "model_not_found"
