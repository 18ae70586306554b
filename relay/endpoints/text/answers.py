"""What is made of an upstream's answer: whole or a stream, or garbage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from portal.lib.json import Json, decode_object, encode
from relay.billing.ledger.rows import RowWrite
from relay.errors import UpstreamFailed
from relay.gateway.attempt import GARBAGE, Upstream
from relay.gateway.exchange import Exchange
from relay.gateway.failover import Trial
from relay.gateway.pipeline import relay_headers
from relay.gateway.record import Record
from relay.gateway.replies import EventStream
from relay.gateway.routing.selection import Candidate
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.stream import Pump
from relay.protocols.chat_completions.answer import ChatAnswer, parse_chat_answer
from relay.protocols.codec import Codec
from relay.protocols.responses.request import ResponsesAnswer, parse_responses_answer
from relay.protocols.responses.stream import ResponsesStream
from relay.providers.classify import Failure, classify
from relay.providers.failures import FailureClass


async def whole_completion(candidate: Candidate, upstream: Upstream) -> tuple[ChatAnswer, bytes]:
    """A plain answer of an upstream that speaks chat completions. Raises Failure."""
    text = await upstream.read_all()
    upstream.close()
    answer = parse_chat_answer(text)
    if answer is None:
        raise garbage(upstream, text, "a chat completion")
    if answer.is_error:
        raise classify(200, {}, text, candidate.route.channel.provider, snapshot_cache.snapshot.rules, inside_200=True)
    return answer, text


async def whole_response(candidate: Candidate, upstream: Upstream) -> tuple[Json | None, ResponsesAnswer, bytes]:
    """A plain answer of an upstream that speaks responses, also when it streams without having been asked. Raises Failure.

    None: it is one, but something in it (half of a surrogate pair, say) cannot be decoded; its bytes can still be passed on.
    """
    provider, rules = candidate.route.channel.provider, snapshot_cache.snapshot.rules
    text = await upstream.read_all()
    upstream.close()
    if "text/event-stream" in upstream.content_type or text.lstrip()[:6] in (b"event:", b"data: "):
        text = _from_stream(text, provider)
    answer = parse_responses_answer(text)
    if answer is None:
        raise garbage(upstream, text, "a response")
    if answer.is_error or answer.failed:
        raise classify(200, {}, text, provider, rules, inside_200=True)
    return decode_object(text), answer, text


def _from_stream(text: bytes, provider: str) -> bytes:
    codec = ResponsesStream(lambda response: response)
    codec.feed(text)
    codec.finish()
    if codec.error is not None:
        raise classify(200, {}, codec.error, provider, snapshot_cache.snapshot.rules, inside_200=True)
    return encode(codec.final) if codec.final is not None else b""


def garbage(upstream: Upstream, text: bytes, wanted: str) -> Failure:
    detail = f"the answer ({upstream.content_type or 'no content type'}, {len(text)} bytes) is not {wanted}"
    return Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 200, detail)


async def stream_answer(
    exchange: Exchange,
    run: Runtime,
    candidate: Candidate,
    record: Record,
    upstream: Upstream,
    trial: Trial,
    began: float,
    codec: Codec,
    output_limit: int | None,
    content_type: str = "",
    rows: Callable[[], Sequence[RowWrite]] | None = None,
    ending: bytes | None = None,
) -> EventStream:
    """Wait for the first event, which decides about the status, then hand over to the pump. `content_type`: of what is no stream of events."""
    primed: list[bytes] = []
    while not codec.started and codec.error is None and not codec.done:
        data = await upstream.read()
        out = codec.feed(data) if data else codec.finish()
        if out:
            primed.append(out)
        if not data:
            break
    if codec.error is not None and not codec.started:
        raise classify(200, {}, codec.error, candidate.route.channel.provider, snapshot_cache.snapshot.rules, inside_200=True)
    if not codec.started:
        detail = f"the answer ({upstream.content_type or 'no content type'}) ended without a single event"
        raise Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 200, detail)
    trial.answered()
    record.mark_first_token()
    record.end_attempt(candidate, began)
    record.delivered = codec.delivered_units
    pump = Pump(exchange, upstream, codec, record, trial, primed, run.cutting_off, record.charge.meter(exchange, output_limit), rows, ending)
    relay_headers(exchange, run, candidate, record)
    return EventStream(pump.run, content_type) if content_type else EventStream(pump.run)
