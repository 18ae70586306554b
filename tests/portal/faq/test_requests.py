"""What the page says of clients, keys, and requests over a ChatGPT plan and other channels."""

from __future__ import annotations

import base64
import re
from typing import Any

import httpx
import pytest
from openai import OpenAI

from portal.config import Config
from relay.gateway.access.address_block import AddressBlock
from tests.portal.airelays.personal import Relay
from tests.portal.faq import shows
from tests.support.peers import gemini, messages
from tests.support.portal import Portal, ask
from tests.support.server import ROOT

PLATFORM_KEY = "sk-proj-of-the-environment-0123456789"
RELAY = {"OPENAI_API_KEY": PLATFORM_KEY}  # in the environment of the relay
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
LIMITS = {
    "/v1/responses": "max_output_tokens",
    "/v1/chat/completions": "max_completion_tokens",
    "/v1/completions": "max_tokens",
}


@shows(
    "Only if you give it one.",
    "`airelays login` signs in with a ChatGPT account, and requests over it carry that sign-in and no platform key.",
    "`OPENAI_API_KEY` in the environment is not read.",
    "No. The ChatGPT login is how the relay reaches OpenAI.",
)
def test_requests_over_the_plan_carry_the_sign_in_alone(relay: Relay) -> None:
    assert relay.respond().status_code == 200
    headers = relay.chatgpt.seen[-1]["headers"]
    assert headers["authorization"].removeprefix("Bearer ") in relay.chatgpt.valid
    assert relay.token not in str(headers) and PLATFORM_KEY not in str(relay.chatgpt.calls) + str(headers)


@shows("A channel of the vendor OpenAI uses the key that you enter for it.")
def test_a_channel_uses_its_own_key(relay: Relay, own: Portal) -> None:
    model = own.model(keys=("sk-entered-in-the-admin-0123456789",))
    assert relay.server.post(relay.token, ask(model)).status_code == 200
    sent = own.upstream.last(model).headers
    assert sent["authorization"] == "Bearer sk-entered-in-the-admin-0123456789" and PLATFORM_KEY not in str(sent)


@shows(
    "No. AIRelays is an independent project, and presents itself to OpenAI under its own name.",
    "Names of providers and products say what it is compatible with.",
)
def test_the_relay_presents_itself_under_its_own_name(relay: Relay) -> None:
    assert relay.chatgpt.asked["agent_name_hint"] == "AIRelays Portal"
    assert relay.respond().status_code == 200
    headers = relay.chatgpt.seen[-1]["headers"]
    assert headers["user-agent"].startswith("airelays-portal") and "originator" not in headers
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "Independent of the vendors it relays to; their names say what it is compatible with." in readme


@shows(
    "The relay token.",
    "SDKs of OpenAI take it as their `api_key` when their `base_url` is the relay's address.",
    "It is no key of OpenAI's platform and does not work there.",
    "The relay token is how your clients reach the relay.",
)
def test_the_official_client_takes_the_relay_token(relay: Relay) -> None:
    with OpenAI(base_url=relay.server.v1, api_key=relay.token, max_retries=0, timeout=30) as client:
        assert client.responses.create(model="gpt-5.5", input="Hi").output_text == "Hello Ada."
        assert "gpt-5.5" in [model.id for model in client.models.list()]
    there = httpx.post(
        f"{relay.chatgpt.url}/responses", headers={"authorization": f"Bearer {relay.token}"}, json={}, trust_env=False
    )
    assert there.status_code == 401


@shows(
    "`/v1` asks for the relay token, and a request without it, or with a wrong one, gets 401.",
    "Eight such requests from one address within five minutes block that address for fifteen minutes: 429, with "
    "`Retry-After`.",
    "The right token works all the same, and clears the count.",
    "`/healthz` always answers.",
)
def test_bad_tokens_are_401_then_429(relay: Relay, own: Portal) -> None:
    from relay.models import BlockedAddress

    def status(token: str = "") -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.get(f"{relay.server.v1}/models", headers=headers, trust_env=False, timeout=30)

    assert [status(token).status_code for token in ("", "sk-wrong") * 3] == [401] * 6
    assert status(relay.token).status_code == 200, "the count begins again"
    assert [status(token).status_code for token in ("", "sk-wrong") * 4] == [401] * 8
    blocked = status()
    assert blocked.status_code == 429 and 800 < int(blocked.headers["retry-after"]) <= 900
    assert status(relay.token).status_code == 200
    assert httpx.get(f"{relay.server.url}/healthz", trust_env=False, timeout=30).status_code == 200
    BlockedAddress.objects.all().delete()
    defaults = Config.model_fields
    window, block = (defaults[f"failed_auth_{name}_seconds"].default for name in ("window", "block"))
    assert (window, block) == (300, 900)
    late, soon = (AddressBlock(8, window, block) for _ in range(2))
    assert not any(late.failed("1.2.3.4", at).new_block for at in (0, *range(301, 308)))
    assert [soon.failed("1.2.3.4", at).new_block for at in (0, *range(293, 300))][-1]


