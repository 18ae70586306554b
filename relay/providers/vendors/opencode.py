"""OpenCode Zen. Some of its models have chat completions, some responses, some another vendor's API only.

Source: opencode.ai/docs/zen, the source of its gateway, and models.dev's list of its models, read in November 2026.
"""

from __future__ import annotations

import re
from typing import Final

from relay.providers.apis import CHAT, GEMINI
from relay.providers.credentials.static import EVERY_API
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="opencode",
    label="OpenCode Zen",
    position=440,
    base_url="https://opencode.ai/zen/v1",
    credentials=EVERY_API,
    headers={"anthropic-version": "2023-06-01"},
    apis=CHAT | {"responses", "messages", "generate_content", "generate_content.stream"},
    model_apis=(
        (re.compile(r"^claude-|^qwen3\.[5-9]|^minimax-m2\.[15]-free$"), frozenset(("messages",))),
        (re.compile(r"^gpt-"), frozenset(("responses",))),
        (re.compile(r"^gemini-"), GEMINI),
        (re.compile(""), CHAT),
    ),
    session_header="x-opencode-session",
    failures=(
        # What a provider behind it said.
        rule(FailureClass.TRANSIENT, "401 402 403", text=r"^error from provider\b"),
        rule(FailureClass.KEY_DEAD, "401", "autherror"),
        rule(FailureClass.BILLING, "401", "creditserror"),
        rule(FailureClass.QUOTA_WINDOW, "401", "monthlylimiterror userlimiterror", resets="month"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "401 403", "modelerror modelaccesserror"),
        rule(FailureClass.CONFIG, "403", "regionerror"),
        rule(FailureClass.RATE, "429", "ratelimiterror freeusagelimiterror"),
    ),
)
