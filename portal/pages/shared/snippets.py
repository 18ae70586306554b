"""Ready-to-copy settings for client apps, taken from their documentation or from their requests."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext as _

from relay.catalog.first_call import FirstCall, curl
from relay.providers.demo import MODEL

PLACEHOLDER = "sk-…"
DEMO_CALL = FirstCall("chat", MODEL)


@dataclass(frozen=True, slots=True)
class Snippet:
    """Settings of one app: `text` to copy, or `rows` for apps with a form."""

    key: str  # id in HTML
    title: str
    text: str = ""
    rows: tuple[tuple[str, str], ...] = ()  # (label, value)
    note: str = ""
    where: str = ""  # the file or page that they belong in


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    snippets: list[Snippet] = field(default_factory=list)


def _quoted(model: str) -> str:
    """The name of a model, which may come from an upstream's list, as a text of Python, JavaScript and YAML."""
    return json.dumps(model, ensure_ascii=False)


def snippets(request: HttpRequest, token: str = PLACEHOLDER, call: FirstCall = DEMO_CALL) -> list[Snippet]:
    """Snippets for a call that the token can make: curl, the SDKs, environment variables, chat apps in general."""
    base = f"{settings.CONFIG.origin(request)}/v1"
    found = [Snippet("curl", "curl", curl(base, token, call))]
    if call.kind == "chat":
        found += _chat_code(base, token, call.model)
    elif call.kind == "image_generation":
        found.append(_image_code(base, token, call.model))
    found.append(
        Snippet(
            "env",
            _("Environment"),
            f"export OPENAI_BASE_URL={base}\nexport OPENAI_API_KEY={token}\n",
            note=_("Read by the official SDKs and by many tools."),
        )
    )
    if call.kind == "chat":
        found.append(_chat_apps(settings.CONFIG.origin(request), token, call.model))
    return found


def _chat_code(base: str, token: str, model: str) -> list[Snippet]:
    name = _quoted(model)
    return [
        Snippet(
            "python",
            "Python",
            "# pip install openai\n"
            "from openai import OpenAI\n\n"
            f'client = OpenAI(base_url="{base}", api_key="{token}")\n'
            "stream = client.chat.completions.create(\n"
            f"    model={name},\n"
            '    messages=[{"role": "user", "content": "Hello!"}],\n'
            "    stream=True,\n"
            ")\n"
            "for chunk in stream:\n"
            '    if chunk.choices:\n        print(chunk.choices[0].delta.content or "", end="")\n',
        ),
        Snippet(
            "node",
            "Node",
            "// npm install openai\n"
            'import OpenAI from "openai";\n\n'
            f'const client = new OpenAI({{ baseURL: "{base}", apiKey: "{token}" }});\n'
            "const stream = await client.chat.completions.create({\n"
            f"  model: {name},\n"
            '  messages: [{ role: "user", content: "Hello!" }],\n'
            "  stream: true,\n"
            "});\n"
            'for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");\n',
        ),
    ]


def _image_code(base: str, token: str, model: str) -> Snippet:
    return Snippet(
        "python",
        "Python",
        "# pip install openai\n"
        "import base64\n\nfrom openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base}", api_key="{token}")\n'
        f"answer = client.images.generate(model={json.dumps(model, ensure_ascii=False)}, "
        'prompt="A lighthouse at dusk")\n'
        "image = answer.data[0]\n"
        "if image.url:\n    print(image.url)\n"
        'else:\n    open("image.png", "wb").write(base64.b64decode(image.b64_json))\n',
    )


def _chat_apps(address: str, token: str, model: str) -> Snippet:
    return Snippet(
        "apps",
        _("Chat apps"),
        rows=(
            (_("API type"), "OpenAI compatible"),
            (_("Base URL, if the app adds /v1 itself"), address),
            (_("Base URL otherwise"), f"{address}/v1"),
            (_("API key"), token),
            (_("Model"), model),
        ),
        note=_(
            "LobeChat, NextChat, Cherry Studio and the like ask for these. A full URL ending in /chat/completions "
            "works as well."
        ),
    )


def sections(
    request: HttpRequest,
    token: str = PLACEHOLDER,
    call: FirstCall = DEMO_CALL,
    image_model: str = "",
    agents: Sequence[Snippet] = (),
) -> list[Section]:
    """Snippets for single apps, by kind of app. Only code for a call that is no chat: these apps chat.

    `agents`: those of coding agents.
    """
    address: str = settings.CONFIG.origin(request)
    base, model = f"{address}/v1", call.model
    if call.kind != "chat":
        return [Section(_("SDKs and everything else"), snippets(request, token, call))]
    return [
        Section(
            _("Chat apps"),
            [_geekai(address, token, model, image_model), _open_webui(base, token), _librechat(base, token, model)],
        ),
        Section(
            _("Editors"),
            [_cursor(base, token, model), _cline(base, token, model), _continue(base, token, model), _zed(base, model)],
        ),
        Section(
            _("Agents and automation"),
            [
                *agents,
                _aider(base, token, model),
                _n8n(base, token),
                _langchain(base, token, model),
            ],
        ),
        Section(_("SDKs and everything else"), snippets(request, token, call)),
    ]


