"""`manage.py connect`: writes the settings of coding agents, and puts back what was there."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import tomllib
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from portal.management.commands import connect
from relay.models import Budget, Model, ModelAlias, Token
from relay.tokens.lifecycle import create_token
from tests.support.asserts import until
from tests.support.money import PRICE
from tests.support.portal import Portal, ask
from tests.support.server import Server, free_port
from tests.support.upstream import hello

pytestmark = pytest.mark.shared


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Path:
    """The home folder of a person who has no agent yet."""
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "OPENCODE_CONFIG", "XDG_CONFIG_HOME", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    settings.DATA_DIR = tmp_path / "data"
    return tmp_path / "home"


@pytest.fixture
def own(server: Server, live: Portal, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A user of the portal, at its own address."""
    monkeypatch.setattr(connect, "_own_address", lambda: f"http://127.0.0.1:{server.port}")
    return live.user()


def run(app: str, **options: Any) -> str:
    out = StringIO()
    call_command("connect", app, stdout=out, stderr=out, **options)
    return out.getvalue()


def test_an_agent_is_connected_and_what_it_sends_is_served(home: Path, own: Any, live: Portal, server: Server) -> None:
    model = live.model(hello, max_output_tokens=4096, text_api="chat")
    folder = home / ".codex"
    folder.mkdir(parents=True)
    before = (
        '# mine\nmodel = "gpt-5"\n\n[model_providers.other]\nexperimental_bearer_token = "sk-of-another-portal-01"\n'
    )
    (folder / "config.toml").write_text(before)
    said = run("codex", user=own.username, model=model, yes=True)
    (token,) = Token.objects.filter(user=own)
    found = tomllib.loads((folder / "config.toml").read_text())
    provider = found["model_providers"][found["model_provider"]]
    secret = provider["experimental_bearer_token"]
    assert provider["model_catalog_url"] == f"{provider['base_url']}/models"
    assert found["features"]["api_key_model_discovery"] is True
    assert found["model"] == model and token.reveal() == secret
    assert f'+model = "{model}"' in said and secret not in said and "sk-of-another-portal-01" not in said
    assert stat.S_IMODE((folder / "config.toml").stat().st_mode) == 0o600
    server.catch_up()
    answer = server.post(
        secret, {"model": model, "input": "x"}, path=f"{provider['base_url'].split(':', 2)[2][5:]}/responses"
    )
    assert answer.status_code == 200, answer.text

    again = run("codex", user=own.username, model=model, yes=True)
    assert "goes through" in again and Token.objects.filter(user=own).count() == 1, "its token is used again"

    assert "as it was before" in run("codex", undo=True)
    assert (folder / "config.toml").read_text() == before and sorted(folder.iterdir()) == [folder / "config.toml"]
    server.catch_up()
    assert until(lambda: server.post(secret, ask(model)).status_code == 401), "its token was revoked"
    with pytest.raises(CommandError, match="nothing to undo"):
        run("codex", undo=True)


def test_claude_code_keeps_its_permissions(home: Path, own: Any, live: Portal) -> None:
    kept = {"permissions": {"allow": ["Bash"]}, "env": {"DEBUG": "1"}}
    (home / ".claude").mkdir(parents=True)
    (home / ".claude" / "settings.json").write_text(json.dumps(kept))
    names = [live.model(hello) for _ in range(2)]
    haiku = f"claude-haiku-{names[1]}"
    model = live.model(hello)
    Model.objects.filter(name=names[1]).update(name=haiku)
    run("claude", user=own.username, model=model, yes=True)
    found = json.loads((home / ".claude" / "settings.json").read_text())
    assert found["permissions"] == kept["permissions"] and found["env"]["DEBUG"] == "1"
    assert found["env"]["ANTHROPIC_BASE_URL"].startswith("http://127.0.0.1:")
    assert found["env"]["ANTHROPIC_API_KEY"] == "" and found["env"]["ANTHROPIC_AUTH_TOKEN"].startswith("sk-")
    assert "haiku" in found["env"]["ANTHROPIC_DEFAULT_HAIKU_MODEL"]
    assert found["env"]["ANTHROPIC_DEFAULT_OPUS_MODEL"] == model
    assert found["env"]["CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY"] == "1"
    assert found["statusLine"]["type"] == "command" and "sk-" not in found["statusLine"]["command"]
    found["statusLine"] = {"type": "command", "command": "mine"}
    (home / ".claude" / "settings.json").write_text(json.dumps(found))
    run("claude", user=own.username, model=model, yes=True)
    assert json.loads((home / ".claude" / "settings.json").read_text())["statusLine"]["command"] == "mine"


