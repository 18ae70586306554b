"""Measures what a long conversation costs: `python -m bench.speed.conversations [--turns 1000]`.

Each conversation goes on by previous_response_id, on a channel whose upstream keeps it (native), on one that speaks the
Responses API and keeps nothing (told), and on one that speaks chat completions (chat). The portal's own time is that of
its header x-relay-overhead-ms, the least of the ten turns up to the one that is named.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from tests.support.server import ROOT, Server, serving
from tests.support.upstream import Call, Upstream, completion

_SETUP = """
from decimal import Decimal
from django.core.management import call_command
call_command("migrate", interactive=False, verbosity=0)
from accounts.models import User
from relay.billing.ledger import movements
from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPrice
from relay.tokens.lifecycle import create_token
for name, options in {
    "native": {"provider": "openai", "text_api": "responses"},
    "told": {"provider": "vllm", "text_api": "responses"},
    "chat": {"provider": "openai", "text_api": "chat"},
}.items():
    model = Model.objects.create(name=name, is_open=True)
    ModelPrice.objects.create(model=model, input=Decimal("2.5"), output=10)
    channel = Channel.objects.create(name=name, base_url=%r, **options)
    key = ApiKey(channel=channel)
    key.set_secret("sk-upstream-0123456789abcdef")
    key.save()
    ChannelModel.objects.create(channel=channel, model=model)
user = User.objects.create_user("bench")
movements.top_up(user, 10**15, actor=None, reason="bench")
print(create_token(user, "bench", actor=None)[1])
"""
_TEXT = "A sentence of an answer that is as long as many are. " * 12
_SHOWN = (10, 100, 1000, 5000)


class _Answers:
    """Answers every request at once, and counts what it was told."""

    def __init__(self) -> None:
        self.made, self.told = 0, 0

    async def __call__(self, call: Call) -> None:
        body = call.json
        self.made += 1
        items = body.get("input") or body.get("messages")
        self.told = len(items) if isinstance(items, list) else 1
        if call.path.endswith("/chat/completions"):
            await call.reply(200, completion(_TEXT))
            return
        part = {"type": "output_text", "text": _TEXT, "annotations": []}
        item = {"id": f"msg_{self.made}", "type": "message", "role": "assistant", "status": "completed"}
        usage = {"input_tokens": 9, "output_tokens": 130, "total_tokens": 139}
        answer = {"id": f"resp_{self.made:032x}", "object": "response", "created_at": 1, "status": "completed"}
        await call.reply(200, {**answer, "output": [{**item, "content": [part]}], "usage": usage})


def _talk(client: httpx.Client, url: str, model: str, turns: int) -> list[float]:
    """The portal's own milliseconds for each turn."""
    took: list[float] = []
    previous: dict[str, Any] = {}
    for number in range(1, turns + 1):
        answer = client.post(url, json={"model": model, "input": f"Question {number}? {_TEXT[:200]}", **previous})
        answer.raise_for_status()
        took.append(float(answer.headers["x-relay-overhead-ms"]))
        previous = {"previous_response_id": answer.json()["id"]}
    return took


def _measure(server: Server, token: str, upstream: Upstream, turns: int) -> None:
    print("| channel | turn | items sent upstream | overhead ms |\n|---|--:|--:|--:|")
    for model in ("native", "told", "chat"):
        answers = _Answers()
        upstream.script(model, answers)
        with httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=60, trust_env=False) as client:
            took = _talk(client, f"{server.v1}/responses", model, turns)
        for turn in (turn for turn in _SHOWN if turn <= turns):
            told = 1 if model == "native" else 2 * turn - 1
            print(f"| {model} | {turn} | {told} | {min(took[max(0, turn - 10) : turn]):.1f} |")
        if answers.told != (1 if model == "native" else 2 * turns - 1):
            sys.exit(f"{model}: the upstream was told {answers.told} items in the last turn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=1000)
    turns = parser.parse_args().turns
    upstream = Upstream()
    with tempfile.TemporaryDirectory() as folder:
        env = {"AIRELAYS_DATA_DIR": folder, "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1", "AIRELAYS_JOBS": "false"}
        made = subprocess.run(
            [sys.executable, "manage.py", "shell", "-v", "0", "-c", _SETUP % upstream.base_url],
            cwd=ROOT,
            env={**os.environ, **env},
            check=True,
            capture_output=True,
            text=True,
        )
        with serving(Path(folder) / "log", env=env) as server:
            _measure(server, made.stdout.split()[-1], upstream, turns)
    upstream.stop()


if __name__ == "__main__":
    main()
