"""`airelays login` and `airelays logout`, as processes of their own against the issuer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.support.peers.plans.chatgpt import ChatGPT
from tests.support.peers.plans.people import settings_for
from tests.support.portal import Portal
from tests.support.server import ROOT


@pytest.fixture
def owner(live: Portal, chatgpt: ChatGPT) -> Any:
    return live.user(is_superuser=True)


def airelays(chatgpt: ChatGPT, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "portal.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **settings_for(chatgpt)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_browser_comes_back_to_the_command(owner: Any, chatgpt: ChatGPT) -> None:
    name = owner.username
    running = airelays(chatgpt, "login", "--no-browser", "--user", name, "--json")
    assert running.stderr is not None
    address = next(line.strip() for line in running.stderr if line.startswith("http"))
    back = chatgpt.authorize(address)
    assert re.match(r"http://127\.0\.0\.1:\d+/auth/callback\?", back)
    wrong = back.replace(chatgpt.asked["state"], "x")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(wrong, timeout=20)  # the wait goes on
    assert urllib.request.urlopen(back, timeout=20).status == 200
    out, err = running.communicate(timeout=90)
    assert running.returncode == 0, err
    state = json.loads(out)["auth"]
    assert state["authenticated"] and state["email"] == "ada@example.org" and not state["ready_for_requests"]
    tokens = [*chatgpt.valid, *chatgpt.refreshable]
    assert not any(token in out + err for token in tokens)
    ended = airelays(chatgpt, "logout", "--user", name, "--json")
    out, err = ended.communicate(timeout=90)
    assert ended.returncode == 0, err
    assert json.loads(out) == {
        "deleted": True, "revoked": True, "signed_out": ["ada@example.org"], "remaining": [],
    }  # fmt: skip
    again = airelays(chatgpt, "logout", "--user", name)
    assert again.communicate(timeout=90)[0].strip() == "OpenAI session: already empty" and again.returncode == 0


def test_what_cannot_be_done_is_one_line(owner: Any, chatgpt: ChatGPT) -> None:
    running = airelays(chatgpt, "login", "--device", "--user", owner.username)
    _, err = running.communicate(timeout=90)
    assert running.returncode == 1 and err.strip() == "The issuer does not offer a sign-in by a code."
