"""Settings of coding agents on the portal's pages: the files that `manage.py connect` writes, and CC Switch's links."""

from __future__ import annotations

import html
import json
import re
import tomllib
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.test import Client

from portal.clients.apps import APPS
from portal.clients.target import OfferedModel, Target
from portal.pages.shared.agents import agent_snippets
from portal.pages.shared.snippets import PLACEHOLDER
from relay.models import Model, ModelAlias, Token
from relay.models.token import digest_of
from tests.support.portal import Portal
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared

AGENTS = ("claude", "codex", "opencode", "gemini")


def files_of(page: str) -> dict[str, str]:
    """What is to be copied, by its id."""
    found = re.findall(r'<pre id="snippet-([a-z0-9-]+)" tabindex="0">(.*?)</pre>', page, re.DOTALL)
    return {key: html.unescape(text) for key, text in found}


def links_of(page: str) -> dict[str, dict[str, str]]:
    """What CC Switch reads in the links of a page, by the app."""
    found = {}
    for link in re.findall(r'href="(ccswitch:[^"]*)"', page):
        parts = urlsplit(html.unescape(link))
        assert (parts.netloc, parts.path) == ("v1", "/import")
        asked = dict(parse_qsl(parts.query, strict_parsing=True))
        found[asked["app"]] = asked
    return found


@pytest.fixture
def model(live: Portal) -> str:
    """A model that chats, with a further name as Claude Code wants it."""
    name = live.model(price={"input": 2, "output": 2})
    row = Model.objects.get(name=name)
    row.context_window, row.max_output_tokens, row.abilities = 64_000, 8_000, ["chat"]
    row.save()
    ModelAlias.objects.create(model=row, name=f"claude-opus-{name}")
    return name


def test_the_page_has_what_the_command_writes(live: Portal, model: str, settings: Any) -> None:
    page = signed_in(live.user()).get(f"/connect/?model={model}").content.decode()
    address = settings.CONFIG.origin(None) if settings.CONFIG.public_url else "http://testserver"
    shown = files_of(page)
    claude = json.loads(shown["claude"])["env"]
    assert claude["ANTHROPIC_BASE_URL"] == address and claude["ANTHROPIC_AUTH_TOKEN"] == PLACEHOLDER
    assert claude["ANTHROPIC_API_KEY"] == "" and claude["CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY"] == "1"
    assert claude["ANTHROPIC_DEFAULT_OPUS_MODEL"] == f"claude-opus-{model}"
    assert claude["ANTHROPIC_DEFAULT_HAIKU_MODEL"] == model
    codex = tomllib.loads(shown["codex"])
    provider = codex["model_providers"][codex["model_provider"]]
    assert codex["model"] == model and codex["features"]["api_key_model_discovery"] is True
    assert provider["model_catalog_url"] == f"{provider['base_url']}/models" == f"{address}/v1/models"
    assert provider["wire_api"] == "responses"
    opencode = json.loads(shown["opencode"])
    assert opencode["model"] == f"airelays/{model}"
    known = opencode["provider"]["airelays"]["models"][model]
    assert known["limit"] == {"context": 64_000, "output": 8_000} and "modalities" not in known
    assert known["cost"] == dict.fromkeys(("input", "output", "cache_read", "cache_write"), 2)
    assert json.loads(shown["gemini-1"])["model"]["compressionThreshold"] == 0.0305
    assert f"GOOGLE_GEMINI_BASE_URL={address}\n" in shown["gemini"]
    assert json.loads(shown["gemini-1"])["security"]["auth"]["selectedType"] == "gemini-api-key"
    for place in ("~/.claude/settings.json", "~/.codex/config.toml", "~/.config/opencode/opencode.json"):
        assert place in page
    assert "ccswitch:" not in page, "no token is known there"


def test_what_is_shown_is_the_agents_own_file() -> None:
    """One source: nothing is written twice."""
    target = Target("https://portal.example", "sk-x", [OfferedModel("m", 1000, 100)], "m")
    texts = {snippet.key: snippet.text for snippet in agent_snippets(target)}
    for app in APPS.values():
        for number, file in enumerate(app.files):
            assert texts[f"{app.key}-{number}" if number else app.key] == file.edit("", target)
            assert file.place({}, Path("~")).parts[0] == "~"


@pytest.mark.parametrize("strange", ["a#b", "a$b", 'a"b', "a\\b", "模型", "a&b=c?d"])
def test_a_strange_name_breaks_no_page(live: Portal, model: str, strange: str) -> None:
    Model.objects.filter(name=model).update(name=f"{model}{strange}")
    client = signed_in(live.user())
    page = client.get("/connect/", {"model": f"{model}{strange}"})
    assert page.status_code == 200
    shown = files_of(page.content.decode())
    assert json.loads(shown["claude"]) and tomllib.loads(shown["codex"])["model"] == f"{model}{strange}"


def show(client: Client, user: Any, secret: str) -> str:
    token = Token.objects.get(digest=digest_of(secret))
    page = client.post(f"/tokens/{token.pk}/reveal/")
    assert page.status_code in {200, 302, 404}
    return page.content.decode()


def test_links_for_cc_switch_are_where_a_token_is_shown_and_nowhere_else(live: Portal, model: str) -> None:
    user, other = live.user(), live.user()
    staff = live.user(is_staff=True, is_superuser=True)
    secret = live.token(user, models_allowed=[Model.objects.get(name=model)])
    page = show(signed_in(user), user, secret)
    links = links_of(page)
    assert tuple(links) == AGENTS
    for app, asked in links.items():
        assert (asked["resource"], asked["name"], asked["apiKey"]) == ("provider", "AIRelays", secret), app
        assert asked["endpoint"] == "http://testserver" + ("/v1" if app in {"codex", "opencode"} else "")
    claude = links["claude"]
    assert (claude["opusModel"], claude["haikuModel"]) == (f"claude-opus-{model}", model)
    env = json.loads(b64decode(claude["config"]))["env"]
    assert env["ANTHROPIC_API_KEY"] == "" and secret not in json.dumps(env)
    assert links["codex"]["model"] == links["gemini"]["model"] == model
    assert secret in files_of(page)["claude"] and PLACEHOLDER not in files_of(page)["codex"]
    for somebody in (other, staff):
        assert links_of(show(signed_in(somebody), somebody, secret)) == {}
    for path in ("/connect/", "/tokens/", f"/tokens/{Token.objects.get(digest=digest_of(secret)).pk}/", "/catalog/"):
        found = signed_in(user).get(path).content.decode()
        assert "ccswitch:" not in found and secret not in found


def test_a_token_that_does_not_chat_sets_up_no_agent(live: Portal, model: str) -> None:
    user = live.user()
    assert links_of(show(signed_in(user), user, live.token(user, purpose="images"))) == {}


def test_models_are_found_by_their_further_names(live: Portal, model: str) -> None:
    client = signed_in(live.user())
    page = client.get(f"/catalog/?q=opus-{model}").content.decode()
    assert f"claude-opus-{model}" in page and f">{model}</code>" in page
    assert f">{model}</code>" not in client.get(f"/catalog/?q=sonnet-{model}").content.decode()
    for path in ("/connect/", "/playground/"):
        chosen = client.get(path, {"model": f"claude-opus-{model}"})
        assert (chosen.context.get("model") or chosen.context.get("chosen")) == model
