"""An upstream as Amazon Bedrock's runtime, for `tests.support.upstream`: as strict as the real one.

Signatures are checked over what arrived, in the canonical form of AWS's IAM user guide. Source: that guide, botocore
1.44, and the Bedrock client of Anthropic's SDK 2.14; November 2026.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from tests.support.peers import messages
from tests.support.peers.clouds import frames
from tests.support.upstream import Call, Script

REGION = "us-east-1"
_PATH = re.compile(r"/model/([^/]+)/(invoke|invoke-with-response-stream)")
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([A-Z0-9]+)/(\d{8})/([a-z0-9-]+)/bedrock/aws4_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)
_MEMBERS = {
    "anthropic_version", "anthropic_beta", "max_tokens", "messages", "system", "stop_sequences", "temperature", "top_p",
    "top_k", "tools", "tool_choice", "thinking", "metadata", "output_config", "context_management",
}  # fmt: skip
_BETAS = {"interleaved-thinking-2025-05-14", "context-1m-2025-08-07", "fine-grained-tool-streaming-2025-05-14"}


@dataclass
class Account:
    """Who may call: an API key, or an access key."""

    api_key: str = "ABSKQmVkcm9ja0FQSUtleS10ZXN0OnNlY3JldA"
    key_id: str = "AKIAIOSFODNN7EXAMPLE"
    secret: str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    token: str = ""
    refused: list[str] = field(default_factory=list)  # why, of the requests that were

    def fault(self, call: Call) -> tuple[str, str] | None:
        """The exception and the message for a request that is not let in."""
        told = call.headers.get("authorization", "")
        if told.startswith("Bearer "):
            if told == f"Bearer {self.api_key}":
                return None
            return "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid."
        found = _AUTHORIZATION.fullmatch(told)
        if found is None:
            return "MissingAuthenticationTokenException", "Missing Authentication Token"
        key_id, day, region, names, signature = found.groups()
        if key_id != self.key_id or call.headers.get("x-amz-security-token", "") != self.token:
            return "UnrecognizedClientException", "The security token included in the request is invalid."
        if self.signature(call, day, region, names.split(";")) != signature:
            text = (
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
                "Access Key and signing method. Consult the service documentation for details."
            )
            return "InvalidSignatureException", text
        return None

    def signature(self, call: Call, day: str, region: str, names: list[str]) -> str:
        path, _, query = call.path.partition("?")
        canonical = "\n".join(
            [
                call.method,
                quote(path, safe="/-_.~"),
                "&".join(sorted(query.split("&"))) if query else "",
                *(f"{name}:{call.headers[name]}" for name in names),
                "",
                ";".join(names),
                hashlib.sha256(call.body).hexdigest(),
            ]
        )
        scope = f"{day}/{region}/bedrock/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{call.headers['x-amz-date']}\n{scope}\n{digest}"
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


async def refuse(call: Call, status: int, name: str, text: str) -> None:
    headers = {"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
    await call.reply(status, {"message": text}, headers)


def refusing(status: int, name: str, text: str) -> Script:
    async def script(call: Call) -> None:
        await refuse(call, status, name, text)

    return script


def saying(account: Account, *content: dict[str, Any], ending: bytes = b"", **more: Any) -> Script:
    """Answers every request, which must be right, with a message. `ending`: in place of the last two events."""
    whole = messages.message(*content, **more)

    async def script(call: Call) -> None:
        fault = account.fault(call)
        found = _PATH.fullmatch(call.path)
        if fault is not None:
            account.refused.append(fault[0])
            await refuse(call, 403, *fault)
        elif found is None:
            await refuse(call, 404, "UnknownOperationException", "")
        elif wrong := _wrong(call):
            await refuse(call, 400, "ValidationException", wrong)
        elif found[2] == "invoke":
            await call.reply(200, whole, {"x-amzn-bedrock-input-token-count": "19"})
        else:
            await _stream(call, messages.events(whole), ending)

    return script


async def _stream(call: Call, events: list[dict[str, Any]], ending: bytes) -> None:
    await call.raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    events = [one for one in events if one["type"] != "ping"]  # Bedrock sends none
    events[-1]["amazon-bedrock-invocationMetrics"] = {"inputTokenCount": 9, "outputTokenCount": 7}
    for one in events[:-2] if ending else events:
        await call.send(frames.chunk(one))
    if ending:
        await call.send(ending)
    await call.end()


def _wrong(call: Call) -> str:
    body = call.json
    if unknown := body.keys() - _MEMBERS:
        return f"{min(unknown)}: Extra inputs are not permitted"
    if body.get("anthropic_version") not in {"bedrock-2023-05-31", "2026-10-21"}:
        return "anthropic_version: Field required"
    if not set(body.get("anthropic_beta", ())) <= _BETAS:
        return "invalid beta flag"
    headers = {**call.headers, "anthropic-version": "2023-06-01"}
    return messages.fault(replace(call, path="/v1/messages", headers=headers))


def listing(account: Account, *profiles: str) -> Script:
    """The inference profiles of a region, as the control plane lists them."""

    async def script(call: Call) -> None:
        fault = account.fault(call)
        if fault is not None:
            await refuse(call, 403, *fault)
        elif call.path != "/inference-profiles?maxResults=1000":
            await refuse(call, 404, "UnknownOperationException", "")
        else:
            listed = [{"inferenceProfileId": name, "status": "ACTIVE", "type": "SYSTEM_DEFINED"} for name in profiles]
            await call.reply(200, {"inferenceProfileSummaries": listed})

    return script
