"""CONTRIBUTING.md does what it says: its example of a vendor is built from the page, and the portal takes it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from django.test import Client
from django.urls import reverse

from relay.channels.probe import probe_channel
from relay.gateway.snapshot.load import load_snapshot
from relay.models import ApiKey, Channel, ChannelModel, Model
from relay.protocols.errors import read_error
from relay.providers.classify import classify, find_rule
from relay.providers.vendor import Vendor
from relay.providers.vendors import VENDORS, discover
from tests.providers.corpus import FailureCase, read_cases
from tests.support.server import ROOT
from tests.support.upstream import Upstream

PAGE: Final = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(path: str) -> str:
    """The content of a file that the page shows below the file's path."""
    found = re.search(rf"`{re.escape(path)}`:\n\n```\w+\n(.*?)```", PAGE, re.S)
    assert found, f"CONTRIBUTING.md does not show {path}"
    return found[1]


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    """The vendor of the page, found as the files of the folder are, and known as long as a test runs."""
    home = tmp_path / "vendors_of_the_page"
    home.mkdir()
    (home / "__init__.py").write_text("")
    (home / "acme.py").write_text(block("relay/providers/vendors/acme.py"))
    monkeypatch.syspath_prepend(tmp_path)
    found = discover("vendors_of_the_page", [str(home)])
    assert list(found) == ["acme"]
    monkeypatch.setitem(VENDORS, "acme", found["acme"])
    yield found["acme"]
    for name in [name for name in sys.modules if name.startswith("vendors_of_the_page")]:
        del sys.modules[name]


def cases() -> list[FailureCase]:
    return read_cases(block("tests/providers/failures/acme.json"), "acme")


def test_the_example_is_written_as_the_code_is() -> None:
    ruff = [sys.executable, "-m", "ruff"]
    content = block("relay/providers/vendors/acme.py").encode()
    for command in (["format", "--check"], ["check", "--quiet"]):
        path = str(ROOT / "relay/providers/vendors/acme.py")
        asked = [*ruff, *command, "--stdin-filename", path, "-"]
        run = subprocess.run(asked, input=content, capture_output=True, cwd=ROOT)
        assert run.returncode == 0, run.stdout.decode() + run.stderr.decode()


def test_the_examples_fixture_covers_its_rules(acme: Vendor) -> None:
    told = [(classify(case.status, {}, case.content, "acme").kind.word, case.kind) for case in cases()]
    assert told and all(found == wanted for found, wanted in told), told
    used = {find_rule("acme", case.status, read_error(case.content)) for case in cases()}
    assert set(acme.failures) <= used


def test_the_portal_takes_the_example(staff: Client, upstream: Upstream, acme: Vendor) -> None:
    """A channel of it is made in the guide; its address, signature and parameters are the vendor's."""
    guide = reverse("admin-setup-step", args=["channel"])
    assert f'value="{acme.key}"' in staff.get(guide).content.decode()
    assert staff.post(guide, {"provider": "acme", "name": "Ours", "base_url": ""}).status_code == 302
    channel = Channel.objects.get(name="Ours")
    key = ApiKey(channel=channel)
    key.set_secret("sk-of-acme")
    key.save()
    model = Model.objects.create(name="acme-large", is_open=True)
    ChannelModel.objects.create(channel=channel, model=model)
    route = load_snapshot().models["acme-large"].routes[0]
    assert {api: str(url) for api, url in route.channel.urls.items()} == {
        "chat.completions": "https://api.acme.example/v1/chat/completions",
        "embeddings": "https://api.acme.example/v1/embeddings",
    }
    assert route.channel.keys[0].headers["api-key"] == "sk-of-acme"
    assert {"seed": "drop", "n": "refuse:1"}.items() <= route.channel.policies["chat"].items()
    channel.base_url = upstream.base_url
    key.set_secret("sk-of-acme", channel)  # a key is for the address that it was given for
    assert probe_channel(channel, key, "acme-large").ok
    assert upstream.last("acme-large").headers["api-key"] == "sk-of-acme"


def test_the_commands_of_the_page_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)", PAGE))
    assert named and named <= targets
    for path in re.findall(r'ARGS="(\S+)', PAGE):
        assert (ROOT / path).exists(), path


def test_editors_and_the_formatter_agree() -> None:
    told = (ROOT / ".editorconfig").read_text()
    assert "root = true" in told and "insert_final_newline = true" in told and "max_line_length = 120" in told
    for file in ROOT.glob("tests/providers/failures/*.json"):
        assert file.read_text().endswith("]\n") and json.loads(file.read_text())
