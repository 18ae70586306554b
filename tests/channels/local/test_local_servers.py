"""Servers of models on this machine are found by their own answers, and become channels by one click."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.db.models import Value
from django.db.models.functions import Concat

from accounts.models import AuditEvent, User
from portal.lib import clock
from relay.channels.local import servers
from relay.channels.local.offers import add_channel, offered_servers
from relay.channels.local.servers import LocalServer, local_servers
from relay.models import AllowedUpstream, Channel, Model, ModelPrice, Token
from tests.support.peers.local import servers as peers
from tests.support.server import Server
from tests.support.sessions import clerk, signed_in, with_config

GUIDE = "/admin/setup/channel/"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """No port of this machine is asked, and nothing remembered, but what a test says."""
    monkeypatch.setattr(servers, "PORTS", ())
    monkeypatch.setattr(servers, "_found", (0.0, frozenset(), ()))
    monkeypatch.setattr(servers, "_SECONDS", 30.0)  # the machine of a test may be busy
    monkeypatch.setattr(servers, "_ALL_SECONDS", 60.0)
    with_config(settings, upstream_allow=[])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts servers, and has their ports asked."""
    with ExitStack() as stack:

        def start(*answers: peers.Answers) -> list[int]:
            ports = [stack.enter_context(peers.serving(one)) for one in answers]
            monkeypatch.setattr(servers, "PORTS", (*servers.PORTS, *ports))
            return ports

        yield start


def test_each_server_is_known_by_its_answers(run: Any) -> None:
    ports = run(peers.OLLAMA, peers.LM_STUDIO_0_3, peers.LM_STUDIO, peers.LLAMA_CPP, peers.VLLM)
    found = {server.port: (server.provider, server.models) for server in local_servers((), fresh=True)}
    assert found == {
        ports[0]: ("ollama", (("gemma3:latest", ""), ("llama3.2:3b", ""))),
        ports[1]: ("lmstudio", (("qwen2-vl-7b-instruct", ""),)),
        ports[2]: ("lmstudio", (("google/gemma-3-4b", ""),)),
        ports[3]: ("llamacpp", (("Qwen3-4B-Q4_K_M", "/models/Qwen3-4B-Q4_K_M.gguf"),)),
        ports[4]: ("vllm", (("facebook/opt-125m", ""),)),
    }


@pytest.mark.parametrize(
    "answers",
    [
        {"/v1/models": (401, {"error": {"message": "no"}})},
        {"/v1/models": (200, peers.listed("llamacpp", "m"))},
        {"/v1/models": (200, peers.listed("vllm", "m")), "/version": (200, {"version": 3})},
        {"/v1/models": (200, peers.listed("vllm", "m")), "/props": (200, {"build_info": "b1"})},
        {"/v1/models": (200, peers.listed("library", "m")), "/api/tags": (200, {"models": [{"name": "m"}]})},
        {**peers.OLLAMA, "/api/tags": (200, {"models": []})},
        {**peers.LM_STUDIO, "/api/v1/models": (200, {"models": []})},
        {"/v1/models": (200, b"<html>")},
        {"/v1/models": (200, b'{"data": [' + b'{"id":"m"},' * 300_000 + b"]}")},
        {"/v1/models": (200, {"data": "x"})},
        {},
        {"/v1/models": (200, {"data": [{"id": "m", "owned_by": ["vllm"]}, {"id": {}, "owned_by": {}}]})},
        {"/v1/models": (200, {"data": []}), "/version": (200, {"version": "1"})},
    ],
    ids=range(13),
)
def test_what_is_none_of_them_or_has_no_model_is_not_offered(run: Any, answers: peers.Answers) -> None:
    run(answers)
    assert local_servers((), fresh=True) == ()