def _geekai(address: str, token: str, model: str, image_model: str) -> Snippet:
    rows = [
        (_("Type"), "chat"),
        (_("API URL"), address),
        (_("API KEY"), token),
        (_("Model value (under Models)"), model),
        (_("Type, for pictures"), "dalle"),
        (_("API URL"), address),
        (_("Model value, for pictures"), image_model or _("a model that makes images")),
        (_("Type, for voice calls"), "realtime"),
        (_("API URL"), address.replace("http", "ws", 1)),
    ]
    note = _(
        "One API KEY for each type; type the address without a slash at the end. GeekAI before 4.1.1 wants the whole "
        "address, ending in /v1/chat/completions."
    )
    return Snippet("geekai", "GeekAI", rows=tuple(rows), note=note, where=_("Administration → API-KEY → Add"))


def _open_webui(base: str, token: str) -> Snippet:
    text = f"OPENAI_API_BASE_URL={base}\nOPENAI_API_KEY={token}\n"
    return Snippet(
        "open-webui",
        "Open WebUI",
        text,
        note=_("It lists the models of the token by itself."),
        where=_("Environment, or Admin Panel → Settings → Connections → OpenAI API → +"),
    )


def _librechat(base: str, token: str, model: str) -> Snippet:
    text = (
        "endpoints:\n  custom:\n"
        f'    - name: "AIRelays"\n      apiKey: "{token}"\n      baseURL: "{base}"\n'
        f"      models:\n        default: [{_quoted(model)}]\n        fetch: true\n      titleConvo: true\n"
        f"      titleModel: {_quoted(model)}\n"
    )
    return Snippet("librechat", "LibreChat", text, where="librechat.yaml")


def _cursor(base: str, token: str, model: str) -> Snippet:
    rows = ((_("OpenAI API Key"), token), (_("Override OpenAI Base URL"), base), (_("Add model"), model))
    note = _("Cursor calls from its own servers, so the portal must be reachable from the Internet over TLS.")
    return Snippet("cursor", "Cursor", rows=rows, note=note, where="Settings → Models → API Keys")


def _cline(base: str, token: str, model: str) -> Snippet:
    rows = (
        ("API Provider", "OpenAI Compatible"),
        ("Base URL", base),
        ("OpenAI Compatible API Key", token),
        ("Model ID", model),
    )
    return Snippet("cline", "Cline", rows=rows, where=_("Cline's settings in the editor"))


def _continue(base: str, token: str, model: str) -> Snippet:
    text = (
        "name: AIRelays\nversion: 1.0.0\nschema: v1\nmodels:\n"
        f"  - name: {_quoted(model)}\n    provider: openai\n    model: {_quoted(model)}\n    apiBase: {base}\n"
        f"    apiKey: {token}\n    roles: [chat, edit, apply]\n"
    )
    return Snippet("continue", "Continue", text, where="~/.continue/config.yaml")


def _zed(base: str, model: str) -> Snippet:
    settings = {
        "language_models": {
            "openai_compatible": {
                "AIRelays": {
                    "api_url": base,
                    "available_models": [{"name": model, "display_name": model, "max_tokens": 128000}],
                }
            }
        }
    }
    note = _(
        "Zed asks for the API key in the assistant's settings and keeps it in the keychain; it also reads the "
        "variable AIRELAYS_API_KEY."
    )
    return Snippet("zed", "Zed", json.dumps(settings, indent=2), note=note, where="settings.json")


def _aider(base: str, token: str, model: str) -> Snippet:
    name = shlex.quote(f"openai/{model}")
    return Snippet(
        "aider",
        "aider",
        f"export OPENAI_API_BASE={base}\nexport OPENAI_API_KEY={token}\naider --model {name}\n",
        where=_("Environment"),
    )


def _n8n(base: str, token: str) -> Snippet:
    rows = (("Credential", "OpenAI"), ("API Key", token), ("Base URL", base))
    return Snippet(
        "n8n",
        "n8n",
        rows=rows,
        note=_("Then use the nodes “OpenAI” or “OpenAI Chat Model” with this credential."),
        where="Credentials → Add credential",
    )


def _langchain(base: str, token: str, model: str) -> Snippet:
    text = (
        "# pip install langchain-openai\nfrom langchain_openai import ChatOpenAI\n\n"
        f'chat = ChatOpenAI(base_url="{base}", api_key="{token}", model={_quoted(model)}, '
        'stream_usage=True)\nprint(chat.invoke("Hello!").content)\n'
    )
    return Snippet("langchain", "LangChain", text)
