"""One request of each kind, and how often each is made."""

from __future__ import annotations

import asyncio
import io
import json
import time
import wave
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from bench.everything.clients import HANG_SECONDS, Clients, Kind, Seen, error_of, get_json, text_of_response
from bench.everything.sessions import batch, realtime

_BACKGROUND_SECONDS: Final = 150.0  # until a response in the background has ended, its worker's end included
_POLL_SECONDS: Final = 0.4


def _wav(seconds: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 8000 * seconds)
    return out.getvalue()


async def _read_json(answer: aiohttp.ClientResponse, seen: Seen) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await answer.read())
    return found


async def _read_events(answer: aiohttp.ClientResponse, seen: Seen) -> None:
    """A stream of either text API: the characters of its deltas, and how it ends."""
    data, ended, failed = b"", False, False
    async for piece in answer.content.iter_any():
        data += piece
        *events, data = data.split(b"\n\n")
        for event in events:
            line = next((line for line in event.split(b"\n") if line.startswith(b"data: ")), b"")[6:]
            if not line:
                continue
            if line == b"[DONE]":
                ended = True
                continue
            found = json.loads(line)
            if "error" in found and "choices" not in found and found.get("type") in {None, "error"}:
                failed, seen.code = True, error_of(line)[0] if found["error"] else ""
                seen.message = str((found["error"] or {}).get("message", ""))[:200]
            elif found.get("type") == "error":
                failed, seen.code, seen.message = True, str(found.get("code")), str(found.get("message"))[:200]
            elif found.get("type") == "response.failed":
                failed, error = True, found["response"].get("error") or {}
                seen.code, seen.message = str(error.get("code")), str(error.get("message"))[:200]
            text = _delta(found)
            if text and seen.first is None:
                seen.first = time.time() - seen.at
            seen.got += len(text)
            ended = ended or found.get("type") == "response.completed"
    seen.how = "wrong" if ended and failed else "error event" if failed else "whole" if ended else "wrong"
    if seen.how == "wrong":
        seen.message = "an error and the end marker" if ended else "ended without a word"


def _delta(event: Mapping[str, Any]) -> str:
    if event.get("type") == "response.output_text.delta":
        return str(event["delta"])
    return "".join(choice.get("delta", {}).get("content") or "" for choice in event.get("choices") or ())


async def _read_chat(answer: aiohttp.ClientResponse, seen: Seen) -> None:
    seen.got = len((await _read_json(answer, seen))["choices"][0]["message"]["content"])


async def _read_response(answer: aiohttp.ClientResponse, seen: Seen) -> None:
    seen.got = len(text_of_response(await _read_json(answer, seen)))


async def _read_sound(answer: aiohttp.ClientResponse, seen: Seen) -> None:
    async for piece in answer.content.iter_any():
        if seen.first is None:
            seen.first = time.time() - seen.at
        seen.got += len(piece)


async def _read_rest(answer: aiohttp.ClientResponse, seen: Seen) -> None:
    await _read_json(answer, seen)


async def _chat(clients: Clients, kind: str) -> None:
    seen, stream = clients.new(kind), kind == "chatstream"
    body: dict[str, Any] = {"model": "text", "messages": [{"role": "user", "content": clients.text(seen)}]}
    if clients.random.random() < 0.5:
        body["max_tokens"] = 200
    await clients.post(
        seen, "chat/completions", _read_events if stream else _read_chat, json={**body, "stream": stream}
    )


async def _responses(clients: Clients, kind: str) -> None:
    seen, stream = clients.new(kind), kind == "responsesstream"
    body = {"model": "text", "input": clients.text(seen), "stream": stream, "store": clients.random.random() < 0.5}
    await clients.post(seen, "responses", _read_events if stream else _read_response, json=body)


async def _embeddings(clients: Clients, kind: str) -> None:
    seen = clients.new(kind)
    await clients.post(seen, "embeddings", _read_rest, json={"model": "vectors", "input": clients.text(seen)})


async def _images(clients: Clients, kind: str) -> None:
    seen = clients.new(kind)
    body = {"model": "picture", "prompt": clients.text(seen), "n": 1 + clients.random.randrange(2)}
    await clients.post(seen, "images/generations", _read_rest, json=body)


async def _speech(clients: Clients, kind: str) -> None:
    seen = clients.new(kind)
    body = {"model": "speech", "input": clients.text(seen), "voice": "alloy"}
    await clients.post(seen, "audio/speech", _read_sound, json=body)


