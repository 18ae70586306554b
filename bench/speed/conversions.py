"""Measures what converting costs: `python -m bench.speed.conversions [--runs 30] [--requests 400]`.

For each pair of a client's API and an upstream's, the CPU time of a stream of 50 chunks and of a prompt of 1 MB with
300 messages, the least of the runs; then that of whole requests through the portal, a process of its own. Exits with 1
when a pair takes longer than it may.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

from portal.lib.json import decode_object
from tests.support.apis.pairs import DIALECTS, MODELS, PAIRS, UPSTREAMS, client_of, codec_of, event_bytes, spoken
from tests.support.load.targets import cpu_seconds, portal, started
from tests.support.server import free_port

_CHUNKS: Final = 50
_MOST_STREAM: Final = 2.5  # ms of CPU
_MOST_PROMPT: Final = 25.0
_TURNS: Final = 300
_PROMPT: Final = 1_000_000  # bytes
# Where the bench asks the portal; clients of chat are passed through, for comparison.
_PATHS: Final = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "gemini": "/v1beta/models/burst:streamGenerateContent?alt=sse",
}


def least(run: Callable[[], object], runs: int) -> float:
    """Milliseconds of CPU of the fastest of the runs."""
    gc.collect()
    gc.disable()
    took = []
    for _ in range(runs):
        begun = time.process_time_ns()
        run()
        took.append(time.process_time_ns() - begun)
    gc.enable()
    return min(took) / 1e6


def stream_of(upstream: str) -> list[bytes]:
    """The events of an answer of about 50 chunks, each of which the portal gets by itself."""
    text = "".join(f"w{number:03} " for number in range(_CHUNKS))  # each word is a chunk
    return event_bytes(upstream, spoken(upstream, "", text, []))


def converted_stream(client: str, upstream: str, events: list[bytes]) -> None:
    codec = codec_of(client, upstream)
    for event in events:
        codec.feed(event)
    codec.finish()
    if not codec.done:
        raise SystemExit(f"{upstream} for {client}: the stream did not end")


def prompt_of(client: str) -> bytes:
    """A request of 1 MB: 300 messages, of which a third are calls and their results."""
    text = "word " * (_PROMPT // _TURNS // 5)
    messages: list[Any] = []  # objects, or lists of them
    for number in range(_TURNS // 3):
        call = (f"call_{number}", "run", {"path": text})
        messages += [_said(client, "user", text), _called(client, *call), _answered(client, call[0], text)]
    messages.append(_said(client, "user", "And?"))
    name = {"responses": "input", "gemini": "contents"}.get(client, "messages")
    tool: dict[str, Any] = {"type": "object", "properties": {"path": {"type": "string"}}}
    tools: dict[str, Any] = {
        "chat": {"type": "function", "function": {"name": "run", "parameters": tool}},
        "responses": {"type": "function", "name": "run", "parameters": tool},
        "messages": {"name": "run", "input_schema": tool},
        "gemini": {"functionDeclarations": [{"name": "run", "parametersJsonSchema": tool}]},
    }
    limit = {"max_tokens": 1000} if client == "messages" else {}
    return json.dumps({"model": "m", name: messages, "tools": [tools[client]], **limit}).encode()


def _said(client: str, role: str, text: str) -> dict[str, Any]:
    if client == "gemini":
        return {"role": role, "parts": [{"text": text}]}
    return {"role": role, "content": text}


def _called(client: str, ident: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    written = json.dumps(arguments)
    if client == "gemini":
        return {"role": "model", "parts": [{"functionCall": {"id": ident, "name": name, "args": arguments}}]}
    if client == "messages":
        block = {"type": "tool_use", "id": ident, "name": name, "input": arguments}
        return {"role": "assistant", "content": [block]}
    if client == "responses":
        return {"type": "function_call", "call_id": ident, "name": name, "arguments": written}
    call = {"id": ident, "type": "function", "function": {"name": name, "arguments": written}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _answered(client: str, ident: str, text: str) -> dict[str, Any]:
    if client == "gemini":
        answered = {"id": ident, "name": "run", "response": {"result": text}}
        return {"role": "user", "parts": [{"functionResponse": answered}]}
    if client == "messages":
        return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": ident, "content": text}]}
    if client == "responses":
        return {"type": "function_call_output", "call_id": ident, "output": text}
    return {"role": "tool", "tool_call_id": ident, "content": text}


def converted_prompt(client: str, upstream: str, body: bytes) -> bytes:
    """From the bytes that the client sends to those that the upstream is sent."""
    request = decode_object(body) or {}
    hub = client_of(client, request).hub_request()
    form = UPSTREAMS[upstream].request({**hub.body, "model": MODELS[upstream]}, DIALECTS[upstream])
    return UPSTREAMS[upstream].encode(form.body, True, DIALECTS[upstream])


def requests_through_the_portal(number: int) -> dict[str, float]:
    """Milliseconds of the portal's CPU for a stream of 50 chunks of a chat upstream, by the client's API."""
    port = free_port()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.support.load.upstream", str(port)]
        with started(command, port, Path(folder) / "upstream.log"), portal(port, Path(folder)) as target:
            headers = {"authorization": f"Bearer {target.token}"}
            with httpx.Client(headers=headers, timeout=60, trust_env=False) as client:
                for api, path in _PATHS.items():
                    said = [_said(api, "user", "Say hello.")]
                    body: dict[str, Any] = {"model": "burst", "stream": True, "messages": said, "max_tokens": 500}
                    if api == "gemini":
                        body = {"contents": said}
                    url = f"http://127.0.0.1:{target.port}{path}"

                    def ask(times: int, url: str = url, body: dict[str, Any] = body) -> None:
                        for _ in range(times):
                            answer = client.post(url, json=body).raise_for_status()
                            if b"word48" not in answer.content:
                                raise SystemExit(f"{url}: {answer.text[:500]}")

                    ask(20)
                    best = []
                    for _ in range(4):
                        before = cpu_seconds(target.process.pid)
                        ask(number // 4)
                        best.append(1000 * (cpu_seconds(target.process.pid) - before) / (number // 4))
                    found[api] = min(best)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--requests", type=int, default=400, help="through the portal, for each API; 0: none")
    options = parser.parse_args()
    slow = False
    print("| client | upstream | 50 chunks, CPU ms | 1 MB and 300 messages, CPU ms |")
    print("|---|---|--:|--:|")
    for client, upstream in PAIRS:
        events, body = stream_of(upstream), prompt_of(client)
        stream = least(lambda: converted_stream(client, upstream, events), options.runs)  # noqa: B023  # called here
        prompt = least(lambda: converted_prompt(client, upstream, body), max(5, options.runs // 3))  # noqa: B023
        slow = slow or stream > _MOST_STREAM or prompt > _MOST_PROMPT
        print(f"| {client} | {upstream} | {stream:.2f} | {prompt:.1f} |", flush=True)
    if options.requests:
        print("\n| client | the portal's CPU for a stream of 50 chunks of a chat upstream, ms |")
        print("|---|--:|")
        for api, took in requests_through_the_portal(options.requests).items():
            slow = slow or took > _MOST_STREAM
            print(f"| {api} | {took:.2f} |", flush=True)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