def test_a_portal_is_no_server_of_models(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PORTS", (server.port,))
    assert local_servers((), fresh=True) == ()


def test_own_ports_are_not_asked_and_a_silent_one_does_not_hold_the_page(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = run(peers.OLLAMA)
    assert local_servers({port}, fresh=True) == ()
    monkeypatch.setattr(servers, "_SECONDS", 3.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(servers, "PORTS", (silent.getsockname()[1], 1, port))
        assert [server.port for server in local_servers((), fresh=True)] == [port]


def test_what_was_found_is_believed_for_a_while(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = run(peers.VLLM)
    assert len(local_servers(())) == 1
    monkeypatch.setattr(servers, "PORTS", ())
    assert len(local_servers(())) == 1 and local_servers({port}) == () and local_servers((), fresh=True) == ()


def test_names_that_no_model_can_have_are_left_out() -> None:
    names = ["a b", "x" * 121, "", "nul\x00", "\x1b[2J", "C:\\models\\one.gguf", "/other/one.gguf", "two"]
    assert servers._pairs(names) == (("one", "C:\\models\\one.gguf"), ("two", ""))


# -- one click -------------------------------------------------------------------------------------------------------


@pytest.fixture
def solo(db: None) -> Any:
    return User.objects.create_superuser("solo", password="a long password")


def test_one_click_is_all_that_a_person_alone_needs(run: Any, solo: Any) -> None:
    (port,) = run(peers.LLAMA_CPP)
    client = signed_in(solo)
    for page in ("/admin/", GUIDE):
        text = client.get(page).content.decode()
        assert "Found on this machine" in text and f"127.0.0.1:{port}" in text and "Qwen3-4B-Q4_K_M" in text
    answer = client.post(GUIDE, {"local": str(port)})
    channel = Channel.objects.get()
    assert answer.status_code == 302 and answer["location"] == f"/admin/setup/test/?channel={channel.pk}"
    assert (channel.provider, channel.base_url) == ("llamacpp", f"http://127.0.0.1:{port}/v1")
    model = Model.objects.get()
    assert (model.name, model.is_open) == ("Qwen3-4B-Q4_K_M", True)
    assert channel.served.get().upstream_name == "/models/Qwen3-4B-Q4_K_M.gguf"
    assert (model.prices.get().input, model.prices.get().output) == (0, 0)
    assert AllowedUpstream.objects.get().address == f"127.0.0.1:{port}"
    actions = set(AuditEvent.objects.values_list("action", flat=True))
    assert {"channel.add", "channel.add-models", "allowedupstream.add", "price.create"} <= actions
    assert "Found on this machine" not in client.get(GUIDE).content.decode(), "it is a channel now"
    assert client.post(GUIDE, {"local": str(port)}).status_code == 200 and Channel.objects.count() == 1


def test_a_server_that_was_started_meanwhile_is_found_by_looking_again(run: Any, solo: Any) -> None:
    client = signed_in(solo)
    for page in ("/admin/", GUIDE):
        text = client.get(page).content.decode()
        assert "Models on this machine" in text and "Look again" in text and "Found on this machine" not in text
    (port,) = run(peers.OLLAMA)
    assert "Found on this machine" not in client.get("/admin/").content.decode(), "it was looked half a minute ago"
    answer = client.post(GUIDE, {"look": "overview"})
    assert (answer.status_code, answer["location"]) == (302, "/admin/")
    text = client.get("/admin/").content.decode()
    assert "1 server was found on this machine." in text and f"127.0.0.1:{port}" in text
    client.post(GUIDE, {"local": str(port)})
    answer = client.post(GUIDE, {"look": "step"}, follow=True)
    assert answer.redirect_chain == [(GUIDE, 302)]
    assert "No server was found that you can add." in answer.content.decode()
    assert "Look again" not in client.get(f"{GUIDE}?channel={Channel.objects.get().pk}").content.decode()


def test_who_may_look_again(run: Any, solo: Any) -> None:
    run(peers.VLLM)
    rights = ("add_channel", "add_model", "add_channelmodel", "add_modelprice", "view_channel", "view_usagerecord")
    staff = clerk(*rights)
    assert "Look again" not in staff.get(GUIDE).content.decode(), "a superuser allows addresses"
    answer = staff.post(GUIDE, {"look": "step"}, follow=True).content.decode()
    assert "No server was found that you can add." in answer and "was found on this machine" not in answer
    User.objects.update(username=Concat(Value("former-"), "username"))
    assert clerk("add_channel").post(GUIDE, {"look": "step"}).status_code == 403
    user = signed_in(User.objects.create_user("user"))
    assert "/admin/login/" in user.post(GUIDE, {"look": "step"})["location"]


def test_vendors_with_an_address_of_their_own_keep_it(solo: Any) -> None:
    channel = add_channel(LocalServer("ollama", 11434, (("m", ""),)), solo, None)
    assert channel.base_url == "" and channel.name == "Ollama"
    again = add_channel(LocalServer("ollama", 8000, (("m", ""),)), solo, None)
    assert again.base_url == "http://127.0.0.1:8000/v1" and again.name == "Ollama (2)"
    assert ModelPrice.objects.count() == 1, "a model that has a price keeps it"


def test_where_others_use_the_portal_nothing_is_opened_to_them(solo: Any) -> None:
    User.objects.create_user("other")
    add_channel(LocalServer("ollama", 11434, (("m", ""),)), solo, None)
    assert not Model.objects.get().is_open


def test_a_server_that_a_channel_uses_is_not_offered(run: Any, db: None) -> None:
    (port,) = run(peers.VLLM)
    assert [server.port for server in offered_servers(())] == [port]
    channel = Channel.objects.create(name="mine", provider="vllm", base_url=f"http://localhost:{port}/v1")
    assert offered_servers(()) == []
    Channel.objects.filter(pk=channel.pk).update(base_url=f"http://10.0.0.1:{port}/v1")
    assert [server.port for server in offered_servers(())] == [port]


def test_who_may_add_one(run: Any, solo: Any, settings: Any) -> None:
    (port,) = run(peers.VLLM)
    rights = ("add_channel", "add_model", "add_channelmodel", "add_modelprice", "view_channel", "view_usagerecord")
    staff = clerk(*rights)
    assert "Found on this machine" not in staff.get(GUIDE).content.decode(), "its address is a superuser's to allow"
    assert staff.post(GUIDE, {"local": str(port)}).status_code == 403
    User.objects.update(username=Concat(Value("former-"), "username"))
    assert clerk("add_channel").post(GUIDE, {"local": str(port)}).status_code == 403
    assert not Channel.objects.exists() and not AllowedUpstream.objects.exists()
    User.objects.update(username=Concat(Value("former-"), "username"))
    with_config(settings, upstream_allow=[f"127.0.0.1:{port}"])
    staff = clerk(*rights)
    assert "Found on this machine" in staff.get(GUIDE).content.decode()
    assert staff.post(GUIDE, {"local": str(port)}).status_code == 302
    assert Channel.objects.count() == 1 and not AllowedUpstream.objects.exists()
    user = signed_in(User.objects.create_user("user"))
    assert user.post(GUIDE, {"local": str(port)}).status_code == 302 and Channel.objects.count() == 1


@pytest.mark.parametrize("value", ["", "x", "-1", "22", "99999999999999999999"])
def test_no_other_port_can_be_named(run: Any, solo: Any, value: str) -> None:
    run(peers.VLLM)
    page = signed_in(solo).post(GUIDE, {"local": value})
    assert page.status_code == 200 and not Channel.objects.exists()


def test_two_clicks_at_once_make_one_channel(run: Any, solo: Any) -> None:
    (port,) = run(peers.VLLM)
    client = signed_in(solo)
    for _ in range(2):
        client.post(GUIDE, {"local": str(port)})
    assert Channel.objects.count() == 1


def test_a_token_that_no_app_can_use_is_none(solo: Any) -> None:
    client = signed_in(solo)
    assert "create a token" in client.get("/admin/").content.decode()
    token = Token(user=solo, name="mine")
    token.set_secret("sk-" + "x" * 48)
    token.save()
    assert "create a token" not in client.get("/admin/").content.decode()
    from relay.admin.channels.guide.views import step_progress

    assert step_progress(None)["token"] and step_progress(None)["user"]
    Token.objects.update(expires_at=clock.now())
    assert not step_progress(None)["token"]
