"""An upstream that answers whatever it is asked, in the API that it is asked in."""

from __future__ import annotations

from tests.support.upstream import USAGE, Call, hello


async def anything(call: Call) -> None:
    path = call.path.partition("?")[0]
    if path.endswith("/embeddings"):
        await call.reply(200, {"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "usage": USAGE})
    elif "/images/" in path:
        count = int(call.json.get("n", 1))
        await call.reply(200, {"created": 1, "data": [{"b64_json": "aGk="}] * count})
    elif path.endswith("/rerank"):
        await call.reply(200, {"results": [{"index": 0, "relevance_score": 0.5}], "usage": USAGE})
    elif path.endswith("/moderations"):
        await call.reply(200, {"id": "m", "model": "m", "results": [{"flagged": False}]})
    elif path.endswith("/audio/speech"):
        await call.reply(200, b"ID3" + bytes(400), {"content-type": "audio/mpeg"})
    elif path.endswith("/completions") and "chat" not in path:
        choice = {"text": "x", "index": 0, "finish_reason": "stop"}
        await call.reply(200, {"id": "c", "object": "text_completion", "choices": [choice], "usage": USAGE})
    else:
        await hello(call)
