"""Channels of both programs: rows of the table `channels`, as channels here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from relay.importers.description import Level, Remark, SourceChannel, SourceKey, SourceRoute
from relay.importers.one_api import clouds
from relay.importers.one_api.channel_types import PLANS, TYPES, UNKNOWN, ChannelType
from relay.importers.one_api.overrides import rules_of
from relay.importers.reading.database import Database
from relay.importers.reading.row import Row, json_of, moment_of, object_of, text_of, texts_of

COLUMNS: Final = (
    "id", "type", "key", "status", "name", "weight", "base_url", "other", "models", "group", "model_mapping",
    "priority", "config", "system_prompt", "created_time", "test_model", "auto_ban", "tag", "remark", "other_info",
    "setting", "settings", "param_override", "header_override", "status_code_mapping", "channel_info",
    "open_ai_organization",
)  # fmt: skip
_ENABLED, _FAILED = 1, 3
_KEY_OFF, _KEY_FAILED = 2, 3
_GATEWAY: Final = "https://gateway.ai.cloudflare.com"
# Endings by which new-api takes options out of names of models.
_ENDINGS: Final = ("-thinking", "-nothinking", "-high", "-medium", "-low", "-minimal", "-xhigh", "-max")


@dataclass(frozen=True, slots=True)
class ReadChannel:
    """A channel, and what prices need to know of it."""

    channel: SourceChannel
    type: int
    mapping: Mapping[str, str]


class ChannelReader:
    """Reads the channels of one installation."""

    def __init__(self, program: str, database: Database) -> None:
        self._program, self._database = program, database

    def read(self) -> Iterator[ReadChannel]:
        for row in self._database.rows("channels", COLUMNS, page=500):
            yield self._channel(row)

    def _channel(self, row: Row) -> ReadChannel:
        number = row.whole("type")
        kind = TYPES[self._program].get(number, UNKNOWN)
        models, mapping = texts_of(row.get("models")), self._mapping(row)
        remarks = list(_remarks(row, kind, number))
        keys = _keys(row)
        place = self._place(row, kind, keys, models)
        provider = place.provider or kind.provider
        params = row.get("param_override")
        if object_of(params) and object_of(row.get("setting")).get("pass_through_body_enabled"):
            text = "Its overrides of parameters are left out: it passed bodies on, which turned them off there."
            remarks.append(Remark(text))
            params = None
        rules, more = rules_of(params, row.get("header_override"))
        upstreams = {model: self._upstream(row, kind, place, mapping.get(model) or model) for model in models}
        marked = [model for model in models if model.endswith(_ENDINGS)] if self._program == "new-api" else []
        if marked:
            shown = ", ".join(marked[:3])
            text = f"Endings of names are no options here, so that its upstream must know these models: {shown}."
            remarks.append(Remark(text))
        organization = row.text("open_ai_organization")
        if organization:
            rules = (*rules, {"do": "set_header", "header": "OpenAI-Organization", "value": organization})
        channel = SourceChannel(
            id=row.text("id"),
            name=row.text("name"),
            left_out=kind.left_out or place.left_out or _why_not(row, kind, place),
            remarks=(*remarks, *more),
            provider=provider,
            base_url=place.base_url,
            keys=tuple(_key_states(row, place.keys, self._program)),
            routes=tuple(
                SourceRoute(model=model, upstream=upstream if upstream != model else "")
                for model, upstream in upstreams.items()
            ),
            groups=tuple(texts_of(row.get("group"))),
            priority=row.whole("priority"),
            weight=(row.whole("weight") or 1) if self._program == "new-api" else 1,
            enabled=row.whole("status", _ENABLED) in (_ENABLED, _FAILED),
            proxy_url=text_of(object_of(row.get("setting")).get("proxy")),
            in_turn=object_of(row.get("channel_info")).get("multi_key_mode") == "polling",
            overrides=rules,
            test_model=upstreams.get(row.text("test_model"), row.text("test_model")),
            text_api="chat" if kind.chat_only or self._is_plain(provider, place) else "",
            notes=row.text("remark"),
            tags=row.text("tag"),
        )
        return ReadChannel(channel, number, mapping)

    def _is_plain(self, provider: str, place: clouds.Place) -> bool:
        """Whether it is a server in the place of OpenAI's, of which one-api asks chat completions alone."""
        return self._program == "one-api" and provider == "openai" and bool(place.base_url)

    def _mapping(self, row: Row) -> dict[str, str]:
        """What the names of models become; new-api follows a name through the mapping to its end."""
        found = {str(name): text_of(value) for name, value in object_of(row.get("model_mapping")).items() if value}
        if self._program == "one-api":
            return found
        ends = {}
        for name in found:
            seen, last = {name}, found[name]
            while last in found and last not in seen:
                seen.add(last)
                last = found[last]
            ends[name] = last
        return ends

    def _upstream(self, row: Row, kind: ChannelType, place: clouds.Place, model: str) -> str:
        if kind.provider == "azure":
            return clouds.deployment(model, self._program, row.moment("created_time"))
        if kind.provider == "bedrock_claude":
            return clouds.bedrock_model(model, place.region, self._program)
        return model

    def _place(self, row: Row, kind: ChannelType, keys: tuple[str, ...], models: list[str]) -> clouds.Place:
        """Its address and keys, as the vendor here has them."""
        typed, config = row.text("base_url"), object_of(row.get("config"))
        settings = object_of(row.get("settings"))
        if kind.provider == "azure":
            return clouds.azure(typed, keys) if typed else clouds.Place("", keys)
        if kind.provider == "bedrock_claude":
            return clouds.bedrock(keys, config, settings.get("aws_key_type") == "api_key")
        if kind.provider == "vertex":
            claude = [model.startswith("claude") for model in models]
            if any(claude) and not all(claude):
                return clouds.Place(
                    "", (), "Gemini and Claude of Vertex AI are two channels here: split it there first."
                )
            by_api_key = settings.get("vertex_key_type") == "api_key"
            return clouds.vertex(keys, config, row.get("other"), by_api_key, any(claude))
        if kind.provider == "cloudflare":
            return clouds.cloudflare(typed, keys, text_of(config.get("user_id")) or row.text("other"))
        if plan := PLANS.get(typed):
            return clouds.Place(plan[1], keys, provider=plan[0])
        if not typed:
            return clouds.Place(kind.base_url, keys)
        if "{model}" in typed:
            return clouds.Place("", (), "Its address has the name of the model in it.")
        url = typed.rstrip("/").removesuffix("#")
        if kind.version and not url.startswith(_GATEWAY) and not url.endswith(kind.version):
            url += kind.version
        return clouds.Place(url, keys)


