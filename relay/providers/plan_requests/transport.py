"""The way out to a plan: signs requests in a person's name, reads the usage windows, and says what a plan refuses.

A request is sent once more after a 401, with a token that was refreshed for it; after a second 401 it fails.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import httpx

from portal.lib.json import Json, decode_object, int_of, object_of, text_of
from relay.errors import PlanAuthError, PlanForbidden, PlanLimitError, RelayError
from relay.protocols.events import EventReader, TooLarge, payload
from relay.providers.credentials.contract import SIGNER
from relay.providers.credentials.signing import Answer, SigningTransport
from relay.providers.failures import FailureClass
from relay.providers.plan_requests.body import as_taken
from relay.providers.plans import windows
from relay.providers.plans.contract import PlanSigner
from relay.providers.vendors import PRIVATE, WRAPPED
from relay.transport.body import Body, BodyStream, ChangedStream, UpstreamResponse

SESSION_HEADER: Final = "session-id"  # in which the gateway names the conversation
_MOST_ERROR: Final = 64 * 1024  # bytes of an error that are read
_EVENT_MARK: Final = windows.EVENT.encode()
_MOST_EVENT: Final = 64 * 1024  # bytes of an event that is read
_LONGEST_WINDOW: Final = 40 * 86_400  # seconds; who says more does not say when it begins again
_USED_UP: Final = frozenset(
    ("usage_limit_reached", "usage_limit_exceeded", "rate_limit_reached", "subscription_sharing_usage_limit_exceeded")
)
_NOT_ELIGIBLE: Final = ("not_eligible", "usage_not_included", "chatpass_v2_", "route_not_supported")


class PlanRefused(httpx.TransportError):
    """A request could not be made in the person's name, or the plan refused it."""

    def __init__(self, error: RelayError, kind: FailureClass, status: int = 0) -> None:
        super().__init__(error.message)
        self.error, self.kind, self.status = error, kind, status


def signed_out(state: str) -> PlanRefused:
    return PlanRefused(PlanAuthError(state), FailureClass.KEY_DEAD)