def test_the_status_line_says_what_limits_the_token(home: Path, own: Any, live: Portal, server: Server) -> None:
    """By the command that Claude Code runs, with the variables that it gives to it."""
    live.model(hello)
    run("claude", user=own.username, yes=True)
    found = json.loads((home / ".claude" / "settings.json").read_text())
    (token,) = Token.objects.filter(user=own)
    Budget.objects.create(token=token, period="week", limit=25)
    server.catch_up()
    env = {**os.environ, **found["env"]}
    said = subprocess.run(
        ["sh", "-c", found["statusLine"]["command"]], env=env, capture_output=True, text=True, check=True, input="{}"
    )
    assert re.fullmatch(r"week 0% of \$25\.00, new in \d+ (d|h|min)\n", said.stdout), said


def test_the_first_model_is_no_alias(home: Path, own: Any, live: Portal, server: Server) -> None:
    name = live.model(hello)
    ModelAlias.objects.create(model=Model.objects.get(name=name), name=f"a-{name}")
    token = live.token(own, models_allowed=[Model.objects.get(name=name)])
    server.catch_up()
    url = f"http://127.0.0.1:{server.port}"
    assert json.loads(run("codex", url=url, token=token, json=True))["model"] == name
    assert json.loads(run("codex", url=url, token=token, model=f"a-{name}", json=True))["model"] == f"a-{name}"


