"""The way out to clouds: signs requests one by one, and takes off what a cloud puts around its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import httpx

from portal.lib.json import Json, encode
from relay.protocols.framing import event_stream, lines
from relay.protocols.framing.event_stream import with_error_type
from relay.providers.credentials.contract import SIGNER, KeyRefused, Signer
from relay.transport.body import BodyStream, ChangedStream, UpstreamResponse, UpstreamStream

_ERROR_TYPE: Final = "x-amzn-errortype"
_MOST: Final = 64 * 1024  # bytes of an error
# Framings of streams other than server-sent events, by their content types.
_FRAMINGS: Final[Mapping[str, Callable[[], Events]]] = {
    event_stream.CONTENT_TYPE: event_stream.EventsOfFrames,
    lines.CONTENT_TYPE: lines.EventsOfLines,
}
_OF_THE_BODY: Final = frozenset(("content-length", "content-encoding", "transfer-encoding", "content-type"))


class Answer(BodyStream):
    """A body that is there as a whole."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def at_end(self) -> bool:
        return not self._body

    def close(self) -> None:
        self._body = b""


class SigningTransport(httpx.AsyncBaseTransport):
    """Signs the requests that bring a signer (the extension SIGNER), and sends them all on.

    A key for which there is no token is answered as by an upstream that refuses it, so that it is classified, explained
    and taken out of service in the same way.
    """

    def __init__(self, send: httpx.AsyncBaseTransport, signer: Signer | None = None) -> None:
        """`signer`: of requests that bring none."""
        self._send, self._signer = send, signer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises as the transport behind it does."""
        signer: Signer | None = request.extensions.get(SIGNER) or self._signer
        if signer is None:
            return await _decoded(await self._send.handle_async_request(request))
        try:
            used = await self._sign(request, signer)
            response = await self._send.handle_async_request(request)
            if response.status_code == 401 and signer.renewed(used):  # it was not served: it is sent once more
                await response.aclose()
                await self._sign(request, signer)
                response = await self._send.handle_async_request(request)
        except KeyRefused as refused:
            return _told(refused)
        return await _decoded(response)

    async def _sign(self, request: httpx.Request, signer: Signer) -> Mapping[str, str]:
        added = await signer.signed(request, self._send)
        headers = request.extensions.get("headers")
        if headers is None:  # of `httpx.AsyncClient`
            request.headers.update(added)
        else:
            request.extensions["headers"] = {**headers, **added}
        return added


class Events(Protocol):
    """Decodes what a stream is framed in to server-sent events."""

    fault: str  # why the stream cannot be read any further

    def feed(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


class FramedStream(ChangedStream):
    """A body in another framing, as server-sent events."""

    def __init__(self, body: BodyStream, events: Events) -> None:
        super().__init__(body)
        self._events = events

    async def read(self) -> bytes:
        """The events that have arrived, at least one; empty at the end. Raises httpx.TransportError."""
        while True:
            if self._events.fault:
                raise httpx.ReadError(self._events.fault)
            data = await self._body.read()
            if not data:
                return self._events.finish()
            if events := self._events.feed(data):
                return events


async def _decoded(response: httpx.Response) -> httpx.Response:
    """The response as vendors outside of clouds send it: streams as events, errors with their name in the body.

    Raises httpx.TransportError.
    """
    if not isinstance(response, UpstreamResponse):
        return response
    framing = _FRAMINGS.get(response.content_type.partition(";")[0].strip())
    if framing is not None and response.status_code < 300 and isinstance(response.stream, UpstreamStream):
        response.stream, response.content_type = FramedStream(response.stream, framing()), "text/event-stream"
    elif response.status_code >= 400 and (named := response.headers.get(_ERROR_TYPE, "")):
        body = b""
        async for piece in response.stream:  # type: ignore[union-attr]  # asynchronous: of this transport
            body += piece
            if len(body) > _MOST:
                break
        await response.aclose()
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_BODY]
        return httpx.Response(response.status_code, headers=headers, stream=Answer(with_error_type(body, named)))
    return response


def _told(refused: KeyRefused) -> httpx.Response:
    error: Json = {"message": refused.message, "type": "authentication_error", "param": None, "code": refused.code}
    headers = [("content-type", "application/json")]
    if refused.retry_after:
        headers.append(("retry-after", refused.retry_after))
    return httpx.Response(refused.status, headers=headers, stream=Answer(encode({"error": error})))