async def _transcription(clients: Clients, kind: str) -> None:
    seen, form = clients.new(kind), aiohttp.FormData()
    form.add_field("model", "transcript")
    form.add_field("prompt", f"Request #{seen.tag}.")
    form.add_field("file", _wav(1 + clients.random.randrange(4)), filename="a.wav", content_type="audio/wav")
    await clients.post(seen, "audio/transcriptions", _read_rest, data=form)


async def _background(clients: Clients, kind: str) -> None:
    """Begin a response, and ask for it until it has ended, whatever happens to the portal meanwhile."""
    seen = clients.new(kind)
    body = {"model": "text", "input": clients.text(seen), "background": True}
    begun: dict[str, Any] = {}

    async def read(answer: aiohttp.ClientResponse, _: Seen) -> None:
        begun.update(json.loads(await answer.read()))

    try:
        async with asyncio.timeout(HANG_SECONDS):
            url = f"{clients.base_url}/v1/responses"
            async with clients.http.post(url, headers=clients.headers(seen), json=body) as answer:
                seen.status, seen.request_id = answer.status, answer.headers.get("x-request-id", "")
                if answer.status == 200:
                    await read(answer, seen)
                else:
                    seen.code, seen.message = error_of(await answer.read())
                    seen.retry_after, seen.how = answer.headers.get("retry-after", ""), "status"
    except TimeoutError:
        seen.how = "hung"
    except (aiohttp.ClientError, ConnectionError) as error:
        seen.how, seen.message = "broken", f"{type(error).__name__}: {error}"[:200]
    until = time.monotonic() + _BACKGROUND_SECONDS
    while begun and not seen.how:
        await asyncio.sleep(_POLL_SECONDS)
        found = await get_json(clients, seen.token, f"responses/{begun['id']}")
        status = found.get("status")
        if status == "completed":
            seen.got, seen.how = len(text_of_response(found)), "whole"
        elif status not in {None, "queued", "in_progress"}:
            why = found.get("error") or {}
            seen.how, seen.code, seen.message = "failed", str(why.get("code")), str(why.get("message"))[:200]
        elif time.monotonic() > until:
            seen.how, seen.message = "hung", f"the response is still {status}"
    clients.end(seen, "whole")


async def _files(clients: Clients, kind: str) -> None:
    """Store a file, read it, delete it."""
    seen = clients.new(kind)
    content = clients.random.randbytes(1024 * clients.random.randrange(16, 400))
    headers, url = clients.headers(seen), f"{clients.base_url}/v1/files"
    form = aiohttp.FormData()
    form.add_field("purpose", "user_data")
    form.add_field("file", content, filename=f"{seen.tag}.bin", content_type="application/octet-stream")
    step = "storing"
    try:
        async with asyncio.timeout(HANG_SECONDS):
            async with clients.http.post(url, headers=headers, data=form) as answer:
                seen.status, seen.request_id = answer.status, answer.headers.get("x-request-id", "")
                stored = await answer.read()
            if seen.status == 200:
                step, name = "reading", json.loads(stored)["id"]
                async with clients.http.get(f"{url}/{name}/content", headers=headers) as answer:
                    seen.status, stored = answer.status, await answer.read()
            if seen.status == 200:
                if stored != content:
                    seen.how, seen.message = "wrong", f"{len(stored)} of {len(content)} bytes, or other ones"
                step = "deleting"
                async with clients.http.delete(f"{url}/{name}", headers=headers) as answer:
                    seen.status, stored = answer.status, await answer.read()
            if seen.status != 200:
                seen.how, (seen.code, seen.message) = "status", error_of(stored)
                seen.message = f"{step}: {seen.message}"
    except TimeoutError:
        seen.how = "hung"
    except (aiohttp.ClientError, ConnectionError) as error:
        seen.how, seen.message = "broken", f"{type(error).__name__}: {error}"[:200]
    clients.end(seen, "whole")


KINDS: Final = (
    Kind("chat", _chat, 4.0, 60),
    Kind("chatstream", _chat, 4.0, 60),
    Kind("responses", _responses, 1.5, 30),
    Kind("responsesstream", _responses, 1.5, 30),
    Kind("background", _background, 0.7, 60),
    Kind("embeddings", _embeddings, 3.0, 30),
    Kind("speech", _speech, 1.0, 20),
    Kind("transcription", _transcription, 1.0, 20),
    Kind("images", _images, 0.7, 20),
    Kind("files", _files, 0.7, 10),
    Kind("realtime", realtime, 0.4, 20),
    Kind("batch", batch, 0.25, 40),
)
