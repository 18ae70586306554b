"""The set-up guide: a wrong address is understood, corrected and gone back to; one person alone can finish it."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.test import Client

from accounts.models import AuditEvent, User
from relay.models import AllowedUpstream, ApiKey, Channel, ChannelModel, Model, ModelPrice
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


class _Relay(BaseHTTPRequestHandler):
    """A relay as one-api and new-api are: pages at every address but those of its API, which is below `root`."""

    root = "/v1"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body, kind, status = b"<!doctype html><title>Relay</title>", "text/html", 200
        if self.path == f"{self.root}/models":
            body, kind = b'{"object":"list","data":[{"id":"gpt-4o-mini"},{"id":"x","context_length":4096}]}', "a/json"
        elif self.path == f"{self.root}/chat/completions":
            body, kind = (
                b'{"id":"1","object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"stop",'
                b'"message":{"role":"assistant","content":"OK"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}',
                "application/json",
            )
        elif self.path.startswith("/v1/"):
            status, kind = 404, "application/json"
            body = b'{"error":{"message":"Invalid URL (POST %s)","type":"invalid_request_error"}}' % self.path.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(params=["/v1", ""])
def relay(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Host and port of a relay, and the path of its API."""
    handler = type("Handler", (_Relay,), {"root": request.param})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", request.param
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def local(db: None) -> None:
    AllowedUpstream.objects.create(address="127.0.0.1")


FORMS = ("http://{}", "http://{}/", "http://{}/v1", "http://{}/v1/", "http://{}/v1/chat/completions", "{}", "{}/v1/")


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_address_ends_in_a_test_that_passes(staff: Client, relay: tuple[str, str], form: str) -> None:
    host, root = relay
    page = staff.post(
        "/admin/setup/channel/", {"provider": "relay", "name": "r", "base_url": form.format(host)}, follow=True
    ).content.decode()
    channel = Channel.objects.get(name="r")
    assert channel.base_url == f"http://{host}/v1"
    assert ("was completed to" in page) == (form not in {"http://{}/v1", "http://{}/v1/"})
    key = ApiKey(channel=channel)
    key.set_secret("sk-0123456789abcdef")
    key.save()
    page = staff.get(f"/admin/setup/models/?channel={channel.pk}").content.decode()
    assert "gpt-4o-mini" in page and ("This list is from" in page) == (not root)
    page = staff.post(
        "/admin/setup/models/", {"channel": channel.pk, "name": ["gpt-4o-mini", "x"]}, follow=True
    ).content.decode()
    channel.refresh_from_db()
    assert channel.base_url == f"http://{host}{root}" and ("where no API answers" in page) == (not root)
    assert Model.objects.get(name="gpt-4o-mini").abilities[0] == "chat"
    assert Model.objects.get(name="gpt-4o-mini").context_window == 128_000
    assert Model.objects.get(name="x").context_window == 4096
    page = staff.post("/admin/setup/test/", {"channel": channel.pk}, follow=True).content.decode()
    assert "Answered in" in page


@pytest.mark.usefixtures("local")
def test_a_test_corrects_the_address_of_a_channel_that_is_there(staff: Client, relay: tuple[str, str]) -> None:
    host, root = relay
    wrong = f"http://{host}/v1/chat/completions" if root else f"http://{host}/v1"
    channel = Channel.objects.create(name="old", provider="relay", base_url=wrong)
    key = ApiKey(channel=channel)
    key.set_secret("sk-0123456789abcdef")
    key.save()
    ChannelModel.objects.create(channel=channel, model=Model.objects.create(name="m"))
    page = staff.post(f"/admin/relay/channel/{channel.pk}/test/", follow=True).content.decode()
    channel.refresh_from_db()
    assert channel.base_url == f"http://{host}{root}" and channel.test_ok, channel.test_message
    assert f"it is http://{host}{root} now" in page
    assert AuditEvent.objects.filter(action="channel.change", target_id=str(channel.pk)).exists()


@pytest.mark.usefixtures("local")
def test_a_scheduled_check_changes_no_address(relay: tuple[str, str]) -> None:
    from relay.channels.health_checks import test_channel as run_test

    wrong = f"http://{relay[0]}/wrong"
    channel = Channel.objects.create(name="old", provider="relay", base_url=wrong)
    key = ApiKey(channel=channel)
    key.set_secret("sk-0123456789abcdef")
    key.save()
    ChannelModel.objects.create(channel=channel, model=Model.objects.create(name="m"))
    result = run_test(channel, None)
    assert not result.ok and "web page" in result.message and channel.base_url == wrong


