"""Ready-made settings for clients, with this portal's own address."""

from __future__ import annotations

import json
from dataclasses import dataclass

from django.http import HttpRequest

from portal.views.context import origin

PLACEHOLDER = "sk-…"


@dataclass(frozen=True, slots=True)
class Snippet:
    """`lines` of text to copy, or, for apps that ask one by one, `rows` of (label, value)."""

    key: str
    title: str
    text: str = ""
    rows: tuple[tuple[str, str], ...] = ()
    note: str = ""


def curl(base_url: str, token: str, model: str) -> str:
    """A command that can be pasted."""
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello!"}]})
    return f"curl -N {base_url}/chat/completions \\\n  -H 'Authorization: Bearer {token}' \\\n  -H 'Content-Type: application/json' \\\n  -d '{body}'"


def snippets(request: HttpRequest, token: str = PLACEHOLDER, model: str = "demo") -> list[Snippet]:
    address = origin(request)
    base = f"{address}/v1"
    return [
        Snippet("curl", "curl", curl(base, token, model)),
        Snippet(
            "python",
            "Python",
            "# pip install openai\n"
            "from openai import OpenAI\n\n"
            f'client = OpenAI(base_url="{base}", api_key="{token}")\n'
            "stream = client.chat.completions.create(\n"
            f'    model="{model}",\n'
            '    messages=[{"role": "user", "content": "Hello!"}],\n'
            "    stream=True,\n"
            ")\n"
            "for chunk in stream:\n"
            '    print(chunk.choices[0].delta.content or "", end="")\n',
        ),
        Snippet(
            "node",
            "Node",
            "// npm install openai\n"
            'import OpenAI from "openai";\n\n'
            f'const client = new OpenAI({{ baseURL: "{base}", apiKey: "{token}" }});\n'
            "const stream = await client.chat.completions.create({\n"
            f'  model: "{model}",\n'
            '  messages: [{ role: "user", content: "Hello!" }],\n'
            "  stream: true,\n"
            "});\n"
            'for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");\n',
        ),
        Snippet("env", "Environment", f"export OPENAI_BASE_URL={base}\nexport OPENAI_API_KEY={token}\n", note="Read by the official SDKs and by many tools."),
        Snippet(
            "apps",
            "Chat apps",
            rows=(("API type", "OpenAI compatible"), ("Base URL, if the app adds /v1 itself", address), ("Base URL otherwise", base), ("API key", token), ("Model", model)),
            note="Open WebUI, LobeChat, NextChat, Cherry Studio, GeekAI and the like ask for these. A full URL ending in /chat/completions works as well.",
        ),
    ]
