"""The summary of a conversation that its model writes, for upstreams without the compaction endpoint.

One that is cut off at its limit is asked for once more with more room: a model may have used all of it thinking. Both
are charged, each with a record of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from portal.lib.json import Json, decode_object, encode
from relay.endpoints.text.endpoint import ask_amended, open_text
from relay.endpoints.text.response_turn import ResponseTurn
from relay.errors import InsufficientQuota, RateLimited, RelayError, UpstreamRefused
from relay.gateway.attempt import Attempt
from relay.gateway.outcome import TRUNCATED, Outcome
from relay.gateway.pipeline import begin_another
from relay.protocols.prompts.content import content_of
from relay.protocols.responses.compaction import (
    ASK,
    INSTRUCTIONS,
    calls_tools,
    conversation_to_compact,
    is_longer,
    summary_in,
    why_incomplete,
)
from relay.protocols.responses.request import ResponsesRequest, user_item, without_upstream_ids
from relay.protocols.usage import Delivered, Usage
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass

COMPACT: Final = "responses.compact"
# Tokens of a summary, with the thinking of the model, and of another try where these were too few.
_SUMMARY_TOKENS: Final = 8192
_MORE_TOKENS: Final = 4 * _SUMMARY_TOKENS
_AT_ITS_LIMIT: Final = "max_output_tokens"


async def write_summary(summary: ResponseTurn, attempt: Attempt, answer: Callable[[Json], bytes]) -> bytes:
    """Let the model write the summary; `answer` makes the client's answer of its response.

    Raises Failure, Ended, RelayError.
    """

    async def ask() -> bytes:
        opened = await open_text(summary, attempt)
        text, usage = await opened.read_whole()
        response = decode_object(text) or {}
        delivered = Delivered.by(text, opened.received)
        if cut := why_incomplete(response):
            attempt.answered()
            attempt.close()
            if cut == _AT_ITS_LIMIT and not (_has_more_room(summary) or attempt.exchange.left):
                await _give_more_room(summary, attempt, usage, delivered)
                return await ask()
            raise await cut_off(attempt, cut, usage, delivered)
        if not (written := summary_in(response)):  # the conversation would be lost
            raise attempt.unreadable_answer(text, "a summary")
        if is_longer(written, summary.items) or calls_tools(response):
            attempt.answered()
            why = "longer" if is_longer(written, summary.items) else "tool_calls"
            raise await cut_off(attempt, why, usage, delivered)
        attempt.answered()
        # What the client has not asked for is not told as left out.
        attempt.record.dropped = [name for name in attempt.record.dropped if name != _AT_ITS_LIMIT]
        body = answer(response)
        await attempt.finish(body, usage, delivered)
        return body

    try:
        return await ask_amended(summary, attempt, ask)
    except Failure as failure:
        if failure.kind is FailureClass.CLIENT and _has_more_room(summary):  # the upstream does not allow so much
            raise await cut_off(attempt, _AT_ITS_LIMIT, None, None, "the upstream refused a longer one") from None
        raise


def _has_more_room(summary: ResponseTurn) -> bool:
    return (summary.output_limit or 0) > _SUMMARY_TOKENS


async def _give_more_room(summary: ResponseTurn, attempt: Attempt, usage: Usage | None, delivered: Delivered) -> None:
    """Prepare another try with more room, and record the first. Raises RelayError when there is none."""
    record, longest = attempt.record, attempt.record.charge.model.max_output_tokens
    limit = min(_MORE_TOKENS, longest or _MORE_TOKENS)
    if limit <= _SUMMARY_TOKENS:
        raise await cut_off(attempt, _AT_ITS_LIMIT, usage, delivered, "the model writes no longer ones")
    told = UpstreamRefused(
        400,
        f"The summary was cut off at its limit of {_SUMMARY_TOKENS:,} tokens, and was asked for again with more.",
        "invalid_request_error",
        "compaction_incomplete",
        None,
    )
    outcome = Outcome(TRUNCATED, told.http_status, usage, told, "the summary is incomplete", delivered, True)
    try:
        await begin_another(attempt, replace(record.request, output_limit=limit), outcome)
    except RelayError as refused:
        if record.request.output_limit == limit:  # the next one has begun, and the first could not be recorded
            raise
        raise await cut_off(attempt, _AT_ITS_LIMIT, usage, delivered, _hindrance(refused)) from None
    summary.limit_output(limit)


def _hindrance(refused: RelayError) -> str:
    if isinstance(refused, InsufficientQuota):
        return "there was not enough money for a longer one"
    if isinstance(refused, RateLimited):
        return "there was not enough left of the limits for a longer one"
    return "the portal could not ask for a longer one"


async def cut_off(
    attempt: Attempt, why: str, usage: Usage | None, delivered: Delivered | None, hindrance: str = ""
) -> RelayError:
    """The error for a summary that must not replace the conversation: cut off, followed by tool calls, or too long.

    What the upstream has done is charged; the record is on disk. Another attempt would be charged again, so the error
    is none that clients repeat on their own. `hindrance`: why it was not asked for with more room. `delivered`: None
    where nothing was. Raises RelayUnavailable.
    """
    filtered = why == "content_filter"
    what = {
        "content_filter": "was cut off by a content filter",
        "tool_calls": "ended in tool calls",
        "longer": "is longer than the conversation",
        _AT_ITS_LIMIT: "was cut off at its limit of tokens" + (f" ({hindrance})" if hindrance else ""),
    }
    error = UpstreamRefused(
        400,
        f"The summary {what.get(why, 'was cut off before its end')}, so the conversation was not compacted. Compact it "
        "with another model, or go on without a part of it.",
        "invalid_request_error",
        why if filtered else "compaction_incomplete",
        None,
    )
    worked = delivered is not None
    outcome = Outcome(
        TRUNCATED, error.http_status, usage, error, f"the summary is incomplete: {why}", delivered, worked
    )
    await attempt.record.commit(outcome)
    attempt.add_headers(cost=True)
    return error


def summary_of_turn(turn: ResponseTurn) -> ResponseTurn:
    """A turn that asks the model for a summary, for upstreams without the compaction endpoint."""
    members: Json = {
        "model": turn.parsed.model,
        "instructions": INSTRUCTIONS,
        "max_output_tokens": _SUMMARY_TOKENS,
        "store": False,
    }
    items = [*without_upstream_ids(turn.history), *turn.expanded_input]
    items = [*conversation_to_compact(items), user_item(ASK)]
    fields = {name: msgspec.Raw(encode(value)) for name, value in members.items()}
    fields["input"] = msgspec.Raw(encode(items))
    content = content_of(items)
    model, limit = turn.parsed.model, _SUMMARY_TOKENS
    request = ResponsesRequest(encode(fields), fields, model, False, False, False, "", "", limit, content)
    summary = ResponseTurn(request, turn.caller, items, items, id=turn.id, created=turn.created, endpoint=COMPACT)
    summary.makers, summary.files = turn.makers, turn.files
    return summary