def test_claude_code_is_told_what_it_cannot_know_of_other_models(home: Path, own: Any, live: Portal) -> None:
    """Their window, and that no server checks what its auto mode does."""
    model = live.model(hello)
    Model.objects.filter(name=model).update(context_window=131_072)
    run("claude", user=own.username, model=model, yes=True)
    found = json.loads((home / ".claude" / "settings.json").read_text())["env"]
    assert found["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "131072" and found["CLAUDE_CODE_DISABLE_1M_CONTEXT"] == "1"
    assert found["CLAUDE_CODE_AUTO_MODE_SERVER"] == "0"
    assert found["CLAUDE_CODE_AUTO_MODE_MODEL"] == found["ANTHROPIC_DEFAULT_SONNET_MODEL"]
    run("claude", undo=True)
    own_model = f"claude-opus-{model}"
    Model.objects.filter(name=model).update(name=own_model)
    run("claude", user=own.username, model=own_model, yes=True)
    found = json.loads((home / ".claude" / "settings.json").read_text())["env"]
    assert found["ANTHROPIC_DEFAULT_OPUS_MODEL"] == own_model
    assert not [name for name in found if name.startswith(("CLAUDE_CODE_AUTO", "CLAUDE_CODE_MAX", "CLAUDE_CODE_DIS"))]


def test_opencode_and_gemini_get_files_of_their_own(home: Path, own: Any, live: Portal, server: Server) -> None:
    model, token = live.model(hello, price=PRICE, max_output_tokens=8_000), live.token(own)
    Model.objects.filter(name=model).update(context_window=131_072, abilities=["chat", "vision", "reasoning"])
    Model.objects.get(name=model).save()
    server.catch_up()
    url = f"http://127.0.0.1:{server.port}/v1/"
    for app in ("opencode", "gemini"):
        said = json.loads(run(app, url=url, token=token, model=model, json=True))
        assert said["changed"] and said["url"] == url.removesuffix("/v1/") and said["model"] == model
    found = json.loads((home / ".config/opencode/opencode.json").read_text())
    provider = found["provider"]["airelays"]
    assert found["model"] == f"airelays/{model}" and model in provider["models"]
    assert provider["options"] == {"baseURL": url.rstrip("/"), "apiKey": token}
    known = provider["models"][model]
    assert known["limit"] == {"context": 131_072, "output": 8_000} and known["reasoning"] is True
    assert known["attachment"] is True and known["modalities"] == {"input": ["text", "image"], "output": ["text"]}
    prices = {"input": PRICE["input"], "output": PRICE["output"], "cache_read": PRICE["cached_input"]}
    assert known["cost"] == {**prices, "cache_write": PRICE["input"]}
    assert f"GEMINI_API_KEY={token}\n" in (home / ".gemini/.env").read_text()
    settings = json.loads((home / ".gemini/settings.json").read_text())
    assert settings["security"]["auth"]["selectedType"]
    aliases = settings["modelConfigs"]["customAliases"]
    compressing = aliases["chat-compression-default"]["modelConfig"]["model"]
    assert f"GEMINI_MODEL={compressing}\n" in (home / ".gemini/.env").read_text()
    assert aliases["loop-detection-double-check"]["extends"] == "base"
    assert settings["model"]["compressionThreshold"] == 0.0625, "half of the model's window, as a share of its own"
    run("gemini", undo=True)
    assert list((home / ".gemini").iterdir()) == []


def test_nothing_is_made_where_nothing_is_written(home: Path, own: Any, live: Portal) -> None:
    model = live.model(hello)
    said = run("codex", user=own.username, model=model, dry_run=True)
    assert "+model_provider" in said and "left as it is" in said
    with pytest.raises(CommandError, match="--yes"):
        run("codex", user=own.username, model=model)
    with pytest.raises(CommandError, match=r"may not chat with “no-such”"):
        run("codex", user=own.username, model="no-such", yes=True)
    assert not home.exists() and not Token.objects.filter(user=own).exists()


def test_what_was_changed_since_is_not_lost(home: Path, own: Any, live: Portal) -> None:
    live.model(hello)
    run("codex", user=own.username, yes=True)
    file = home / ".codex" / "config.toml"
    file.write_text(file.read_text() + "\n[features]\nmemories = true\n")
    with pytest.raises(CommandError, match="was changed after"):
        run("codex", undo=True)
    assert "memories" in file.read_text()
    (mine,) = Token.objects.filter(user=own)
    (theirs, _) = create_token(live.user(), mine.name, actor=None)
    run("codex", undo=True, force=True)
    assert not file.exists()
    mine.refresh_from_db()
    theirs.refresh_from_db()
    assert mine.revoked_at and not theirs.revoked_at, "another user may call a token so"


def test_a_file_that_cannot_be_edited_is_left_and_named(home: Path, own: Any, live: Portal) -> None:
    live.model(hello)
    (home / ".claude").mkdir(parents=True)
    file = home / ".claude" / "settings.json"
    file.write_text("{} // mine")
    with pytest.raises(CommandError, match=r"settings\.json is left as it is: it is no plain JSON"):
        run("claude", user=own.username, yes=True)
    assert file.read_text() == "{} // mine" and not Token.objects.filter(user=own).exists()


def test_what_a_link_points_at_is_edited(home: Path, own: Any, live: Portal, tmp_path: Path) -> None:
    live.model(hello)
    (home / ".codex").mkdir(parents=True)
    real = tmp_path / "dotfiles.toml"
    real.write_text("")
    (home / ".codex" / "config.toml").symlink_to(real)
    run("codex", user=own.username, yes=True)
    assert (home / ".codex" / "config.toml").is_symlink() and "airelays" in real.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://127.0.0.1:{port}", "token": "sk-x"}, "does not answer"),
        ({"url": "http://127.0.0.1:{server}/portal", "token": "sk-x"}, "no list of models"),
        ({"url": "http://127.0.0.1:{server}", "token": "sk-wrong"}, "does not accept this token"),
        ({"url": "http://127.0.0.1:{server}"}, "--token"),
        ({"url": "not an address", "token": "sk-x"}, "does not answer"),
        ({"user": "nobody-of-this-name"}, "no active user"),
    ],
)
def test_what_cannot_be_connected_is_said(
    home: Path, own: Any, server: Server, options: dict[str, str], said: str
) -> None:
    ports = {"port": free_port(), "server": server.port}
    filled = {name: value.format(**ports) for name, value in options.items()}
    with pytest.raises(CommandError, match=said):
        run("codex", yes=True, **filled)
    assert not home.exists()
