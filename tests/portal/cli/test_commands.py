"""Commands of `airelays`, in this process: what they print and change, and how they end."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from accounts.models import AuditEvent, Change, User
from portal.cli import startup
from portal.cli.main import NAMES, run
from portal.config import load as settings_of
from portal.installation.lock import FolderLock
from relay.models import Channel, ChannelDay, Token
from relay.models.token import digest_of
from relay.tokens.lifecycle import create_token
from relay.tokens.relay_token import relay_token
from relay.usage.reports import today_ordinal
from tests.support.server import ROOT


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path) -> Iterator[Path]:
    """Commands put their flags into the environment, and `init` writes into the home folder."""
    with mock.patch.dict(os.environ, {"HOME": str(tmp_path), "NO_COLOR": "1"}):
        yield tmp_path


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_superuser("admin", password="an old password")


class Output:
    """Runs commands and has what they printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        self._capsys.readouterr()
        try:
            ended = run(words)
        except SystemExit as end:
            ended = int(end.code or 0)
        out, self.err = self._capsys.readouterr()
        assert ended == code, self.err
        return out

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def airelays(capsys: pytest.CaptureFixture[str]) -> Output:
    return Output(capsys)


@pytest.mark.parametrize("name", [name for name in NAMES if (ROOT / f"portal/cli/commands/{name}.py").exists()])
def test_every_command_has_help_and_its_place_in_the_docs(airelays: Output, name: str) -> None:
    if name != "manage":  # whose help is Django's
        assert f"Usage: airelays {name}" in airelays(name, "--help")
    docs = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert f"`airelays {name}" in docs


def test_the_list_of_commands_is_whole_on_a_terminal_of_80_columns(airelays: Output) -> None:
    with mock.patch.dict(os.environ, {"COLUMNS": "80"}):
        listed = airelays("--help").partition("Commands:")[2]
    assert len(listed.split("\n")) > len(NAMES) and "..." not in listed


def test_a_wrong_word_is_explained_in_a_sentence(airelays: Output) -> None:
    airelays("serve", "--port", "abc", code=2)
    said = (
        "airelays serve: --port takes a number from 1 to 65535, not 'abc'. `airelays serve --help` shows the usage.\n"
    )
    assert airelays.err == said
    airelays("serve", "--prot", "1", code=2)
    assert airelays.err.startswith("airelays serve: there is no option '--prot'. Did you mean --port or --host? `")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve", "--port", "0"], "airelays serve: --port takes a number from 1 to 65535, not '0'."),
        (["serve", "--port", "９０００"], "--port takes a number from 1 to 65535, not"),
        (["serve", "--workers", "2.5"], "--workers takes a number from 1 to 64, not '2.5'."),
        (["serve", "--prt", "1"], "Did you mean --port"),
        (["serve", "--network-scope", "all"], "--network-scope takes one of loopback, private, any, not 'all'."),
        (["serve", "--host", "http://x"], "--host takes an address of this machine such as 127.0.0.1, not 'http://x'."),
        (["serve", "--host="], "--host takes an address of this machine such as 127.0.0.1, not ''."),
        (["init", "--host", "a b", "--force"], "airelays init: --host takes an address"),
        (["init", "--port"], "airelays init: --port needs a value."),
        (["init", "--force=1"], "airelays init: --force takes no value."),
        (["login", "--browser=1"], "airelays login: --browser takes no value."),
        (["servr"], "airelays: there is no command 'servr'. Did you mean serve?"),
        (["token", "sho"], "airelays token: there is no command 'sho'. Did you mean show?"),
        (["status", "more"], "airelays status: does not take 'more'."),
        (["status", "--data-dir", __file__], "--data-dir takes a folder, and"),
        (["status", "--data-dir="], "--data-dir takes a folder, not ''."),
        (["status", "--config", "/"], "--config takes a file, and '/' is a folder."),
        (["status", "--config", ""], "--config takes a file, not ''."),
        (["--data-dir"], "airelays: --data-dir needs a value."),
        (["token", "create"], "airelays token create: NAME is missing."),
        (["token", "create", " "], "NAME takes a name of 1 to 60 characters, not ' '."),
        (["token", "create", "x" * 61], "NAME takes a name of 1 to 60 characters, not '"),
        (["token", "create", "a\tb"], "NAME takes a name of 1 to 60 characters, not 'a\\tb'."),
        (["usage", "--days", "0"], "airelays usage: --days takes a number from 1 to 3660, not '0'."),
        (["usage", "--days", "9" * 30], "--days takes a number from 1 to 3660, not '999"),
        (["usage", "--days", "many"], "--days takes a number from 1 to 3660, not 'many'."),
        (["usage", "--by", "week"], "--by takes one of day, model, token, channel, user, not 'week'."),
        (["models", "--user="], "--user takes the name of a user, not ''."),
        (["password", ""], "USER takes the name of a user, not ''."),
        (["connect", "emacs"], "APP takes one of claude, codex, gemini, opencode, not 'emacs'."),
        (["connect"], "airelays connect: APP is missing: one of claude, codex, gemini, opencode."),
        (["connect", "codex", "--url", "here"], "--url takes an address such as http://127.0.0.1:8080, not 'here'."),
        (["connect", "codex", "--token", "sk-\x07" + "x" * 48], "--token takes a token."),
        (["completion", "tcsh"], "SHELL takes one of bash, zsh, fish, not 'tcsh'."),
    ],
)
def test_a_bad_value_is_one_line(airelays: Output, words: list[str], said: str) -> None:
    assert airelays(*words, code=2) == ""
    assert said in airelays.err and airelays.err.count("\n") == 1
    assert "Invalid value" not in airelays.err and "`airelays" in airelays.err, (
        "in our words, with the way to the usage"
    )


