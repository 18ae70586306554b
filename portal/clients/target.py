"""The portal that a client app is to be connected to, as the app itself sees it: its address, a token, its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from portal.lib.texts import reason

_SECONDS: Final = 10.0
_CHAT: Final = "chat"
_DEMO_OWNER: Final = "airelays"  # of the model that the first run of a portal makes
_SHOWN: Final = 20  # models that an error names
PRICE_CLASSES: Final = ("input", "output", "cached_input", "cache_write")  # that apps can be told


class CannotConnect(Exception):
    """Why an app cannot be connected, in a sentence that says what to do.

    `code`: of the command's end, 2 where what was typed is wrong.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model that the token may use. Numbers are tokens, None where the portal does not know them."""

    name: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    is_alias: bool = False  # it is a further name of another one
    abilities: Sequence[str] = ()  # as the portal's list of models calls them; empty: not known
    prices: Mapping[str, float] = field(default_factory=dict)  # USD per 1M tokens, by class; empty: not known
    is_demo: bool = False  # no language model answers


@dataclass(frozen=True, slots=True)
class Target:
    """What an app is connected to."""

    address: str  # without a path, such as http://127.0.0.1:8000
    token: str
    models: Sequence[OfferedModel]
    model: str  # that the app begins with

    def like(self, *words: str) -> str:
        """The newest-looking model whose name has one of these words, or else the one that the app begins with."""
        found = [one.name for one in self.models if any(word in one.name.lower() for word in words)]
        return self.model if any(word in self.model.lower() for word in words) or not found else max(found)


def look_up(address: str, token: str, model: str = "") -> Target:
    """Ask a portal which models the token may use. Raises CannotConnect. `model`: as in `chosen`."""
    address = without_path(address)
    answer = _get(f"{address}/v1/models", {"authorization": f"Bearer {token}"})
    if answer.status_code == 401:
        raise CannotConnect("The portal does not accept this token. Give another one with --token.", 2)
    try:
        listed: list[dict[str, Any]] = answer.raise_for_status().json()["data"]
        offered = [_offered(one) for one in listed if _CHAT in one.get("abilities", [_CHAT])]
    except (httpx.HTTPStatusError, ValueError, LookupError, TypeError, AttributeError):
        raise CannotConnect(
            f"{address}/v1/models answers with status {answer.status_code} and no list of models. Give the portal's "
            "own address with --url."
        ) from None
    return chosen(address, token, offered, model)


def chosen(address: str, token: str, offered: Sequence[OfferedModel], model: str = "") -> Target:
    """What an app is to be connected to. Raises CannotConnect where the token may not use the model, or none.

    `model`: that the app is to begin with; empty: the first by name, of those that are the models' own names. The demo
    is chosen only where there is no other.
    """
    names = sorted(one.name for one in offered)
    if not names:
        raise CannotConnect("The token may use no model that can chat. Add a channel with models to the portal first.")
    if model and model not in names:
        more = ", …" if len(names) > _SHOWN else "."
        raise CannotConnect(f"The token may not chat with “{model}”. It may with: {', '.join(names[:_SHOWN])}{more}", 2)
    first = min(offered, key=lambda one: (one.is_demo, one.is_alias, one.name))
    return Target(address, token, offered, model or first.name)


def check_answers(address: str) -> None:
    """Raises CannotConnect when no portal answers there."""
    answer = _get(f"{address}/healthz", {})
    if answer.status_code != 200:
        raise CannotConnect(
            f"What answers at {address} is no portal (status {answer.status_code}). Give its address with --url."
        )


def without_path(address: str) -> str:
    return address.rstrip("/").removesuffix("/v1")


def _get(url: str, headers: dict[str, str]) -> httpx.Response:
    address = without_path(url.rpartition("/")[0])
    try:
        return httpx.get(url, headers=headers, timeout=_SECONDS, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        why = reason(error)
        raise CannotConnect(
            f"The portal does not answer at {address}: {why}. Start it, or give the address at which it can be reached "
            "with --url."
        ) from None


def _offered(found: dict[str, Any]) -> OfferedModel:
    limits = found.get("context_window"), found.get("max_output_tokens")
    pricing = found.get("pricing") or {}
    prices = {name: float(pricing[name]) for name in PRICE_CLASSES if name in pricing}
    abilities, is_demo = tuple(found.get("abilities", ())), found.get("owned_by") == _DEMO_OWNER
    return OfferedModel(str(found["id"]), *limits, "alias_target" in found, abilities, prices, is_demo)