class PlanTransport(httpx.AsyncBaseTransport):
    """Sends requests that bring a PlanSigner (the extension SIGNER)."""

    def __init__(self, send: httpx.AsyncBaseTransport) -> None:
        self._send = send

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises PlanRefused, and as the transport behind it does."""
        signer: PlanSigner | None = request.extensions.get(SIGNER)
        if signer is None:
            raise signed_out("missing")
        headers = dict(request.extensions["headers"])
        body = _content(request)
        if talk := headers.pop(SESSION_HEADER, ""):
            headers[signer.shape.session_header] = talk
        taken = Body(as_taken(body, signer.shape))
        request.stream = taken
        headers = {name: value for name, value in headers.items() if name != "content-length"}
        headers["content-length"], headers["accept"] = str(taken.size), "text/event-stream"
        used = await self._sign(request, headers, signer)
        response = await self._send.handle_async_request(request)
        if response.status_code == 401:
            await response.aclose()
            await signer.renew(used, self._send)
            await self._sign(request, headers, signer)
            response = await self._send.handle_async_request(request)
        return await _read(response, signer)

    async def _sign(self, request: httpx.Request, headers: Mapping[str, str], signer: PlanSigner) -> Mapping[str, str]:
        used = await signer.signed(request, self._send)
        request.extensions["headers"] = {**headers, **used}
        return used


def _content(request: httpx.Request) -> bytes:
    stream = request.stream
    if not isinstance(stream, Body):
        return b""
    return stream.content if isinstance(stream.content, bytes) else b"".join(stream.content)


async def _read(response: httpx.Response, signer: PlanSigner) -> httpx.Response:
    """The response as the gateway reads it, its windows noted. Raises PlanRefused."""
    now = time.time()
    if found := windows.windows_of_headers(response.headers, now):
        signer.saw(found)
    if response.status_code == 401:
        await response.aclose()
        raise PlanRefused(PlanAuthError("rejected"), FailureClass.KEY_DEAD, 401)
    if response.status_code >= 400:
        body = b""
        async for piece in response.stream:  # type: ignore[union-attr]  # asynchronous: of this transport
            body += piece
            if len(body) > _MOST_ERROR:
                break
        await response.aclose()
        if (refused := refusal(response.status_code, response.headers, body, now)) is not None:
            raise refused
        return httpx.Response(response.status_code, headers=response.headers, stream=Answer(body))
    if isinstance(response, UpstreamResponse):
        response.stream = WatchedStream(response.stream, signer)  # type: ignore[arg-type]  # a BodyStream
    return response


def refusal(status: int, headers: Mapping[str, str], body: bytes, now: float) -> PlanRefused | None:
    """What a plan refuses for its own reasons; None: what any upstream may say, and is judged as theirs."""
    found = decode_object(body) or {}
    error = object_of(found, "error") or object_of(found, "detail")
    words = {text_of(error, "code"), text_of(error, "type"), text_of(found, "code")} - {""}
    if status == 429 and (words & _USED_UP or not words):
        wait = _reset(error, headers, now) if words != {"subscription_sharing_usage_limit_exceeded"} else None
        if wait is None and not words:
            return None
        limited = PlanLimitError(
            "The usage limit of your ChatGPT plan is reached. See https://chatgpt.com/settings/usage; nothing else "
            "answers in its place.",
            code=min(words & _USED_UP, default="usage_limit_reached"),
            retry_after=wait,
        )
        limited.extra = dict(windows.headers_to_pass(headers.items()))
        return PlanRefused(limited, FailureClass.RATE, status)
    if status == 403 and any(mark in word for word in words for mark in _NOT_ELIGIBLE):
        return PlanRefused(
            PlanForbidden("Your ChatGPT plan does not include this use. The portal's page “ChatGPT” links its terms."),
            FailureClass.CLIENT,
            status,
        )
    if status == 403 and not found:  # a page that stands before the vendor's servers
        return PlanRefused(
            PlanForbidden("The vendor refused this request before it reached the plan.", code="upstream_refused"),
            FailureClass.TRANSIENT,
            status,
        )
    return None


def _reset(error: Json, headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until a window begins again, as the answer says; None: it does not, and none is inferred."""
    seconds = int_of(error, "resets_in_seconds")
    if 0 < seconds <= _LONGEST_WINDOW:
        return float(seconds)
    at = int_of(error, "resets_at")
    if now < at <= now + _LONGEST_WINDOW:
        return at - now
    value = headers.get("retry-after", "")
    wait = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0
    return float(wait) if 0 < wait <= _LONGEST_WINDOW else None


def way_out(provider: str, send: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
    """The way out to a vendor, by its key, over a transport."""
    if provider in PRIVATE:
        return PlanTransport(send)
    return SigningTransport(send) if provider in WRAPPED else send


class WatchedStream(ChangedStream):
    """The events of an answer, without those that tell of usage windows, which are noted."""

    def __init__(self, body: BodyStream, signer: PlanSigner) -> None:
        super().__init__(body)
        self._signer, self._reader, self._ended = signer, EventReader(), False

    async def read(self) -> bytes:
        """The events that have arrived, at least one; empty at the end. Raises httpx.TransportError."""
        while not self._ended:
            data = await self._body.read()
            self._ended = not data
            try:
                events = self._reader.feed(data) if data else self._reader.finish()
            except TooLarge:
                raise httpx.ReadError("an event is too large") from None
            if kept := b"".join(event for event in events if not self._noted(event)):
                return kept
        return b""

    def _noted(self, event: bytes) -> bool:
        if _EVENT_MARK not in event[:200] or len(event) > _MOST_EVENT:
            return False
        found = decode_object(payload(event)) or {}
        if text_of(found, "type") != windows.EVENT:
            return False
        if told := windows.windows_of_event(found, time.time()):
            self._signer.saw(told)
        return True
