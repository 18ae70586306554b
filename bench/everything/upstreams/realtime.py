"""Realtime sessions of the run's upstreams: each response and transcription is counted as one attempt.

A session is named by the tag in its instructions. A response speaks for half a second and can be cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import WSMsgType, web

from bench.everything.tariff import add, tokens_of
from bench.everything.upstreams.counting import TAG, UPSTREAMS, WORD, Attempt, Upstreams

_TICK: Final = 0.08  # seconds between deltas
_SOUND: Final = "A" * 16_000  # Base64 of a quarter of a second, 24,000 samples of 16 bits a second
_SOUND_TOKENS: Final = 5  # of it
_BYTES_PER_SECOND: Final = 48_000


class _Session:
    """One connection."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse, upstreams: Upstreams) -> None:
        self._request, self._socket, self._upstreams = request, socket, upstreams
        self._tag, self._fault, self._heard, self._number = "", "", 0, 0
        self._text = 8  # tokens of the conversation so far
        self._audio = 0
        self._cancelled = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    async def _say(self, kind: str, **more: Any) -> None:
        await self._socket.send_json({"type": kind, "event_id": f"event_{self._number}", **more})

    async def run(self) -> None:
        session = {"type": "realtime", "object": "realtime.session", "model": self._request.query.get("model", "")}
        await self._say("session.created", session=session)
        try:
            async for message in self._socket:
                if message.type is WSMsgType.TEXT:
                    await self._event(json.loads(message.data))
        finally:
            if self._work is not None:
                self._work.cancel()
                await asyncio.gather(self._work, return_exceptions=True)

    async def _event(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "session.update":
            session = event["session"]
            found = TAG.search(str(session.get("instructions", "")))
            if found:
                self._tag = found[1]
                self._fault = self._upstreams.begin(self._request, "realtime", f"#{self._tag}").fault
            self._text += tokens_of(str(session.get("instructions", "")))
            await self._say("session.updated", session={**session, "object": "realtime.session"})
        elif kind == "conversation.item.create":
            text = "".join(part.get("text", "") for part in event["item"]["content"])
            self._text += tokens_of(text)
        elif kind == "input_audio_buffer.append":
            self._heard += len(event["audio"]) * 3 // 4
        elif kind == "input_audio_buffer.commit":
            await self._transcribe()
        elif kind == "response.create":
            self._cancelled.clear()
            self._work = asyncio.ensure_future(self._respond())
        elif kind == "response.cancel":
            self._cancelled.set()

    def _begin(self, model: str) -> Attempt:
        self._number += 1
        attempt = Attempt(self._tag, "realtime", self._request.match_info["channel"], "")
        attempt.model = model
        return attempt

    async def _transcribe(self) -> None:
        seconds, self._heard = self._heard // _BYTES_PER_SECOND, 0
        attempt, item = self._begin("transcript"), f"item_{self._number}"
        self._audio += 10 * seconds
        try:
            await self._say("input_audio_buffer.committed", item_id=item, previous_item_id=None)
            await asyncio.sleep(_TICK)
            add(attempt.counted, {"milliseconds": 1000 * seconds})
            done = "conversation.item.input_audio_transcription.completed"
            usage = {"type": "duration", "seconds": seconds}
            await self._say(done, item_id=item, content_index=0, transcript=WORD * seconds, usage=usage)
            attempt.reported, attempt.end = True, "whole"
        except ConnectionError:
            pass  # the portal has closed
        finally:
            self._upstreams.write(attempt)

    async def _respond(self) -> None:
        attempt = self._begin("talk")
        attempt.fault = self._fault if self._fault in {"cut", "stall"} else ""
        name = f"resp_{self._tag}_{self._number}"
        try:
            await self._make(attempt, name)
        except ConnectionError:
            pass  # the portal has closed
        finally:
            self._upstreams.write(attempt)

    async def _make(self, attempt: Attempt, name: str) -> None:
        add(attempt.counted, {"input": self._text + self._audio, "audio_input": self._audio, "cached": 4})
        await self._say(
            "response.created", response={"id": name, "object": "realtime.response", "status": "in_progress"}
        )
        at = {"response_id": name, "item_id": f"item_{name}", "output_index": 0, "content_index": 0}
        for tick in range(8):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._cancelled.wait(), _TICK)
            if self._cancelled.is_set():
                break
            if tick == 4 and attempt.fault:
                if attempt.fault == "cut" and self._request.transport is not None:
                    attempt.end = "cut"
                    self._request.transport.abort()
                    return
                attempt.end = "cut"
                await self._socket.close(code=1011, message=b"internal error")
                return
            if tick in {2, 5}:
                add(attempt.counted, {"output": _SOUND_TOKENS, "audio_output": _SOUND_TOKENS})
                await self._say("response.output_audio.delta", delta=_SOUND, **at)
            else:
                text = WORD * 4
                add(attempt.counted, {"output": tokens_of(text)})
                attempt.sent += len(text)
                await self._say("response.output_audio_transcript.delta", delta=text, **at)
        status = "cancelled" if self._cancelled.is_set() else "completed"
        response = {"id": name, "object": "realtime.response", "status": status, "output": []}
        self._text += attempt.counted.get("output", 0)
        await self._say("response.done", response={**response, "usage": _usage(attempt.counted)})
        attempt.reported, attempt.end, attempt.status = True, "whole", status


def _usage(counted: Mapping[str, int]) -> dict[str, Any]:
    output, spoken = counted.get("output", 0), counted.get("audio_output", 0)
    heard = counted["audio_input"]
    cached = {"text_tokens": counted["cached"], "audio_tokens": 0}
    text = counted["input"] - heard
    return {
        "total_tokens": counted["input"] + output,
        "input_tokens": counted["input"],
        "output_tokens": output,
        "input_token_details": {
            "text_tokens": text,
            "audio_tokens": heard,
            "cached_tokens": counted["cached"],
            "cached_tokens_details": cached,
        },
        "output_token_details": {"text_tokens": output - spoken, "audio_tokens": spoken},
    }


async def realtime(request: web.Request) -> web.StreamResponse:
    """The handshake, and a session."""
    upstreams = request.app[UPSTREAMS]
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    socket = web.WebSocketResponse(protocols=("realtime",), max_msg_size=20 << 20)
    chance = upstreams.begin(request, "realtime", "#handshake-00000000").fault  # as often as any request fails
    if chance in {"500", "503", "429"}:
        return web.json_response({"error": {"message": "Overloaded.", "type": "server_error"}}, status=int(chance))
    await socket.prepare(request)
    if key in upstreams.dead:
        error = {"type": "invalid_request_error", "code": "invalid_api_key", "message": "Incorrect API key provided."}
        await socket.send_json({"type": "error", "event_id": "event_0", "error": {**error, "param": None}})
        await socket.close(code=3000, message=b"invalid_request_error.invalid_api_key")
        return socket
    try:
        await _Session(request, socket, upstreams).run()
    except ConnectionError:
        pass  # the portal has closed
    return socket
