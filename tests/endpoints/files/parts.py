"""Parts of messages that carry files."""

from __future__ import annotations

import base64


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
