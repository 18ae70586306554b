"""Tells Codex which catalogue of models is the newest, in the headers of answers to it.

Codex keeps the catalogue for 5 minutes. With an answer that names the entity tag of the one that it has, they begin
anew; one that names another makes it ask at once, so that it knows of a model as soon as it can be used.

Source: openai/codex, `codex-rs/models-manager/src/{manager,cache}.rs`, read in November 2026.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from time import monotonic
from typing import Final

from portal import __version__
from relay.gateway.access.authorization import usable_models
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.snapshot import Snapshot
from relay.gateway.snapshot.views import ModelView
from relay.protocols.codex.limits import is_codex

_FRESH_SECONDS: Final = 60.0  # permissions and prices begin and end by the clock, without a new snapshot
_MOST_KNOWN: Final = 10_000  # tokens whose tags are kept
_HEADER: Final = b"x-models-etag"


class CatalogueTags:
    """The entity tags of the catalogues of tokens. Used on the event loop only."""

    def __init__(self, sells_unpriced: bool) -> None:
        self._sells_unpriced = sells_unpriced
        self._known: dict[int, tuple[Snapshot, float, str]] = {}  # by token: of which snapshot, `time.monotonic()`

    def tell(self, exchange: Exchange, caller: Caller) -> None:
        """Add the tag to the answer's headers."""
        if is_codex(exchange.headers):
            exchange.reply_headers.append((_HEADER, self.tag(caller, exchange.wall).encode()))

    def tag(self, caller: Caller, now: float, fresh: bool = False) -> str:
        """The tag, in its quotes. `now`: seconds since 1970. `fresh`: as it is now, for the catalogue itself."""
        snapshot, at = snapshot_cache.snapshot, monotonic()
        known = self._known.get(caller.token_id)
        if known is not None and known[0] is snapshot and at - known[1] < _FRESH_SECONDS and not fresh:
            return known[2]
        found = tag_of(usable_models(caller, snapshot.models_of(caller), now, self._sells_unpriced))
        self._known.pop(caller.token_id, None)
        while len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[caller.token_id] = (snapshot, at, found)
        return found


def tag_of(models: Iterable[ModelView]) -> str:
    """The tag of a catalogue of these models: of all that it tells of them, and of the version that tells it."""
    told = [
        (model.name, model.display_name, model.context_window, model.abilities, model.reasoning_levels, model.aliases)
        for model in models
    ]
    return f'"{hashlib.sha256(repr((__version__, told)).encode()).hexdigest()[:32]}"'
