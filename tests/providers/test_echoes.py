"""What upstreams quote of a request proves nothing about the upstream, whatever the request says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import pytest

from relay.providers.apis import CHAT
from relay.providers.classify import classify, rules_of
from relay.providers.failures import CooldownScope, FailureClass, Rule
from relay.providers.vendors import BUILT_IN, VENDORS, offered
from tests.providers.corpus import every_case
from tests.support.peers import gemini, messages
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, Script, hello

# A vendor for each set of rules: those that have the same tell failures by the same.
TOLD_APART: Final = list({one.failures: key for key, one in reversed(VENDORS.items()) if not one.built_in}.values())
SERVED: Final = {vendor.key for vendor in offered() if vendor.key not in BUILT_IN and vendor.apis & CHAT}
NOW: Final = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC).timestamp()
# Statuses with which vendors quote requests.
QUOTING: Final = (400, 403, 404, 409, 413, 422, 501)
KEYS: Final = {FailureClass.KEY_DEAD, FailureClass.BILLING}
STATUSES: Final = (*QUOTING, 402, 429)
TIMED: Final = {402, 403, 429}  # of them, those whose text may say when to come back
# Codes that vendors use for faults of requests as well, so that they prove nothing.
COMMON: Final = {
    "invalid_request_error",
    "invalid_argument",
    "permission_denied",
    "permission_error",
    "permission_denied_error",
    "not_found",
    "not_found_error",
    "resource_not_found_error",
    "failed_precondition",
    "accessdenied",
    "access_denied",
    "badrequesterror",
    "notfounderror",
    "forbidden",
    "badrequest",
    "notfound",
    "api_error",
    "server_error",
    "error",
    "400",
    "403",
    "404",
    "409",
    "413",
    "422",
}
DATES: Final = (
    "Please try again in 32 days.",
    "You will regain access on 2026-12-24 at 00:00 UTC.",
    "Your limit will reset at 2026-12-24 00:00:00",
    "您的限额将在 2026-12-24 00:00:00 重置。",
    "请在 32 天后重试",
)

# The ways in which vendors and the servers that people run quote a role, a type, a name, an id or a text of a request.
MESSAGES: Final = (
    # DeepSeek and others in Rust (serde)
    "Failed to deserialize the JSON body into the target type: messages[0].role: unknown variant `{x}`, expected one "
    "of `system`, `user`, `assistant`, `tool` at line 1 column 60",
    # xAI
    "The arguments to a tool_call with ID '{x}' are not a valid JSON string",
    # OpenAI
    "Invalid value: '{x}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'.",
    "Unknown parameter: '{x}'.",
    "Item with id '{x}' not found. Items are not persisted when `store` is set to false.",
    "Vector store with id ['{x}'] not found.",
    "Voice '{x}' not found",
    "No such File object: {x}",
    "Previous response with id '{x}' not found.",
    # vLLM
    "The model `{x}` does not exist.",
    "Response with id '{x}' not found.",
    # Anthropic
    'messages: Unexpected role "{x}". The Messages API accepts a top-level `system` parameter.',
    "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: {x}",
    "File not found: {x}",
    # Google
    'Invalid JSON payload received. Unknown name "{x}": Cannot find field.',
    "You do not have permission to access the File {x} or it may not exist.",
    "* GenerateContentRequest.tools[0].function_declarations[0].name: [{x}] is not valid.",
    # OpenRouter
    "{x} is not a valid model ID",
    'Input was flagged: "{x}"',
    # one-api, new-api, LiteLLM
    "该令牌无权访问模型 {x}",
    "litellm.BadRequestError: OpenAIException - Error code: 400 - {{'error': {{'message': '{x}'}}}}",
    "参数「{x}」不合法",
    # jsonschema, pydantic
    "'{x}' is not one of ['system', 'user']",
    "1 validation error for ChatRequest: role: Input should be 'user' [type=literal_error, input_value={x}]",
    # A relay that says nothing but what it was sent
    "{x}",
)


def shapes(message: str, echoed: str) -> Iterator[str]:
    """The bodies in which a message comes."""
    yield json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}})
    yield json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": echoed, "code": "x"}})
    yield json.dumps({"error": message, "code": "Client specified an invalid argument"})
    yield json.dumps({"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": message}})
    yield json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": message}})
    yield json.dumps({"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400})
    yield json.dumps({"message": message, "request_id": "r"})
    yield json.dumps({"detail": message})
    yield json.dumps({"detail": [{"loc": ["body", "messages", 0, "role"], "msg": message, "input": echoed}]})
    yield json.dumps({"errors": {"role": [message]}})
    yield json.dumps({"error": {"code": 400, "message": "Provider returned error", "metadata": {"raw": message}}})
    yield message


def words_of(rules: tuple[Rule, ...]) -> str:
    """All codes that rules look for, as a client could write them into one string."""
    return " ".join(sorted({word.rstrip("*") for rule in rules for word in rule.words}))


def written_by_a_client(vendor: str) -> list[str]:
    """What a client could write to be mistaken for the vendor: the messages and codes of its failures, and dates."""
    said = set()
    for case in every_case():
        if case.vendor == vendor:
            body = case.body[0] if isinstance(case.body, list) else case.body
            error = body.get("error", body)
            text = error if isinstance(error, str) else error.get("message", "")
            said |= {f"{text} {DATES[0]}"} if isinstance(text, str) and len(text) > 2 else set()
    every = words_of(rules_of(vendor))
    return [*sorted(said), *DATES, every, f"x' {every} {DATES[0]} 'y", f'x" {every} {DATES[1]} `y']


@pytest.mark.parametrize("vendor", [*TOLD_APART, ""])
def test_a_quoted_request_proves_nothing(vendor: str) -> None:
    """Neither that a key is dead or without money, nor a quota, nor a time."""
    turn = 0
    for echoed in written_by_a_client(vendor):
        for form in MESSAGES:
            bodies = list(shapes(form.format(x=echoed), echoed))
            for _ in range(2):
                turn += 1
                # Shifted with each round, so that each status meets each body.
                status = STATUSES[(turn + turn // len(bodies)) % len(STATUSES)]
                body = bodies[turn % len(bodies)].encode()
                for inside_200 in (False, True):
                    failure = classify(status, {}, body, vendor, now=NOW, inside_200=inside_200)
                    said = (status, body, inside_200, failure.kind)
                    assert not failure.reserved or failure.kind.scope is CooldownScope.NOTHING, said
                    assert failure.wait is None or (failure.status in TIMED and failure.wait <= 60), said


@pytest.mark.parametrize("vendor", [*TOLD_APART, ""])
def test_only_a_code_of_the_vendors_own_moves_what_all_share_beside_a_status_that_quotes_requests(vendor: str) -> None:
    for rule in rules_of(vendor):
        if rule.kind.scope is CooldownScope.NOTHING or rule.status.isdisjoint({*QUOTING, 429}):
            continue
        if rule.reserved:
            assert rule.words.isdisjoint(COMMON), f"{rule.words & COMMON} are no codes for {rule.kind.word} alone"
        if rule.text is not None:
            parts = rule.text.pattern.split("|^")
            assert parts[0].startswith("^"), f"“{rule.text.pattern}” is found in the middle of a message, too"
            assert not rule.reserved


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_key_is_taken_out_by_a_text_alone_beside_no_status_that_quotes_requests(vendor: str) -> None:
    for rule in rules_of(vendor):
        if rule.kind in KEYS and not rule.words:
            assert rule.text is not None or rule.status.isdisjoint(QUOTING), rule


def test_a_real_404_for_something_in_the_request_is_the_requests() -> None:
    for vendor in VENDORS:
        for message in MESSAGES[4:9]:
            body = json.dumps({"error": {"message": message.format(x="rs_68af"), "type": "x", "param": "input"}})
            assert classify(404, {}, body.encode(), vendor, now=NOW).kind is FailureClass.CLIENT, (vendor, message)


@pytest.mark.parametrize("vendor", [key for key in TOLD_APART if key in SERVED])
def test_a_quoted_request_keeps_nothing_from_others(live: Portal, server: Server, vendor: str) -> None:
    """Of one key and one channel: whatever one user's requests bring about, the next user is served."""
    texts = written_by_a_client(vendor)
    hostile, other = live.token(), live.token()
    for turn, status in enumerate((*QUOTING, 402, 200)):
        text, form = texts[turn % len(texts)], MESSAGES[(turn * 5) % len(MESSAGES)]
        body = list(shapes(form.format(x=text), text))[turn % 5].encode()
        refused = refusing(status, body, vendor)
        model = live.model(refused, channels=[live.channel(provider=vendor)])
        for _ in range(3):
            assert server.post(hostile, ask(model, messages=[{"role": "user", "content": "bad"}])).status_code >= 400
        assert server.post(other, ask(model)).status_code == 200, (status, body)


def refusing(status: int, body: bytes, vendor: str) -> Script:
    """An upstream that refuses what says “bad”, and nothing else."""
    good = {"anthropic": messages.saying(), "gemini": gemini.saying()}.get(vendor, hello)

    async def script(call: Call) -> None:
        if b'"bad"' in call.body:
            await call.reply(status, body)
        else:
            await good(call)

    return script