@pytest.mark.parametrize(
    "words",
    [["models", "--user", "nobody"], ["password", "nobody"], ["connect", "codex", "--user", "nobody"]],
    ids=lambda words: words[0],
)
def test_a_user_that_there_is_not_is_a_bad_value(airelays: Output, admin: User, words: list[str]) -> None:
    airelays(*words, code=2)
    assert airelays.err == "There is no active user “nobody”.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["migrat"], "airelays manage: there is no command 'migrat'. Did you mean migrate or "),
        (["migrate", "--nope"], "airelays manage migrate: unrecognized arguments: --nope. `airelays manage migrate"),
        (["ledger"], "airelays manage ledger: the following arguments are required: action. `airelays"),
    ],
    ids=["command", "option", "missing"],
)
def test_operators_commands_refuse_in_one_line(airelays: Output, db: None, words: list[str], said: str) -> None:
    airelays("manage", *words, code=2)
    assert airelays.err.startswith(said) and airelays.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = [", "cannot be read"),
        ("port = 'eighty'", "port in the configuration file ('eighty'): write a whole number from 1 to 65535"),
        ("port = 0", "write a number from 1 to 65535"),
        ("host = 'a b'", "is not the name of a host"),
        ("host = ''", "write an address of this machine"),
        ("prot = 80", "did you mean port?"),
    ],
)
def test_a_bad_configuration_file_is_one_line(airelays: Output, own_home: Path, text: str, said: str) -> None:
    file = own_home / "config.toml"
    file.write_text(text)
    airelays("init", "--config", str(file), "--force", code=2)
    assert said in airelays.err and airelays.err.count("\n") == 1
    assert file.read_text() == text


