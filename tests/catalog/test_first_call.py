"""The first command that is shown works: it is made for the token, and for a model that this token can call."""

from __future__ import annotations

import html
import json
import re
import shlex
from typing import Any

import pytest

from portal.clients.offered import chat_models
from portal.clients.target import chosen
from relay.catalog.first_call import FirstCall, choose_call, curl
from relay.catalog.offers import usable_offers
from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPrice
from relay.tokens.lifecycle import create_token
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def offer(name: str, channel: Channel | None, priced: bool = True, **more: Any) -> Model:
    model = Model.objects.create(name=name, is_open=True, **more)
    if channel is not None:
        ChannelModel.objects.create(channel=channel, model=model)
    if priced:
        ModelPrice.objects.create(model=model, input=1, output=1)
    return model


@pytest.fixture
def channel(db: None) -> Channel:
    made = Channel.objects.create(name="c", provider="openai")
    key = ApiKey(channel=made)
    key.set_secret("sk-0123456789abcdef")
    key.save()
    return made


def test_the_demo_is_the_last_choice(channel: Channel, people: People) -> None:
    """Of the page of apps, of the playground, and of `connect`."""
    demo = offer("demo", Channel.objects.create(name="d", provider="demo"), abilities=["chat"])
    found = usable_offers(people.owner)
    assert [(one.model.name, one.is_demo) for one in found] == [("demo", True)]
    assert choose_call(found) == FirstCall("chat", "demo"), "where there is no other"
    create_token(people.owner, "mine", actor=None)
    offer("zephyr", channel)
    found = usable_offers(people.owner)
    assert choose_call(found) == FirstCall("chat", "zephyr") and choose_call(found, wanted="demo").model == "demo"  # type: ignore[union-attr]
    assert chosen("http://x", "sk-x", chat_models(found)).model == "zephyr"
    listed = signed_in(people.owner).get("/playground/").context["models"]
    assert [model["name"] for model in listed] == ["zephyr", "demo"]
    ChannelModel.objects.create(channel=channel, model=demo)
    assert not any(one.is_demo for one in usable_offers(people.owner)), "a real upstream serves it, too"


@pytest.fixture
def models(channel: Channel) -> None:
    offer("a-not-priced", channel, priced=False)
    offer("a-not-served", None)
    offer("a-unknown", channel)
    offer("dall-e-3", channel)
    offer("gpt-4o-mini", channel)
    offer("sora-2", channel)
    offer("text-embedding-3-small", channel)
    offer("zz-painter", channel, abilities=["image_generation"])


CALLS = {
    "": FirstCall("chat", "gpt-4o-mini"),
    "chat": FirstCall("chat", "gpt-4o-mini"),
    "images": FirstCall("image_generation", "dall-e-3"),
    "audio": FirstCall("speech", "a-unknown"),
    "tasks": None,
}


@pytest.mark.parametrize("purpose", CALLS)
def test_it_fits_the_purpose_and_the_price(models: None, people: People, purpose: str) -> None:
    token = create_token(people.owner, "t", actor=None, purpose=purpose)[0]
    assert choose_call(usable_offers(people.owner, token), purpose) == CALLS[purpose]


def test_it_fits_what_the_token_is_limited_to(models: None, people: People) -> None:
    token = create_token(people.owner, "t", actor=None, models_allowed=[Model.objects.get(name="zz-painter")])[0]
    assert choose_call(usable_offers(people.owner, token)) == FirstCall("image_generation", "zz-painter")
    token = create_token(people.owner, "t", actor=None, models_allowed=[Model.objects.get(name="a-not-priced")])[0]
    assert choose_call(usable_offers(people.owner, token)) is None


@pytest.mark.parametrize("purpose", CALLS)
def test_the_page_of_a_new_token_shows_it(models: None, people: People, purpose: str) -> None:
    page = signed_in(people.owner).post("/tokens/new/", {"name": "t", "purpose": purpose}).content.decode()
    found = re.search(r'<pre id="snippet-curl"[^>]*>([^<]*)</pre>', page)
    wanted = CALLS[purpose]
    if wanted is None:
        assert found is None and "not served by this version" in page
        return
    assert found is not None
    words = shlex.split(html.unescape(found[1]).replace("\\\n", " "))
    body = json.loads(words[-1])
    paths = {"chat": "/chat/completions", "image_generation": "/images/generations", "speech": "/audio/speech"}
    assert body["model"] == wanted.model and any(word.endswith(paths[wanted.kind]) for word in words)
    assert any(word.startswith("Authorization: Bearer sk-") and "…" not in word for word in words)


def test_nothing_to_call_is_said(people: People) -> None:
    page = signed_in(people.owner).post("/tokens/new/", {"name": "t"}).content.decode()
    assert "no model that this token can call" in page and "snippet-curl" not in page
    assert "no model that you can call" in signed_in(people.owner).get("/connect/").content.decode()


def test_the_page_of_apps_follows_the_model(models: None, people: People) -> None:
    client = signed_in(people.owner)
    page = client.get("/connect/").content.decode()
    assert "gpt-4o-mini" in page and "$1.00 in" in page and "a-not-priced" not in page and "a-not-served" not in page
    page = client.get("/connect/?model=dall-e-3").content.decode()
    assert "/images/generations" in page and "/chat/completions" not in page


@pytest.mark.parametrize("name", ["it's", 'a"b', "a/b:c", "模型"])
def test_commands_survive_any_name(name: str) -> None:
    for kind in ("chat", "image_generation", "embeddings", "speech", "transcription", "moderation", "rerank"):
        words = shlex.split(curl("http://x/v1", "sk-1", FirstCall(kind, name)).replace("\\\n", " "))
        assert words[0] == "curl" and (f"model={name}" in words or json.loads(words[-1])["model"] == name)
