"""An upstream that answers every API with a valid response: `python -m bench.api.every_api PORT`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tests.support.upstream import USAGE, Call, Upstream, completion, hello

_USED = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 16,
}
_RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "m",
    "output": [],
    "tools": [],
    "metadata": {},
    "parallel_tool_calls": True,
    "usage": _USED,
}
_ANSWERS: dict[str, Any] = {
    "/completions": {
        "id": "c",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": [{"text": "x", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
    },
    "/responses": _RESPONSE,
    "/compact": {**_RESPONSE, "object": "response.compaction"},
    "/input_tokens": {"object": "response.input_tokens", "input_tokens": 3},
    "/embeddings": {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    },
    "/moderations": {
        "id": "m",
        "model": "m",
        "results": [{"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}],
    },
    "/generations": {"created": 1, "data": [{"b64_json": "AA=="}]},
    "/edits": {"created": 1, "data": [{"b64_json": "AA=="}]},
    "/variations": {"created": 1, "data": [{"url": "x"}]},
    "/transcriptions": {"text": "x"},
    "/translations": {"text": "x"},
    "/rerank": {"results": [{"index": 0, "relevance_score": 0.5}], "usage": {"total_tokens": 3}},
}


async def every_api(call: Call) -> None:
    """Answer with a valid response for the path, as a stream if requested."""
    tail = "/" + call.path.rpartition("/")[2]
    streamed = call.json.get("stream") in (True, "true") if call.body else False
    if call.path.endswith("/chat/completions"):
        if streamed:
            await hello(call)
        else:
            await call.reply(200, completion())
    elif call.path.endswith("/audio/speech"):
        await call.reply(200, b"ID3" * 100, {"content-type": "audio/mpeg"})
    elif streamed and tail == "/responses":
        await call.open_stream()
        for number, kind in enumerate(("created", "completed")):
            await call.event({"type": f"response.{kind}", "sequence_number": number, "response": _RESPONSE})
        await call.end()
    elif streamed and tail in {"/generations", "/edits", "/transcriptions"}:
        kind = {
            "/generations": "image_generation.completed",
            "/edits": "image_edit.completed",
            "/transcriptions": "transcript.text.done",
        }[tail]
        await call.open_stream()
        for _ in range(int(call.json.get("n") or 1)):
            await call.event({"type": kind, "text": "x", "b64_json": "AA=="})
        await call.end()
    elif streamed and tail == "/completions":
        await call.open_stream()
        await call.event(_ANSWERS[tail])
        await call.event("[DONE]")
        await call.end()
    else:
        await call.reply(200, json.dumps(_ANSWERS.get(tail, {})).encode())


class _Everything(dict[str, Any]):
    """Scripts by model: the same one for every name."""

    def get(self, key: str, default: Any = None) -> Any:
        return every_api


async def main(port: int) -> None:
    upstream = Upstream(port)
    upstream.scripts = _Everything()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
