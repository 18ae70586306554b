"""POST /v1beta/interactions: an answer of a model or an agent in Gemini's Interactions API."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from django.http.response import HttpResponseBase

from portal import limits
from portal.lib.ids import time_ordered_hex
from relay.endpoints.errors import invalid, refused_parameter
from relay.endpoints.overrides import native_terms, route_rules
from relay.endpoints.room import user_room
from relay.endpoints.text.conversation_lookup import response_lifetime
from relay.endpoints.text.endpoint import try_text
from relay.endpoints.text.interactions.background import start_background
from relay.endpoints.text.interactions.turn import UNSERVED, InteractionTurn
from relay.endpoints.text.interactions.upstream import API, api_headers
from relay.errors import InvalidRequest, ObjectNotFound, RelayError, UnsupportedEndpoint
from relay.gateway.access.authorization import check_named
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest, Overridden
from relay.gateway.pipeline import check_access, check_end, check_large, serve
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView, Route
from relay.protocols.fields import BadRequest, absent
from relay.protocols.interactions.errors import error_event_of
from relay.protocols.interactions.request import PREVIOUS, parse_interaction_request, refused_environment
from relay.protocols.prompts.searches import most_searches
from relay.protocols.usage import Usage
from relay.providers import parameters
from relay.storage.apis import interactions
from relay.storage.responses import INTERACTION
from relay.storage.room import no_room

_ELSEWHERE: Final = (
    "The upstream that keeps the interaction “{id}” cannot be asked any more, or keeps none. Begin a new one with the "
    "whole conversation as “input”."
)


async def create_interaction(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """Serve one request. Raises RelayError if no part of an answer has been sent; the record is on disk by then."""
    turn = await _read_turn(exchange, caller, run)
    if turn.parsed.background:
        turn.in_background = True
        return await start_background(exchange, run, turn, gateway_request(run, turn))
    if turn.stream and turn.stored:
        turn.running = run.unstored.begin(exchange, caller.user_id, turn.id)
    return await serve(exchange, caller, run, gateway_request(run, turn), partial(try_text, turn))


async def _read_turn(exchange: Exchange, caller: Caller, run: Runtime) -> InteractionTurn:
    body = await exchange.read_body(run.config.max_body_bytes)
    check_end(exchange)
    if len(body) > limits.LARGE_BODY_BYTES:
        await check_large(exchange, caller, run, API, body)
    try:
        parsed = parse_interaction_request(body)
        check_access(exchange, caller, API, parsed.model)  # before anything is looked up
        check_named(caller, snapshot_cache.snapshot, parsed.named, exchange.wall)
        turn = InteractionTurn(parsed, caller, f"{INTERACTION}{time_ordered_hex()}", lifetime=response_lifetime(run))
        turn.headers = api_headers(exchange.headers)
        await _check_room(turn)
        environment = await _find_previous(turn, run)
        if parsed.environment_id and parsed.environment_id != environment:
            raise refused_environment(parsed.environment_id)
    except BadRequest as bad:
        raise invalid(bad) from None
    if parsed.continuation:
        makers = run.continuity.makers(caller.user_id, (parsed.continuation,))
        turn.maker = makers.get(parsed.continuation)
    return turn


async def _check_room(turn: InteractionTurn) -> None:
    """Raise RequestTooLarge when there is no room for what the client wants to be stored.

    Where it has not said that it wants that, the interaction is not stored. Raises BadRequest for one in the
    background that cannot be.
    """
    parsed = turn.parsed
    if parsed.background and turn.lifetime is None:
        message = (
            "This portal keeps no interactions, so that none can be made in the background. Leave “background” out."
        )
        raise BadRequest(message, "background", "unsupported_parameter", 422)
    if not turn.stored:
        return
    left = await user_room.left(turn.caller.user_id)
    if left >= len(parsed.body):
        return
    if parsed.background or not absent(parsed.fields.get("store")):
        raise no_room(left)
    turn.lifetime, turn.left_out = None, ["store"]


async def _find_previous(turn: InteractionTurn, run: Runtime) -> str:
    """Find the interaction that a request continues. Returns the environment in which that ran; empty: in none.

    Raises RelayError.
    """
    name, user = turn.parsed.previous_id, turn.caller.user_id
    if not name:
        return ""
    found = await snapshot_cache.in_thread(interactions.find_previous, user, name)
    if found is None:
        raise ObjectNotFound(
            f"There is no interaction “{name[:80]}” of your account, or it is no longer kept. Send the whole "
            "conversation as “input”.",
            code="previous_interaction_not_found",
            param=PREVIOUS,
        )
    if found.turn.running:
        raise InvalidRequest(
            "That interaction is still running. Wait until it has ended.",
            code="previous_interaction_not_ready",
            param=PREVIOUS,
        )
    known = run.continuity.can_name(user, found.turn.channel_id or 0, found.turn.upstream_id, time.time())
    if not found.turn.upstream_id or not known:
        raise _elsewhere(name)
    turn.previous = found.turn
    return found.environment_id


def _elsewhere(name: str) -> RelayError:
    return InvalidRequest(_ELSEWHERE.format(id=name[:80]), code="previous_interaction_not_kept", param=PREVIOUS)


def check_channel(run: Runtime, turn: InteractionTurn, channel: ChannelView) -> RelayError | None:
    """Why a channel cannot serve a request; None if it can."""
    if not run.health.serves_api(channel, API):
        return UnsupportedEndpoint(UNSERVED, param="model")
    name = parameters.refused(channel.policy(API), turn.fields)
    return refused_parameter(name) if name else None


def gateway_request(run: Runtime, turn: InteractionTurn) -> GatewayRequest:
    """The gateway request of a turn."""
    parsed, size = turn.parsed, turn.size()

    def overridden(public: str, route: Route) -> Overridden | None:
        rules = route_rules(route, API, public)
        return native_terms(route.channel, API, rules, parsed.fields) if rules else None

    return GatewayRequest(
        endpoint=API,
        model=parsed.model,
        check_channel=partial(check_channel, run, turn),
        stream=turn.stream,
        prompt_tokens=size.tokens,
        most_prompt=partial(parsed.at_most, size.most),
        output_limit=parsed.output_limit,
        units=Usage(searches=most_searches(parsed.fields)),
        prefer=turn.stored_at or turn.maker,
        only_there=_elsewhere(parsed.previous_id) if turn.previous is not None else None,
        error_event=error_event_of,
        most_input=parsed.most_input,
        least_input=parsed.least_input,
        input_parts=turn.media,
        dearer_input=lambda: None if parsed.at_most(0) is None else turn.media(),
        named=parsed.named,
        overridden=overridden,
    )
