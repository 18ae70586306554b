"""Applies the overrides of channels to requests: to what money is held for, and to what is sent.

Both take the same rules in the same order, so that what was held for is what is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from portal.lib.json import Json
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.request import Overridden
from relay.gateway.snapshot.views import ChannelView, Route
from relay.protocols.fields import Fields
from relay.providers import parameters
from relay.providers.overrides.answers import answer_count, answer_limit, hold_answers, thinking_of
from relay.providers.overrides.apply import to_body, to_fields, to_items
from relay.providers.overrides.rules import Rule

Rules = Sequence[Rule]
_NONE: Final[Rules] = ()


class Priced(Protocol):
    """What a text request asks for, by which it is priced."""

    @property
    def output_limit(self) -> int | None: ...
    @property
    def choices(self) -> int: ...


def rules_for(channel: ChannelView, api: str, public: str, upstream: str) -> Rules:
    """The rules of a channel for bodies of an API, by the names of the model."""
    return channel.overrides.of_body(api, public, upstream) if channel.overrides is not None else _NONE


def rules_of(attempt: Attempt, api: str) -> Rules:
    """The rules for what an attempt sends."""
    if attempt.channel.overrides is None:  # nearly always
        return _NONE
    return rules_for(attempt.channel, api, attempt.record.model, attempt.candidate.route.upstream_name)


def added_by(rules: Rules) -> int:
    """The estimated tokens that rules may add to a prompt."""
    return sum(rule.added for rule in rules)


def text_terms(rules: Rules, members: Mapping[str, object]) -> Overridden:
    """What a text request asks for by these members, to which the rules have been applied."""
    return Overridden(
        output_limit=answer_limit(members),
        choices=answer_count(members),
        added=added_by(rules),
        thinking=thinking_of(members),
        unsure=any(rule.unsure for rule in rules),
    )


def native_terms(channel: ChannelView, api: str, rules: Rules, fields: Fields) -> Overridden:
    """What a channel of the client's own API is asked for."""
    sent, _ = parameters.apply(channel.policy(api), fields, channel.strips_nulls)
    sent, _ = to_fields(rules, sent)
    return text_terms(rules, sent)


def sent_fields(attempt: Attempt, api: str, fields: Fields, dropped: list[str]) -> tuple[Fields, bool]:
    """The members to send to a channel of the client's own API, kept to what money is held for.

    Adds the names of members that the client loses to `dropped`. Returns also whether they name a limit of the answer
    that is kept to what can be paid for already.
    """
    rules = rules_of(attempt, api)
    if not rules:
        return fields, False
    sent, ignored = to_fields(rules, fields)
    dropped += (name for name in ignored if name not in dropped)
    note_added(attempt, rules)
    if sent is fields or not any(rule.costs for rule in rules):
        return sent, False
    held: dict[str, object] = dict(sent)
    named = _hold(attempt, held)
    return {name: raw for name, raw in held.items() if isinstance(raw, msgspec.Raw)}, named


def sent_body(attempt: Attempt, api: str, body: Json, choices: int) -> tuple[list[str], bool]:
    """The same, in place, for a body that was converted to the upstream's API. Returns the names.

    `choices`: how many answers the client can be given.
    """
    rules = rules_of(attempt, api)
    if not rules:
        return [], False
    ignored = to_body(rules, body)
    note_added(attempt, rules)
    return ignored, any(rule.costs for rule in rules) and _hold(attempt, body, choices)


def sent_items(attempt: Attempt, api: str, items: list[Json]) -> tuple[list[Json], list[str]]:
    """The items of `input`, where they are not the client's own bytes, without what is removed from them."""
    rules = rules_of(attempt, api)
    return to_items(rules, "input", items) if rules else (items, [])


def override_vectors(attempt: Attempt, api: str, requests: Sequence[Json]) -> list[str]:
    """Apply the rules to each of several requests for vectors in one body, in place. Returns the names."""
    rules, ignored = rules_of(attempt, api), []
    for one in requests if rules else ():
        ignored += to_body(rules, one)
    if rules:
        note_added(attempt, rules, len(requests))
    return list(dict.fromkeys(ignored))


def note_added(attempt: Attempt, rules: Rules, times: int = 1) -> None:
    """Let the record count the prompt as this channel is sent it, should the upstream not say how long it was."""
    record = attempt.record
    record.prompt_tokens = record.request.prompt_tokens - record.request.added + added_by(rules) * times


def _hold(attempt: Attempt, members: dict[str, object], choices: int = 0) -> bool:
    record = attempt.record
    limit, clamp = record.request.output_limit, record.charge.clamp
    tokens = clamp if limit is None else limit if clamp is None else min(limit, clamp)
    return hold_answers(members, tokens, choices or record.request.choices)


def route_rules(route: Route, api: str, public: str) -> Rules:
    """The rules of a route's channel for bodies of an API."""
    return rules_for(route.channel, api, public, route.upstream_name)