@pytest.mark.usefixtures("local")
def test_the_guide_goes_back_and_corrects(staff: Client) -> None:
    channel = Channel.objects.create(name="Mine", provider="relay", base_url="http://127.0.0.1:9/v1")
    key = ApiKey(channel=channel)
    key.set_secret("sk-0123456789abcdef")
    key.save()
    url = f"/admin/setup/channel/?channel={channel.pk}"
    page = staff.get(url).content.decode()
    assert 'value="http://127.0.0.1:9/v1"' in page and 'value="Mine"' in page and "Add another channel" in page
    assert re.search(r'<option value="relay"[^>]* selected>', page), "its vendor, not the first of the list"
    form = {"provider": "relay", "name": "Mine", "base_url": "http://127.0.0.1:9/api", "channel": channel.pk}
    assert staff.post(url, form).status_code == 302
    channel.refresh_from_db()
    assert channel.base_url == "http://127.0.0.1:9/api" and Channel.objects.filter(provider="relay").count() == 1
    assert channel.keys.count() == 1
    page = staff.post(url, {**form, "base_url": "http://127.0.0.1:10/v1"}, follow=True).content.decode()
    assert "does not get the 1 key of the old one" in page, "a key goes to its own server only"
    other = {"provider": "relay", "name": "Another", "base_url": "http://127.0.0.1:9/v1"}
    assert staff.post("/admin/setup/channel/", other).status_code == 302
    assert Channel.objects.filter(provider="relay").count() == 2
    Channel.objects.filter(pk=channel.pk).update(test_ok=False, test_message="x", tested_at="2026-01-01T00:00:00Z")
    page = staff.get(f"/admin/setup/test/?channel={channel.pk}").content.decode()
    assert f'href="{url}"' in page, "a failed test leads back to the channel"


@pytest.mark.parametrize("url", ["/admin/setup/channel/", "/admin/relay/channel/add/"])
def test_a_superuser_allows_a_local_address_in_place(staff: Client, url: str) -> None:
    form = {
        **{f"{inline}-{name}_FORMS": 0 for inline in ("keys", "served") for name in ("TOTAL", "INITIAL", "MIN_NUM")},
        "provider": "ollama",
        "name": "Ollama",
        "base_url": "192.168.7.7:11434",
        "priority": 0,
        "weight": 1,
        "cost_multiplier": 1,
        "key_strategy": "random",
        "disconnect_policy": "delivered",
        "retry_unanswered": "broken",
    }
    refused = html.unescape(staff.post(url, form).content.decode())
    assert 'name="allow_address" value="192.168.7.7:11434"' in refused, refused[:3000]
    assert not AllowedUpstream.objects.exists() and not Channel.objects.filter(name="Ollama").exists()
    assert staff.post(url, {**form, "allow_address": "10.0.0.1:1"}).status_code == 200
    assert not AllowedUpstream.objects.exists(), "only the address that is asked about"
    saved = staff.post(url, {**form, "allow_address": "192.168.7.7:11434"})
    assert saved.status_code == 302, saved.content.decode()[:3000]
    assert AllowedUpstream.objects.get().address == "192.168.7.7:11434" and Channel.objects.get(name="Ollama")
    assert AuditEvent.objects.filter(action="allowedupstream.add").exists()


def test_only_a_superuser_allows_addresses(db: None) -> None:
    from django.contrib.auth.models import Permission

    clerk = User.objects.create_user("operator", password="a long password", is_staff=True)
    clerk.user_permissions.set(
        Permission.objects.filter(codename__in=["add_channel", "change_channel", "view_channel"])
    )
    entry = "192.168.7.7:11434"
    form = {"provider": "ollama", "name": "Ollama", "base_url": f"http://{entry}/v1", "allow_address": entry}
    page = signed_in(clerk).post("/admin/setup/channel/", form).content.decode()
    assert "A superuser can allow it" in page and "allow_address" not in page
    assert not AllowedUpstream.objects.exists()


@pytest.fixture
def ollama(local: None) -> Channel:
    channel = Channel.objects.create(name="Ollama", provider="ollama")
    for name in ("llama3", "dall-e-3"):
        ChannelModel.objects.create(channel=channel, model=Model.objects.create(name=name))
    return channel


def test_models_without_a_price_are_told_and_made_free(staff: Client, ollama: Channel) -> None:
    url = "/admin/setup/prices/"
    page = staff.get(f"{url}?channel={ollama.pk}").content.decode()
    assert "2 models have no price" in page and page.count('value="0"') == 4, "zero is offered on a server of one's own"
    kept = staff.post(url, {"channel": ollama.pk})
    assert kept.status_code == 200 and "2 models have no price" in kept.content.decode()
    llama, painter = (Model.objects.get(name=name) for name in ("llama3", "dall-e-3"))
    page = staff.post(url, {"channel": ollama.pk, f"per_image-{painter.pk}": "0.04"}).content.decode()
    assert painter.prices.get().per_image is not None and "llama3" in page and "1 model has no price" in page
    half = staff.post(url, {"channel": ollama.pk, f"input-{llama.pk}": "1"}).content.decode()
    assert "Type a price, too" in half and not llama.prices.exists()
    assert staff.post(url, {"channel": ollama.pk, "free": "1"}).status_code == 302
    assert llama.prices.get().input == 0 and painter.prices.count() == 1
    assert ModelPrice.objects.count() == 2


