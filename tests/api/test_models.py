"""The list of models."""

from __future__ import annotations

from datetime import timedelta

import pytest

from portal.lib import clock
from relay.models import ChannelModel, ModelPrice
from tests.support.portal import Portal, ask
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


def test_prices_are_those_of_the_channels_that_serve(live: Portal, server: Server) -> None:
    from relay.models import Model

    own, other = live.channel(), live.channel()
    closed, keyless = live.channel(), live.channel(keys=())
    closed.groups_limited = True
    closed.save()
    name = live.model(price={"input": 1, "output": 10}, channels=[own, closed, keyless])
    model = Model.objects.get(name=name)
    at = clock.now()
    for channel, usd, above in ((own, 7, 0), (own, 9, 100), (closed, 50, 0), (keyless, 60, 0)):
        ModelPrice.objects.create(
            model=model, channel=channel, input=usd, output=usd * 10, above_tokens=above, valid_from=at
        )
    token = live.token(live.user())
    server.catch_up()
    tiers = [{"above_tokens": 100, "input": "9", "output": "90"}]
    base = {"currency": "USD", "tokens_per": "1000000"}
    found = server.get(token, f"/v1/models/{name}").json()["pricing"]
    assert found == {**base, "input": "7", "output": "70", "tiers": tiers}
    ChannelModel.objects.create(channel=other, model=model)
    server.catch_up()
    low = {"lowest": {"input": "1", "output": "10"}}
    found = server.get(token, f"/v1/models/{name}").json()["pricing"]
    assert found == {**base, "input": "7", "output": "70", **low, "tiers": [{**tiers[0], **low}]}


@pytest.mark.parametrize("fault", ["dead", "elsewhere", "unreadable", "proxy"])
def test_what_no_key_can_call_is_not_offered(live: Portal, server: Server, fault: str) -> None:
    """In the list of models, in the catalogue and by a call alike."""
    from accounts.models import User
    from relay.catalog.offers import usable_offers
    from relay.models import ApiKey

    channel = live.channel()
    name, user = live.model(price={"input": 1, "output": 1}, channels=[channel]), live.user()
    token, owner = live.token(user), User.objects.get(pk=user.pk)
    offered = [entry.model.name for entry in usable_offers(owner)]
    assert server.get(token, f"/v1/models/{name}").status_code == 200 and name in offered
    (key,) = ApiKey.objects.filter(channel=channel)
    if fault == "dead":
        key.auto_disabled = "key_dead"
    elif fault == "elsewhere":
        key.given_for = "https://elsewhere.example.org:443"
    elif fault == "unreadable":
        key.sealed = key.sealed[:-8] + "AAAAAAA="
    else:
        channel.proxy_url = "http://10.1.2.3:3128"
        channel.save()
    key.save()
    server.catch_up()
    assert server.post(token, ask(name)).status_code in {502, 503}
    assert server.get(token, f"/v1/models/{name}").json()["error"]["code"] == "model_not_found"
    assert name not in [entry.model.name for entry in usable_offers(owner)]


@pytest.mark.parametrize("path", ["/v1/models/a/b/c", "/v1/models/openai%2Fgpt-x"])
def test_a_model_that_is_not_there(live: Portal, server: Server, path: str) -> None:
    assert server.get(live.token(), path).json()["error"]["code"] == "model_not_found"


def test_the_list_has_what_can_be_called_and_nothing_else(live: Portal, server: Server) -> None:
    from relay.models import Model

    chat, image = live.model(), live.model()
    Model.objects.filter(name=image).update(abilities=["image_generation"])
    unpriced, later = live.model(price=None), live.model(price={"valid_from": clock.now() + timedelta(hours=1)})
    unserved, keyless = live.model(channels=[]), live.model(channels=[live.channel(keys=())])
    refused = live.model(channels=[live.channel("http://10.1.2.3/v1")])
    by_channel = live.channel()
    only_there = live.model(price=None, channels=[by_channel])
    ModelPrice.objects.create(model=Model.objects.get(name=only_there), channel=by_channel, input=1, output=1)
    user = live.user()
    everything, images, tasks = (live.token(user, purpose=purpose) for purpose in ("", "images", "tasks"))
    server.catch_up()
    made = {chat, image, unpriced, later, unserved, keyless, refused, only_there}
    for token, wanted in ((everything, {chat, image, only_there}), (images, {image}), (tasks, set())):
        listed = {entry["id"] for entry in server.get(token, "/v1/models").json()["data"]} & made
        assert listed - {chat, only_there} == wanted - {chat, only_there} and (token != everything or listed == wanted)
        for name in made - listed:
            if name != only_there:
                assert server.get(token, f"/v1/models/{name}").json()["error"]["code"] == "model_not_found"
    for name in made - {image, only_there}:
        status = server.post(everything, ask(name)).status_code
        assert (status == 200) == (name == chat), name


def test_codex_gets_its_catalogue(live: Portal, server: Server) -> None:
    """With a tag, by which it is sent once while nothing changes; and only of what the token can call."""
    from relay.models import Model

    name, other, hidden = live.model(), live.model(), live.model(is_open=False)
    Model.objects.filter(name=name).update(context_window=64_000, abilities=["chat", "tools"])
    Model.objects.filter(name=other).update(abilities=["embeddings"])
    token = live.token(live.user())
    server.catch_up()
    path = "/v1/models?client_version=0.171.0"
    answer = server.get(token, path)
    found = {one["slug"]: one for one in answer.json()["models"]}
    assert found[name]["context_window"] == 64_000 and found[name]["input_modalities"] == ["text"]
    assert not {other, hidden} & set(found)
    tag = answer.headers["etag"]
    again = server.get(token, path, **{"if-none-match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    row = Model.objects.get(name=name)
    row.context_window = 128_000
    row.save()
    server.catch_up()
    changed = server.get(token, path, **{"if-none-match": tag})
    assert changed.status_code == 200 and changed.headers["etag"] != tag
    assert server.get("sk-nobody", path).status_code == 401
