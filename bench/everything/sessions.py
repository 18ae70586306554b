"""The clients of the run that stay: realtime sessions, and users who send one batch after another."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

import aiohttp

from bench.everything.clients import HANG_SECONDS, Clients, Seen, error_of, get_json, text_of_response

_APPEND: Final = "A" * 16_000  # Base64 of a quarter of a second of PCM at 24 kHz
_LINES: Final = 12  # of a batch
_BATCH_SECONDS: Final = 240.0  # in which such a batch has to end, with restarts in its way
_ENDED: Final = {"completed", "failed", "expired", "cancelled"}


async def realtime(clients: Clients, kind: str) -> None:
    """A session of one to three spoken questions, each answered; one of ten leaves while it is answered."""
    seen = clients.new(kind)
    url = f"{clients.base_url.replace('http', 'ws', 1)}/v1/realtime?model=talk"
    leaves = clients.random.random() < 0.1
    try:
        async with asyncio.timeout(HANG_SECONDS):
            async with clients.http.ws_connect(url, headers=clients.headers(seen), max_msg_size=20 << 20) as socket:
                seen.status = 101
                await _talk(socket, seen, 1 + clients.random.randrange(3), leaves)
    except TimeoutError:
        seen.how = "hung"
    except aiohttp.WSServerHandshakeError as refused:
        seen.how, seen.status, seen.message = "status", refused.status, refused.message
    except (aiohttp.ClientError, ConnectionError) as error:
        seen.how, seen.message = "broken", f"{type(error).__name__}: {error}"[:200]
    clients.end(seen, "whole")


async def _talk(socket: aiohttp.ClientWebSocketResponse, seen: Seen, turns: int, leaves: bool) -> None:
    async def say(event: dict[str, Any]) -> None:
        await socket.send_str(json.dumps(event))

    async def until(*kinds: str) -> bool:
        """Whether such an event came; otherwise the session has ended."""
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            event = json.loads(message.data)
            if event["type"] == "error":
                error = event["error"]
                seen.how, seen.code, seen.message = "error event", str(error.get("code")), str(error.get("message"))
            seen.got += len(event["delta"]) if event["type"] == "response.output_audio_transcript.delta" else 0
            if event["type"] in kinds:
                return True
        if not seen.how:
            seen.how, seen.code = "broken", str(socket.close_code)
        return False

    if not await until("session.created"):
        return
    audio = {"input": {"transcription": {"model": "transcript"}, "turn_detection": None}}
    instructions = f"Session #{seen.tag}."
    await say({"type": "session.update", "session": {"type": "realtime", "instructions": instructions, "audio": audio}})
    for turn in range(turns):
        for _ in range(4):
            await say({"type": "input_audio_buffer.append", "audio": _APPEND})
            await asyncio.sleep(0.05)
        await say({"type": "input_audio_buffer.commit"})
        if not await until("conversation.item.input_audio_transcription.completed"):
            return
        content = [{"type": "input_text", "text": "Tell me more of it."}]
        await say({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}})
        began = time.monotonic()
        await say({"type": "response.create"})
        if leaves and turn == turns - 1:
            await until("response.output_audio.delta")
            seen.how = seen.how or "left"
            return
        if not await until("response.done"):
            return
        seen.turns.append(time.monotonic() - began)
        seen.done += 1
        await asyncio.sleep(0.3)


# -- batches -----------------------------------------------------------------------------------------------------------


async def _insist(clients: Clients, token: int, method: str, path: str, until: float, **body: Any) -> bytes:
    """The answer of a request that is tried until it succeeds; empty when the time is over. Raises ValueError."""
    headers = {"authorization": f"Bearer {clients.tokens[token]}"}
    while time.monotonic() < until:
        try:
            async with asyncio.timeout(HANG_SECONDS):
                url = f"{clients.base_url}/v1/{path}"
                async with clients.http.request(method, url, headers=headers, **body) as answer:
                    data = await answer.read()
                    if answer.status == 200:
                        return data
                    if answer.status != 503:
                        raise ValueError(f"{answer.status} {data[:200]!r}")
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            pass
        await asyncio.sleep(0.5)
    return b""


async def batch(clients: Clients, kind: str) -> None:
    """A batch of one of three endpoints, followed to its end."""
    seen = clients.new(kind)
    until = time.monotonic() + _BATCH_SECONDS
    endpoint = clients.random.choice(("chat/completions", "responses", "embeddings"))
    lines = [clients.new("batchline") for _ in range(_LINES)]
    seen.lines = [line.tag for line in lines]
    content = "".join(json.dumps(_line(clients, endpoint, line)) + "\n" for line in lines).encode()
    try:
        found = await _begin_batch(clients, seen, endpoint, content, until)
        while found and found.get("status") not in _ENDED and time.monotonic() < until:
            await asyncio.sleep(0.3)
            found = await get_json(clients, seen.token, f"batches/{found['id']}") or found
        if found.get("status") != "completed":
            seen.how, seen.message = "hung", f"{found.get('id')} is {found.get('status')}: {found.get('waiting_for')}"
        else:
            seen.seconds = time.time() - seen.at
            await _read_lines(clients, seen, found, lines, endpoint, until)
    except ValueError as error:
        seen.how, seen.message = "wrong", str(error)
    for line in lines:
        line.token, line.seconds = seen.token, time.time() - line.at
        line.how = line.how or "missing"
        clients.seen.append(line)
    seen.how = seen.how or "whole"
    seen.seconds = seen.seconds or time.time() - seen.at
    clients.seen.append(seen)


def _line(clients: Clients, endpoint: str, line: Seen) -> dict[str, Any]:
    text = clients.text(line)
    bodies: dict[str, dict[str, Any]] = {
        "chat/completions": {"model": "text", "messages": [{"role": "user", "content": text}]},
        "responses": {"model": "text", "input": text},
        "embeddings": {"model": "vectors", "input": text},
    }
    return {"custom_id": line.tag, "method": "POST", "url": f"/v1/{endpoint}", "body": bodies[endpoint]}


async def _begin_batch(clients: Clients, seen: Seen, endpoint: str, content: bytes, until: float) -> dict[str, Any]:
    """Send the file, and begin the batch: once, since a second try might begin it twice."""
    stored = b""
    while not stored and time.monotonic() < until:
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", content, filename="batch.jsonl")
        stored = await _insist(clients, seen.token, "POST", "files", time.monotonic() + 1, data=form)
    if not stored:
        return {}
    wanted = {"input_file_id": json.loads(stored)["id"], "endpoint": f"/v1/{endpoint}", "completion_window": "24h"}
    mark = {"metadata": {"tag": seen.tag}}
    seen.at = time.time()
    while time.monotonic() < until:
        made = await _insist(clients, seen.token, "POST", "batches", time.monotonic() + 1, json={**wanted, **mark})
        if made:
            found: dict[str, Any] = json.loads(made)
            return found
        await asyncio.sleep(3)  # it may have been made, and the answer lost
        for one in (await get_json(clients, seen.token, "batches?limit=100")).get("data", []):
            if (one.get("metadata") or {}).get("tag") == seen.tag:
                return dict(one)
    return {}


async def _read_lines(
    clients: Clients, seen: Seen, found: dict[str, Any], lines: list[Seen], endpoint: str, until: float
) -> None:
    by_tag = {line.tag: line for line in lines}
    for name in ("output_file_id", "error_file_id"):
        if not found.get(name):
            continue
        content = await _insist(clients, seen.token, "GET", f"files/{found[name]}/content", until + 60)
        for row in content.decode().splitlines():
            one = json.loads(row)
            line, response = by_tag[one["custom_id"]], one["response"] or {}
            if line.how:
                raise ValueError(f"line {line.tag} is there twice")
            line.status, line.request_id = response.get("status_code", 0), response.get("request_id", "")
            line.how = "whole" if line.status == 200 else "status"
            if line.how == "status":
                body = response.get("body") or {"error": one.get("error")}
                line.code, line.message = error_of(json.dumps(body).encode())
            elif endpoint == "responses":
                line.got = len(text_of_response(response["body"]))
            elif endpoint == "chat/completions":
                line.got = len(response["body"]["choices"][0]["message"]["content"])