def test_models_are_made_free_from_the_list(staff: Client, ollama: Channel) -> None:
    page = staff.get("/admin/relay/model/?state=unpriced").content.decode()
    assert "llama3" in page
    chosen = {"action": "make_free", "_selected_action": list(Model.objects.values_list("pk", flat=True))}
    staff.post("/admin/relay/model/", chosen)
    assert all(model.prices.get().input == 0 for model in ollama.models.all())
    assert "llama3" not in staff.get("/admin/relay/model/?state=unpriced").content.decode().split("result_list")[-1]


def test_one_person_alone_finishes_the_guide(db: None, ollama: Channel) -> None:
    me = User.objects.create_superuser("solo", password="a long password")
    client = signed_in(me)
    Channel.objects.filter(pk=ollama.pk).update(test_ok=True)
    Model.objects.update(is_open=True)
    for model in Model.objects.all():
        ModelPrice.objects.create(model=model, input=0, output=0)
    page = client.get("/admin/").content.decode()
    assert "No app can use the portal yet" in page and "create accounts" not in page
    page = client.get(f"/admin/setup/user/?channel={ollama.pk}").content.decode()
    assert "Go on with yourself" in page and f"user={me.pk}" in page
    made = client.post(f"/admin/setup/token/?channel={ollama.pk}", {"user": me.pk, "name": "mine"})
    page = html.unescape(made.content.decode())
    assert "The portal is ready." in page and '"model": "llama3"' in page and "/v1/chat/completions" in page
    assert "No app can use the portal yet" not in client.get("/admin/").content.decode()


def test_https_typed_for_a_plain_server_is_understood(staff: Client, relay: tuple[str, str]) -> None:
    host, root = relay
    AllowedUpstream.objects.create(address=host)
    channel = Channel.objects.create(name="plain", provider="openai", base_url=f"https://{host}{root}")
    page = html.unescape(staff.get(f"/admin/setup/models/?channel={channel.pk}").content.decode())
    assert "This address speaks plain HTTP, not HTTPS" in page and "SSL" not in page


def test_the_guide_takes_names_as_the_channels_own_form_does(staff: Client) -> None:
    channel = Channel.objects.create(name="c", provider="openai", base_url="http://127.0.0.1:9/v1")
    path = "/admin/setup/models/"
    for wrong in ("two words", "a b = c", "= c"):
        answer = staff.post(path, {"channel": channel.pk, "typed": wrong})
        assert "is not a model name" in answer.content.decode() and wrong in html.unescape(answer.content.decode())
    assert staff.post(path, {"channel": channel.pk, "typed": "big = gpt-4o\nsmall"}).status_code == 302
    served = channel.served.values_list("model__name", "upstream_name")
    assert set(served) == {("big", "gpt-4o"), ("small", "")}


def test_a_failed_test_in_the_guide_is_said_once(staff: Client) -> None:
    channel = Channel.objects.create(name="c", provider="openai", base_url="http://127.0.0.1:9/v1")
    path = f"/admin/setup/test/?channel={channel.pk}"
    page = html.unescape(staff.post(path, {"channel": channel.pk}).content.decode())
    channel.refresh_from_db()
    assert channel.test_message and page.count(channel.test_message) == 1
    assert "Add models" in page and f"/admin/setup/models/?channel={channel.pk}" in page


def test_keys_are_listed_under_the_numbers_by_which_tests_name_them(staff: Client) -> None:
    channel = Channel.objects.create(name="c", provider="openai", base_url="http://127.0.0.1:9/v1")
    key = ApiKey(channel=channel)
    key.set_secret("sk-secret-0123456789abcdef")
    key.save()
    for path in (f"/admin/relay/channel/{channel.pk}/change/", "/admin/relay/apikey/"):
        assert f"{key.public_name} <code>{key.hint}</code>" in html.unescape(staff.get(path).content.decode()), path


def test_whoever_moves_in_is_told_of_the_importer_before_there_is_a_channel(staff: Client) -> None:
    Channel.objects.all().delete()
    assert "airelays import --help" in staff.get("/admin/setup/channel/").content.decode()
    channel = Channel.objects.create(name="c", provider="openai")
    assert "airelays import" not in staff.get(f"/admin/setup/channel/?channel={channel.pk}").content.decode()
