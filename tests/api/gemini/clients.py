"""Clients of Gemini's API: Google's SDK, and requests without one."""

from __future__ import annotations

from typing import Any

import httpx
from google import genai
from google.genai import types

from tests.support.server import Server

HELLO = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}
MANUAL = types.AutomaticFunctionCallingConfig(disable=True)


def sdk_at(url: str, key: str, version: str = "v1beta") -> genai.Client:
    options = types.HttpOptions(base_url=url, api_version=version, timeout=20_000)
    return genai.Client(api_key=key, vertexai=False, http_options=options)


def ask(server: Server, model: str, token: str, body: Any = None, **options: Any) -> httpx.Response:
    method, version = options.pop("method", "generateContent"), options.pop("version", "v1beta")
    headers = options.pop("headers", {"x-goog-api-key": token})
    with httpx.Client(timeout=20, trust_env=False) as client:
        address = f"{server.url}/{version}/models/{model}:{method}"
        return client.post(address, json=HELLO if body is None else body, headers=headers, **options)
