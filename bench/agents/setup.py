"""Prepares a portal for agents: `python -m bench.agents.setup URL WINDOW`. Prints a token for each upstream, as JSON.

`URL`: the base URL of the upstream, which speaks every protocol. `WINDOW`: of the models, in tokens.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Final

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

# By protocol of the upstream: the model, and the options of its channel. Names whose abilities and levels are known.
UPSTREAMS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "chat": ("gpt-oss-120b", {"provider": "openai", "text_api": "chat"}),
    "responses": ("gpt-5.5", {"provider": "openai", "text_api": "responses"}),
    "messages": ("claude-opus-4-8", {"provider": "anthropic"}),
    "gemini": ("gemini-2.5-pro", {"provider": "gemini"}),
}


def main(base: str, window: int) -> dict[str, str]:
    import django

    django.setup()
    from django.core.management import call_command

    from accounts.models import User
    from relay.models import ApiKey, Budget, Channel, ChannelModel, Model, ModelPrice
    from relay.tokens.lifecycle import create_token

    call_command("migrate", interactive=False, verbosity=0)
    user = User.objects.create_superuser("agents", password=None)
    tokens: dict[str, str] = {}
    for name, (model_name, options) in UPSTREAMS.items():
        url = base.replace("/v1", "/v1beta") if name == "gemini" else base
        channel = Channel.objects.create(name=name, base_url=url, **options)
        key = ApiKey(channel=channel)
        key.set_secret(f"sk-upstream-{name}-0123456789abcdef")
        key.save()
        known = {"context_window": window, "max_output_tokens": 32_000}
        abilities = ["chat", "vision", "tools", "reasoning"]
        model = Model.objects.create(name=model_name, is_open=True, abilities=abilities, **known)
        ModelPrice.objects.create(model=model, input=1, output=4)
        ChannelModel.objects.create(channel=channel, model=model)
        token, tokens[name] = create_token(user, name, actor=None, models_allowed=[model])
        Budget.objects.create(token=token, period="day", limit=50)
    return tokens


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