def _why_not(row: Row, kind: ChannelType, place: clouds.Place) -> str:
    if not texts_of(row.get("models")):
        return "It has no models."
    if kind.needs_url and not place.base_url:
        return "It has no address." if kind is not UNKNOWN else f"Its type {row.whole('type')} is not known."
    return ""


def _keys(row: Row) -> tuple[str, ...]:
    """Its keys: one a line, or a JSON array, whose entries may be JSON objects themselves."""
    text = row.text("key")
    several = bool(object_of(row.get("channel_info")).get("is_multi_key"))
    found = json_of(text) if text.startswith("[") else None
    if isinstance(found, list):
        return tuple(_as_text(entry) for entry in found)
    if text.startswith("{"):
        return (text,)
    if several or "\n" in text:
        return tuple(line.strip() for line in text.splitlines())
    return (text,) if text else ()


def _as_text(entry: object) -> str:
    from portal.lib.json import encode

    return entry.strip() if isinstance(entry, str) else encode(entry).decode()


def _key_states(row: Row, secrets: tuple[str, ...], program: str) -> Iterator[SourceKey]:
    """The keys with what happened to each, which is noted by their places."""
    info: dict[str, Any] = object_of(row.get("channel_info"))
    states = info.get("multi_key_status_list") or {}
    reasons, times = object_of(info.get("multi_key_disabled_reason")), object_of(info.get("multi_key_disabled_time"))
    whole = row.whole("status", _ENABLED)
    said = object_of(row.get("other_info"))
    for place, secret in enumerate(secrets):
        if not secret:
            continue
        state = states.get(str(place)) if isinstance(states, dict) else None
        failed, at = "", None
        if state == _KEY_FAILED:
            failed = text_of(reasons.get(str(place))) or f"disabled by {program}"
            at = moment_of(times.get(str(place)))
        elif whole == _FAILED:
            failed = text_of(said.get("status_reason")) or f"disabled by {program}"
            at = moment_of(said.get("status_time"))
        yield SourceKey(secret=secret, enabled=state != _KEY_OFF, failed=failed, failed_at=at)


def _remarks(row: Row, kind: ChannelType, number: int) -> Iterator[Remark]:
    setting, settings = object_of(row.get("setting")), object_of(row.get("settings"))
    if kind is UNKNOWN:
        yield Remark(f"Its type {number} is not known: it becomes another relay.")
    if row.text("system_prompt") or text_of(setting.get("system_prompt")):
        yield Remark("Its system prompt is left out: channels here add none.")
    if object_of(row.get("status_code_mapping")):
        yield Remark("Its mapping of status codes is left out: clients get the portal's own errors.")
    for name, title in (("force_format", "answers in a fixed form"), ("thinking_to_content", "thoughts in the answer")):
        if setting.get(name):
            yield Remark(f"That it writes {title} is left out.")
    if row.get("auto_ban") is not None and row.whole("auto_ban", 1) == 0:
        yield Remark(
            "Keys that its upstream does not accept are taken out of service here, which was turned off there."
        )
    if row.whole("status", _ENABLED) == _FAILED:
        text = "It was disabled there after a failure: its keys are out of service until a test passes."
        yield Remark(text, Level.NOTE)
    if kind.provider == "azure":
        text = "Azure's v1 API is used: the models are deployments of the resource, and the version is left out."
        yield Remark(text, Level.NOTE)
    if settings.get("upstream_model_update_auto_sync_enabled"):
        yield Remark("That it follows the list of models of its upstream is left out.")
