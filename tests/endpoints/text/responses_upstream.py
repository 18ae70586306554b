"""A scripted upstream of responses."""

from __future__ import annotations

import time
from typing import Any

from tests.support.upstream import Call

USED = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 16,
}


def response(number: int, text: str, **more: Any) -> dict[str, Any]:
    item = {
        "id": f"msg_{number}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
    }
    return {
        "id": f"resp_{number:032x}",
        "object": "response",
        "created_at": 1700000000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": "u",
        "output": [item],
        "parallel_tool_calls": True,
        "tools": [],
        "tool_choice": "auto",
        "metadata": {},
        "temperature": 1.0,
        "top_p": 1.0,
        "usage": USED,
        "text": {"format": {"type": "text"}},
        "previous_response_id": None,
        **more,
    }


class Upstream:
    """Speaks responses natively, and remembers what it was asked and the ids it gave.

    `forgets`: it does not know earlier responses. `continues`: it does not ignore what it goes on from.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.made: list[str] = []
        self.deleted: list[str] = []
        self.forgets, self.continues = False, True

    async def __call__(self, call: Call) -> None:
        if call.method == "DELETE":
            self.deleted.append(call.path.rpartition("/")[2])
            await call.reply(200, {"deleted": True})
            return
        assert call.path == "/v1/responses", call.path
        body = call.json
        self.asked.append(body)
        if self.forgets and body.get("previous_response_id"):
            await call.reply(
                400,
                {
                    "error": {
                        "message": "Previous response not found.",
                        "type": "invalid_request_error",
                        "param": "previous_response_id",
                        "code": "previous_response_not_found",
                    }
                },
            )
            return
        number = int(time.time_ns()) % 10**12
        answer = response(number, f"answer {len(self.asked)}", metadata=body.get("metadata") or {})
        answer["previous_response_id"] = body.get("previous_response_id") if self.continues else None
        self.made.append(answer["id"])
        if not body.get("stream"):
            await call.reply(200, answer)
            return
        await call.open_stream()
        begun = {**answer, "status": "in_progress", "output": [], "usage": None}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            {"type": "response.in_progress", "response": begun},
            {
                "type": "response.output_item.added",
                "output_index": 0,
                "item": {**answer["output"][0], "content": [], "status": "in_progress"},
            },
            {
                "type": "response.content_part.added",
                "output_index": 0,
                "content_index": 0,
                "item_id": answer["output"][0]["id"],
                "part": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
            },
            {
                "type": "response.output_text.delta",
                "output_index": 0,
                "content_index": 0,
                "item_id": answer["output"][0]["id"],
                "delta": "answer",
                "logprobs": [],
            },
            {"type": "response.output_item.done", "output_index": 0, "item": answer["output"][0]},
            {"type": "response.completed", "response": {**answer, "output": []}},  # as some do
        ]
        for number, event in enumerate(events):
            await call.event({**event, "sequence_number": number})
        await call.end()