@shows(
    "The portal is: it has users, groups and budgets.",
    "A ChatGPT login is not: it serves its owner's tokens only, and is never pooled or shared.",
)
def test_a_plan_serves_its_owner_alone(relay: Relay, own: Portal) -> None:
    from relay.models import Channel

    token = own.token(own.user(is_superuser=True))
    answer = relay.server.post(token, {"model": "gpt-5.5", "input": "Hi"}, "/v1/responses")
    assert answer.status_code == 404 and relay.chatgpt.seen == []
    assert "gpt-5.5" not in [one["id"] for one in relay.server.get(token, "/v1/models").json()["data"]]
    assert own.model() in [one["id"] for one in relay.server.get(token, "/v1/models").json()["data"]]
    assert {"accounts/user", "auth/group", "relay/budget"} <= set(_admin(relay))
    assert not Channel.objects.get(provider="chatgpt").enabled, "nothing chooses it, nothing falls back to it"


def _admin(relay: Relay) -> list[str]:
    """The lists of the admin, as its front page links them for the owner."""
    with httpx.Client(base_url=relay.server.url, trust_env=False, follow_redirects=True, timeout=30) as client:
        form = {"login": "admin", "password": relay.password}
        client.get("/accounts/login/")
        headers = {"x-csrftoken": client.cookies["csrftoken"]}
        page = client.post("/accounts/login/", data=form, headers=headers, params={"next": "/admin/"})
        return re.findall(r'href="/admin/(\w+/\w+)/"', page.text)


@shows("Yes, as upstreams and as the APIs that clients speak.")
@pytest.mark.parametrize(("vendor", "saying"), [("anthropic", messages.saying()), ("gemini", gemini.saying())])
def test_anthropic_and_gemini_are_upstreams_and_apis(relay: Relay, own: Portal, vendor: str, saying: Any) -> None:
    model = own.model(saying, channels=[own.channel(provider=vendor)])
    hello = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    for path, body in (
        ("/v1/chat/completions", ask(model)),
        ("/v1/messages", {**ask(model), "max_tokens": 50}),
        (f"/v1beta/models/{model}:generateContent", hello),
    ):
        answer = relay.server.post(relay.token, body, path)
        assert answer.status_code == 200, answer.text
    assert ("anthropic-version" in own.upstream.last(model).headers) is (vendor == "anthropic")


@shows(
    "The ChatGPT backend rejects sampling parameters such as `temperature`.",
    "They are left out, and named in `x-airelays-ignored-parameters`.",
)
@pytest.mark.parametrize("path", LIMITS)
def test_sampling_parameters_are_left_out_and_named(relay: Relay, path: str) -> None:
    assert relay.chatgpt.refusal({"temperature": 0.5}, older=False) == "Unsupported parameter: temperature"
    answer = relay.respond(path, temperature=0.5, top_p=0.9)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-airelays-ignored-parameters"].split(",") == ["temperature", "top_p"]
    assert not {"temperature", "top_p"} & relay.sent.keys()


@shows(
    "The ChatGPT backend does not accept them: `max_output_tokens` on `/v1/responses`, `max_completion_tokens` on "
    "`/v1/chat/completions`, `max_tokens` on `/v1/completions`."
)
@pytest.mark.parametrize(("path", "name"), LIMITS.items())
def test_limits_of_the_output_are_refused(relay: Relay, path: str, name: str) -> None:
    answer = relay.respond(path, **{name: 50})
    assert answer.status_code == 422 and answer.json()["error"]["param"] == name
    assert relay.chatgpt.seen == []


@shows("`max_tokens` on `/v1/chat/completions`, which many clients always send, is left out and named.")
def test_max_tokens_of_chat_is_left_out(relay: Relay) -> None:
    answer = relay.respond("/v1/chat/completions", max_tokens=50)
    assert answer.status_code == 200 and answer.headers["x-airelays-ignored-parameters"] == "max_tokens"
    assert not {"max_tokens", "max_output_tokens"} & relay.sent.keys()


@shows("Channels of other vendors take them as usual.")
def test_other_channels_take_limits_of_the_output(relay: Relay, own: Portal) -> None:
    model = own.model()
    assert relay.server.post(relay.token, ask(model, max_completion_tokens=50)).status_code == 200
    assert own.upstream.last(model).json["max_completion_tokens"] == 50


@shows(
    "An `input_file` may have a `file_url`, a data URL in `file_data`, Base64 in `file_data` with a `filename` that "
    "tells the type, or the `file_id` of a file uploaded to `/v1/files`.",
    "A `file_id` is sent to the ChatGPT backend as the file's content: of an image as an image.",
)
def test_files_come_in_four_forms(relay: Relay) -> None:
    def sent_for(**part: Any) -> dict[str, Any]:
        answer = relay.respond(input=[{"role": "user", "content": [part]}])
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = relay.sent["input"][0]["content"][0]
        return found

    def upload(name: str, content: bytes, kind: str) -> str:
        form = {"files": {"file": (name, content, kind)}, "data": {"purpose": "user_data"}}
        return str(relay.server.request("POST", relay.token, "/v1/files", **form).json()["id"])

    raw = base64.b64encode(b"hello").decode()
    url = f"data:text/plain;base64,{raw}"
    address = {"type": "input_file", "file_url": "https://example.org/a.pdf"}
    assert sent_for(**address) == address
    whole = {"type": "input_file", "filename": "a.txt", "file_data": url}
    assert sent_for(**whole) == whole
    assert sent_for(type="input_file", filename="a.txt", file_data=raw) == whole
    assert (
        relay.respond(input=[{"role": "user", "content": [{"type": "input_file", "file_data": raw}]}]).status_code
        == 422
    )
    assert sent_for(type="input_file", file_id=upload("a.txt", b"hello", "text/plain")) == whole
    image = sent_for(type="input_image", file_id=upload("a.png", PNG, "image/png"))
    assert image["image_url"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}" and "file_id" not in image
