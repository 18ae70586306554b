"""Deployments of LiteLLM: a public model name, a provider's model, a key and an address. Here they are channels.

Deployments with the same provider, address, key and place in the order are one channel with several models. They come
from the table that LiteLLM's pages write, and from its `config.yaml`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from relay.importers.description import (
    Level,
    Rates,
    Remark,
    SourceChannel,
    SourceKey,
    SourceModel,
    SourcePrice,
    SourceRoute,
)
from relay.importers.litellm.prices import tiers_of
from relay.importers.litellm.providers import Place, Unsupported, place, split_model
from relay.importers.litellm.secretbox import Locked, SecretBox
from relay.importers.reading.row import number_of, object_of, text_of, whole_of
from relay.providers.vendors import VENDORS

_ENVIRONMENT: Final = "os.environ/"
# Variables that are no upstream's: whoever may write a model there says where its key is sent.
_OWN: Final = re.compile(r"AIRELAYS_.*|LITELLM_(SALT|MASTER)_KEY|DATABASE_URL|PGPASSWORD|SECRET_KEY", re.IGNORECASE)
# Parameters of a deployment that change requests and have no counterpart that is sure to do the same.
_LEFT_OUT: Final = ("extra_headers", "default_headers", "extra_body", "drop_params", "additional_drop_params", "tags")
_HEAVIEST: Final = 1000


@dataclass(frozen=True, slots=True)
class Stored:
    """A deployment as it is stored. Values of `params` may be encrypted."""

    id: str
    name: str  # public
    params: Mapping[str, Any]
    info: Mapping[str, Any]
    blocked: bool = False


@dataclass(slots=True)
class Deployment:
    """A deployment that was read. `why`: why it cannot be asked here; empty: it can."""

    id: str
    name: str
    provider: str  # theirs; empty: unknown
    params: Mapping[str, Any]
    info: Mapping[str, Any]
    team: str  # id of the only team that may use it; empty: no such
    blocked: bool = False
    place: Place | None = None
    why: str = ""
    remarks: list[Remark] = field(default_factory=list)
    keyless: str = ""  # why its key could not be read; empty: it was, or it has none

    @property
    def channel(self) -> str:
        """The id of its channel."""
        at = self.place
        if at is None:
            return f"deployment:{self.id}"
        own = self.id if self.rates != Rates() else ""
        shared = (at.vendor, at.base_url, at.secret or self.keyless, at.text_api, self.order, self.weight, own)
        return hashlib.sha256("\0".join(map(str, shared)).encode()).hexdigest()[:24]

    @property
    def order(self) -> int:
        return whole_of(self.params.get("order"))

    @property
    def weight(self) -> int:
        found = number_of(self.params.get("weight"))
        return 1 if found is None else min(max(1, round(found)), _HEAVIEST)

    @property
    def rates(self) -> Rates:
        names = ("rpm", "tpm", "max_parallel_requests")
        rpm, tpm, at_once = (max(0, whole_of(self.params.get(name))) or None for name in names)
        return Rates(rpm=rpm, tpm=tpm, concurrency=at_once)


def read(
    stored: Iterable[Stored], box: SecretBox, credentials: Mapping[str, Mapping[str, Any]]
) -> Iterator[Deployment]:
    """Decrypt and understand deployments. `credentials`: named ones, whose values may be encrypted."""
    for row in stored:
        yield _read(row, box, credentials)


def _read(row: Stored, box: SecretBox, credentials: Mapping[str, Mapping[str, Any]]) -> Deployment:
    locked: list[str] = []

    def opened(values: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for name, value in values.items():
            try:
                found[name] = box.open(value) if isinstance(value, str) else value
            except Locked:
                locked.append(name)
        return found

    params = opened(row.params)
    named = text_of(params.get("litellm_credential_name"))
    if named:
        params = {**opened(credentials.get(named, {})), **params}
    team = text_of(row.info.get("team_id"))
    name = text_of(row.info.get("team_public_model_name")) if team else ""
    found = Deployment(row.id, name or row.name, "", params, row.info, team, row.blocked)
    if "model" in locked:
        found.why = (
            "It is encrypted: set LITELLM_SALT_KEY, or LITELLM_MASTER_KEY if there is no salt key, and import again."
        )
        return found
    missing = _from_environment(params)
    try:
        found.provider = split_model(text_of(params.get("model")), text_of(params.get("custom_llm_provider")))[0]
        found.place = place(params)
    except Unsupported as reason:
        found.why = str(reason)
        return found
    if found.name.endswith("*") and found.place.upstream != found.name:
        found.why = "Names that stand for many models, and that its provider knows by other names, have no counterpart."
    elif not found.place.secret and VENDORS[found.place.vendor].needs_key:
        found.keyless = _why_keyless(missing, locked, named, credentials)
    _remark(found, params)
    return found


def _from_environment(params: dict[str, Any]) -> list[str]:
    """Put in what parameters take from the environment. Returns the names of variables that are not set here."""
    missing = []
    for name, value in list(params.items()):
        if isinstance(value, str) and value.startswith(_ENVIRONMENT):
            variable = value.removeprefix(_ENVIRONMENT)
            params[name] = "" if _OWN.fullmatch(variable.strip()) else os.environ.get(variable, "")
            if not params[name]:
                missing.append(variable)
    return missing


def _why_keyless(
    missing: Sequence[str], locked: Sequence[str], named: str, credentials: Mapping[str, Mapping[str, Any]]
) -> str:
    if own := [name for name in missing if _OWN.fullmatch(name.strip())]:
        return f"Its key is the variable {own[0][:60]}, which is no upstream's and is not read: enter its key."
    if missing:
        names = ", ".join(sorted(missing))
        return (
            f"Its key is in the environment of LiteLLM, as {names[:200]}, which is not set here: enter it, or set it."
        )
    if locked:
        return "Its key is encrypted with another key than the one that was given: enter it."
    if named and named not in credentials:
        return "Its key is a named credential that is in no table: enter it."
    return "It has no key in the database: LiteLLM takes it from its environment. Enter it."


def _remark(found: Deployment, params: Mapping[str, Any]) -> None:
    if found.place is not None and found.place.note:
        found.remarks.append(Remark(found.place.note))
    lacking = [name for name in _LEFT_OUT if params.get(name)]
    if lacking:
        found.remarks.append(Remark(f"It sets {', '.join(lacking)}, which is not carried over.", Level.LEFT_OUT))
    if found.rates != Rates() and (number_of(params.get("rpm")) or number_of(params.get("tpm"))):
        found.remarks.append(
            Remark("Its limits by minute, which spread requests there, limit its channel.", Level.NOTE)
        )


def channels(deployments: Sequence[Deployment]) -> Iterator[SourceChannel]:
    """Channels in the order in which their first deployments came."""
    together: dict[str, list[Deployment]] = {}
    for one in deployments:
        together.setdefault(one.channel, []).append(one)
    last = max((one.order for one in deployments), default=0)
    names: dict[str, int] = {}
    for channel_id, members in together.items():
        first = members[0]
        at = first.place
        if at is None or first.why:
            for one in members:
                yield SourceChannel(id=f"deployment:{one.id}", name=one.name, left_out=one.why)
            continue
        base = text_of(first.params.get("litellm_credential_name")) or at.provider
        names[base] = names.get(base, 0) + 1
        usable = [one for one in members if not one.why]
        yield SourceChannel(
            id=channel_id,
            name=f"{base} {names[base]}" if names[base] > 1 else base,
            provider=at.vendor,
            base_url=at.base_url,
            keys=(SourceKey(secret=at.secret),) if at.secret else (),
            routes=tuple(_routes(usable)),
            priority=last + 1 - first.order if first.order else 0,
            weight=first.weight,
            enabled=not first.keyless,
            text_api=at.text_api,
            rates=first.rates,
            remarks=tuple(_remarks(usable)),
        )


def _routes(members: Sequence[Deployment]) -> Iterator[SourceRoute]:
    seen: set[str] = set()
    for one in members:
        if one.place is not None and one.name not in seen:
            seen.add(one.name)
            yield SourceRoute(model=one.name, upstream=one.place.upstream, enabled=not one.blocked)


def _remarks(members: Sequence[Deployment]) -> Iterator[Remark]:
    if members[0].keyless:
        yield Remark(f"{members[0].keyless} The channel is disabled until then.", Level.LEFT_OUT)
    yield from dict.fromkeys(remark for one in members for remark in one.remarks)
    names = [one.name for one in members]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Remark(f"“{name}” has several deployments with this key; the channel has the first one.")


def prices(deployments: Sequence[Deployment]) -> Iterator[SourcePrice]:
    """What deployments cost: one price of a model where they agree, otherwise one of each channel."""
    by_name: dict[str, list[Deployment]] = {}
    for one in deployments:
        if one.place is not None and not one.why:
            by_name.setdefault(one.name, []).append(one)
    for name, members in by_name.items():
        found = [(one, *tiers_of({**one.info, **one.params})) for one in members]
        told = tuple(dict.fromkeys(remark for _one, _tiers, remarks in found for remark in remarks))
        if not any(tiers for _one, tiers, _remarks in found):
            continue
        if all(tiers == found[0][1] for _one, tiers, _remarks in found):
            yield SourcePrice(id=name, name=name, tiers=found[0][1], remarks=told)
            continue
        for one, tiers, _remarks in found:
            if tiers:
                yield SourcePrice(id=f"{name}@{one.channel}", name=name, channel=one.channel, tiers=tiers, remarks=told)


def models(
    deployments: Sequence[Deployment],
    aliases: Mapping[str, str],
    may: Callable[[str], tuple[Sequence[str], Sequence[str]]],
) -> Iterator[SourceModel]:
    """Public names. `may`: the ids of the groups and of the users who may use a model."""
    by_name: dict[str, list[Deployment]] = {}
    for one in deployments:
        by_name.setdefault(one.name, []).append(one)
    for name, members in by_name.items():
        groups, users = may(name)
        usable = [one for one in members if not one.why]
        remarks = []
        if usable and not any(tiers_of({**one.info, **one.params})[0] for one in usable):
            text = (
                "It has no price in the database: LiteLLM has its own list. `manage.py prices import` has list prices."
            )
            remarks.append(Remark(text))
        yield SourceModel(
            id=name,
            name=name,
            groups=tuple(groups),
            users=tuple(users),
            aliases=tuple(alias for alias, target in aliases.items() if target == name and alias not in by_name),
            left_out=members[0].why if not usable and name.endswith("*") else "",
            remarks=tuple(remarks),
        )


def aliases_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Further names of models, of the settings of the router."""
    found = {}
    for alias, target in object_of(settings.get("model_group_alias")).items():
        name = text_of(target.get("model")) if isinstance(target, dict) else text_of(target)
        if alias and name:
            found[alias] = name
    return found
