"""Client secrets: by these, a browser opens realtime sessions in the name of a token, for a while.

The session stays here, and the secret is short: headers and sub-protocols of a handshake have little room.
"""

from __future__ import annotations

import secrets
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Final

from portal import limits
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode, object_of, text_of
from relay.endpoints.errors import invalid
from relay.endpoints.files.file_ids import check_no_ids
from relay.errors import InvalidRequest, InvalidToken, RequestTooLarge
from relay.gateway.access.authorization import check_address, check_purpose, permitted_model
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller, CallerState
from relay.protocols.fields import BadRequest
from relay.protocols.realtime.events import named_models
from relay.storage.realtime import client_secrets

PREFIX: Final = "ek_"  # as OpenAI's begin
_SECONDS: Final = (10, 7200, 600)  # minimum, maximum, default
TYPES: Final = frozenset(("realtime", "transcription"))
# Where the newer and the older form of a session have the same.
_SAME: Final = (
    (("audio", "input", "transcription"), ("input_audio_transcription",)),
    (("audio", "input", "turn_detection"), ("turn_detection",)),
    (("audio", "input", "format"), ("input_audio_format",)),
    (("audio", "input", "noise_reduction"), ("input_audio_noise_reduction",)),
    (("audio", "output", "format"), ("output_audio_format",)),
    (("audio", "output", "voice"), ("voice",)),
    (("audio", "output", "speed"), ("speed",)),
    (("output_modalities",), ("modalities",)),
    (("max_output_tokens",), ("max_response_output_tokens",)),
)
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


async def make_client_secret(exchange: Exchange, caller: Caller, body: Json) -> Json:
    """A client secret that stands for the caller's token, bound to a session and to /v1/realtime.

    Raises InvalidRequest, RequestTooLarge, ModelNotFound, Forbidden, RateLimited, RelayUnavailable.
    """
    check_purpose(caller, "realtime")
    session = object_of(body, "session")
    after = object_of(body, "expires_after")
    seconds = after.get("seconds", _SECONDS[2])
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not _SECONDS[0] <= seconds <= _SECONDS[1]:
        raise InvalidRequest(
            f"The field “expires_after.seconds” must be between {_SECONDS[0]} and {_SECONDS[1]}.",
            param="expires_after",
        )
    kind = session.get("type") or "realtime"
    if kind not in TYPES:
        raise InvalidRequest("The field “session.type” must be “realtime” or “transcription”.", param="session.type")
    check_session(caller, session, exchange.wall)
    if kind == "transcription" and not transcriber_of(session):
        raise InvalidRequest(
            "Name the model that transcribes, in “session.audio.input.transcription.model”.",
            code="missing_required_parameter",
            param="session.audio.input.transcription.model",
        )
    text = encode(session).decode()
    if len(text) > limits.CLIENT_SECRET_BYTES:
        most = limits.CLIENT_SECRET_BYTES // limits.KIB
        raise RequestTooLarge(
            f"The session is larger than {most} KiB. Send its tools when it is open.", param="session"
        )
    secret = PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(48))
    now = datetime.fromtimestamp(exchange.wall, UTC)
    expires = now + timedelta(seconds=seconds)
    await snapshot_cache.in_thread(
        client_secrets.store, secret, caller.user_id, caller.token_id, caller.digest, text, now, expires
    )
    object_type = "realtime.session" if kind == "realtime" else "realtime.transcription_session"
    shown: Json = {"type": kind, "object": object_type, "id": f"sess_{time_ordered_hex()}", **session}
    return {"value": secret, "expires_at": int(expires.timestamp()), "session": shown}


async def make_session(exchange: Exchange, caller: Caller, body: Json) -> Json:
    """A client secret in OpenAI's older form: the session with the secret inside. Raises as `make_client_secret`."""
    found = await make_client_secret(exchange, caller, {"session": body})
    return {
        **object_of(found, "session"),
        "client_secret": {"value": found["value"], "expires_at": found["expires_at"]},
    }


async def make_transcription_session(exchange: Exchange, caller: Caller, body: Json) -> Json:
    """The same for a session that only transcribes. Raises as `make_client_secret`."""
    return await make_session(exchange, caller, {**body, "type": "transcription"})


async def caller_of_client_secret(secret: str, now: float, ip: str) -> tuple[Caller, Json]:
    """The caller and the session of a client secret. Raises InvalidToken, Forbidden, RelayUnavailable."""
    found = await snapshot_cache.in_thread(client_secrets.find, secret, datetime.fromtimestamp(now, UTC))
    caller = await snapshot_cache.caller(found[0]) if found is not None else None
    if found is None or caller is None or caller.state(now) is not CallerState.ACTIVE:
        raise InvalidToken(
            "The client secret is not valid, or has expired. Make a new one with POST /v1/realtime/client_secrets."
        )
    check_address(caller, ip)
    return caller, decode_object(found[1]) or {}


def completed(secret: Json, session: Json) -> Json:
    """The session of a client secret, completed by what a request has: what the secret says stands, in either form."""
    session = deepcopy(session)
    for forms in _SAME:
        fixed = [path for path in forms if path[-1] in _holder(secret, path)]
        for path in forms:
            if fixed and path not in fixed:
                _holder(session, path).pop(path[-1], None)
    return {**_under(secret, session), "type": text_of(secret, "type") or "realtime"}


def _holder(session: Json, path: tuple[str, ...]) -> Json:
    for name in path[:-1]:
        session = object_of(session, name)
    return session


def _under(fixed: Json, more: Json) -> Json:
    """An object with the members of both, at every depth; those of `fixed` stand."""
    found = {**more, **fixed}
    for name, value in fixed.items():
        other = more.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            found[name] = _under(value, other)
    return found


def transcriber_of(session: Json) -> str:
    """The model that a session names to write speech down, by the newer or the older name; empty: none."""
    inputs = object_of(object_of(session, "audio"), "input")
    return text_of(object_of(inputs, "transcription"), "model") or text_of(
        object_of(session, "input_audio_transcription"), "model"
    )


def transcription_by(model: str) -> Json:
    """A session that only transcribes, by this model."""
    return {"type": "transcription", "audio": {"input": {"transcription": {"model": model}}}}


def check_session(caller: Caller, session: Json, now: float) -> None:
    """Check what a session names: models that the caller may use, and no stored files.

    Raises InvalidRequest, UnsupportedParameter, ModelNotFound, Forbidden.
    """
    try:
        check_no_ids(session, "session")
    except BadRequest as bad:
        raise invalid(bad) from None
    for named in named_models({"session": session}):
        model = named.holder.get("model")
        if model is None:
            continue
        if not isinstance(model, str):
            raise InvalidRequest(f"The field “{named.param}” must be the name of a model.", param=named.param)
        permitted_model(caller, snapshot_cache.snapshot, model, now)
