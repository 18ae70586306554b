"""Batches as the SDK makes them and waits for them."""

from __future__ import annotations

import json
from typing import Any

from openai import OpenAI

from tests.support.asserts import until


def lines(model: str, count: int, url: str = "/v1/chat/completions", **more: Any) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], **more}
    return "\n".join(
        json.dumps({"custom_id": f"r{number}", "method": "POST", "url": url, "body": body}) for number in range(count)
    ).encode()


def submit(sdk: OpenAI, content: bytes, endpoint: Any = "/v1/chat/completions") -> Any:
    file = sdk.files.create(file=("b.jsonl", content), purpose="batch")
    return sdk.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


def wait_for(sdk: OpenAI, batch_id: str) -> Any:
    return until(
        lambda: (
            (found := sdk.batches.retrieve(batch_id)).status in {"completed", "failed", "expired", "cancelled"}
            and found
        )
    )


def results(sdk: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sdk.files.content(file_id).text.splitlines()] if file_id else []