def test_init_sets_up_once(airelays: Output, db: None, own_home: Path) -> None:
    first = airelays.json("init", "--host", "127.0.0.2", "--port", "9001")
    file = own_home / ".config" / "airelays" / "config.toml"
    assert first["config_path"] == str(file) and first["config_created"] and first["bearer_token_created"]
    assert first["client"]["base_url"] == "http://127.0.0.2:9001/v1"
    assert first["effective_network_scope"] == "loopback"
    token = relay_token()
    assert token is not None and token.reveal() == first["relay_token"]
    assert User.objects.get().check_password(first["admin"]["password"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    for name in ("AIRELAYS_HOST", "AIRELAYS_PORT"):
        os.environ.pop(name)
    written = file.read_text()
    again = airelays.json("init")
    assert not again["config_created"] and not again["bearer_token_created"]
    assert again["relay_token"] is None and again["admin"] is None
    assert again["client"]["base_url"] == "http://127.0.0.2:9001/v1"
    assert set(again) >= {
        "app_name", "config_path", "config_created", "bearer_token_file", "bearer_token_created",
        "bearer_token_source", "relay_token", "network_scope", "effective_network_scope", "client", "next_steps",
    }  # fmt: skip
    assert airelays.json("init", "--show-token")["relay_token"] == first["relay_token"]
    shown = airelays("init")
    assert first["relay_token"] not in shown and "existing" in shown
    assert file.read_text() == written and Token.objects.count() == 1


def test_init_leaves_a_file_that_exists_unless_told(airelays: Output, db: None, own_home: Path) -> None:
    file = own_home / "own.toml"
    file.write_text('# mine\nlog_level = "ERROR"\n[server]\nport = 9002  # free\n')
    airelays("init", "--config", str(file), "--port", "9003", code=1)
    assert airelays.err == (
        f"{file} already exists; --port would not be written. Re-run with --force to rewrite the config, or edit the "
        "file.\n"
    )
    airelays("init", "--config", str(file), "--port", "9003", "--force")
    text = file.read_text()
    assert text.startswith('# mine\nlog_level = "ERROR"\n') and "port = 9003  # free" in text


def test_an_open_relay_for_the_internet_is_refused(airelays: Output, db: None, own_home: Path) -> None:
    airelays("init", "--no-auth", "--network-scope", "any", code=1)
    assert "requires `require_bearer_auth = true`" in airelays.err
    assert not (own_home / ".config").exists()


def test_init_without_auth_writes_the_configuration_alone(airelays: Output, db: None, own_home: Path) -> None:
    found = airelays.json("init", "--no-auth")
    assert "require_bearer_auth = false" in Path(found["config_path"]).read_text()
    assert found["relay_token"] is None and not found["bearer_token_created"]
    assert not User.objects.exists() and not Token.objects.exists()


def test_token_show_has_what_the_portal_shows(airelays: Output, admin: User) -> None:
    airelays("token", "show", code=1)
    assert "There is no active relay token." in airelays.err
    _, other = create_token(admin, "Another", actor=None)
    assert airelays.json("token", "show")["relay_token"] == other
    _, secret = create_token(admin, "First token", actor=None)
    found = airelays.json("token", "show")
    assert found["relay_token"] == found["client"]["relay_token"] == secret
    assert set(found) >= {
        "bearer_token_present", "bearer_token_file", "bearer_token_source", "relay_token", "client", "next_steps",
    }  # fmt: skip
    assert secret in airelays("token", "show")
    assert AuditEvent.objects.filter(action="token.reveal", actor=None).count() == 3


def test_tokens_of_others_are_no_relay_token(airelays: Output, admin: User) -> None:
    other = User.objects.create_user("other", password="x")
    create_token(other, "First token", actor=None)
    gone, _ = create_token(admin, "First token", actor=None)
    gone.enabled = False
    gone.save()
    airelays("token", "show", code=1)


def test_rotation_is_announced_and_kept_in_the_old_file(airelays: Output, admin: User, settings: Any) -> None:
    file = settings.DATA_DIR / "relay-token"
    _, old = create_token(admin, "First token", actor=None)
    file.write_text(old + "\n")
    file.chmod(0o644)
    try:
        assert airelays.json("token", "show")["bearer_token_source"] == "file"
        found = airelays.json("token", "rotate")
        assert found["relay_token"] != old and found["bearer_token_file"] == str(file)
        assert file.read_text() == found["relay_token"] + "\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert Token.objects.get().digest == digest_of(found["relay_token"])
        assert Change.objects.filter(topic=Change.TOKEN, key=digest_of(old)).exists()
        file.write_text("a token of something else\n")
        airelays("token", "rotate")
        assert file.read_text() == "a token of something else\n"
    finally:
        file.unlink()


def test_create_and_list_tokens(airelays: Output, admin: User) -> None:
    User.objects.create_user("anna", password="x")
    made = airelays.json("token", "create", "Laptop", "--user", "anna")
    listed = airelays.json("token", "list")["tokens"]
    assert [(one["name"], one["user"], one["state"]) for one in listed] == [("Laptop", "anna", "active")]
    assert made["relay_token"] not in airelays("token", "list")
    assert airelays.json("token", "list", "--user", "admin")["tokens"] == []
    airelays("token", "create", "X", "--user", "nobody", code=2)
    assert airelays.err == "There is no active user “nobody”.\n"
    User.objects.create_superuser("second")
    airelays("token", "create", "X", code=1)
    assert "Name one of them with --user: admin, second." in airelays.err


def test_status_tells_settings_upstreams_and_no_secret(airelays: Output, admin: User) -> None:
    _, secret = create_token(admin, "First token", actor=None)
    Channel.objects.create(name="Mine", provider="openai")
    text = airelays("status")
    found = airelays.json("status")
    assert set(found) >= {"relay", "auth", "providers", "client", "next_steps"}
    assert found["relay"]["bearer_token_present"] and not found["relay"]["running"]
    assert found["providers"] == {"openai": {"channels": 1, "serving": 0}}
    assert not found["auth"]["authenticated"]
    assert secret not in text and secret not in json.dumps(found)
    assert any("serve" in step for step in found["next_steps"])
    assert airelays.json("accounts")["accounts"] == found["auth"]["accounts"]
    assert "Mine" in airelays("accounts")


def test_commands_follow_a_relay_that_was_started_at_another_port(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "_is_ready", lambda: False)
    lock = FolderLock(own_home)
    config = settings_of({}, {"AIRELAYS_DATA_DIR": str(own_home)})
    startup.follow_running(config)
    assert "AIRELAYS_PORT" not in os.environ, "none runs"
    lock.hold(patience=0, listens=("127.0.0.1", 9123))
    with mock.patch.dict(os.environ, {"AIRELAY_PORT": "9001"}):
        startup.follow_running(config)
        assert "AIRELAYS_PORT" not in os.environ, "the shell says another one"
    startup.follow_running(config)
    lock.release()
    assert (os.environ["AIRELAYS_HOST"], os.environ["AIRELAYS_PORT"]) == ("127.0.0.1", "9123")


def test_usage_adds_up_the_days(airelays: Output, admin: User) -> None:
    channel = Channel.objects.create(name="Mine", provider="openai")
    for back, model in ((0, "a"), (0, "b"), (40, "a")):
        ChannelDay.objects.create(
            day=today_ordinal() - back, channel=channel, model=model, requests=3, input=10, charged=5_000_000
        )
    found = airelays.json("usage")
    assert found["total"]["requests"] == 6 and found["total"]["cost_usd"] == "0.01"
    assert {one["model"]: one["requests"] for one in found["data"]} == {"a": 3, "b": 3}
    assert airelays.json("usage", "--days", "41")["total"]["requests"] == 9
    assert "By channel" in airelays("usage", "--by", "channel")


def test_a_password_is_set(airelays: Output, admin: User, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = airelays("password", "--generate")
    admin.refresh_from_db()
    assert any(admin.check_password(word) for word in shown.split())
    monkeypatch.setattr("sys.stdin", StringIO("quite another horse\n"))
    airelays("password", "admin")
    admin.refresh_from_db()
    assert admin.check_password("quite another horse")
    for typed in ("short\n", "\n"):
        monkeypatch.setattr("sys.stdin", StringIO(typed))
        airelays("password", code=1)
        assert airelays.err.count("\n") == 1
    admin.refresh_from_db()
    assert admin.check_password("quite another horse")
    airelays("password", "nobody", code=2)


def test_serve_ends_with_3_where_it_cannot_listen(airelays: Output, db: None) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = str(holder.getsockname()[1])
        airelays("serve", "--port", port, code=3)
    assert f"port {port} of 127.0.0.1 is in use" in airelays.err and airelays.err.count("\n") == 1


def test_manage_passes_everything_on(airelays: Output, db: None) -> None:
    assert json.loads(airelays("manage", "ledger", "verify", "--json"))["clean"]
    assert airelays("manage", "check", "--fail-level", "ERROR")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(airelays: Output, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "_AIRELAYS_COMPLETE" in airelays("completion", shell)
    if shell == "bash":
        monkeypatch.setenv("_AIRELAYS_COMPLETE", "bash_complete")
        for words, wanted in (("airelays to", "plain,token"), ("airelays serve --po", "plain,--port")):
            monkeypatch.setenv("COMP_WORDS", words)
            monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
            assert wanted in airelays()
