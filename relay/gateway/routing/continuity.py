"""What a worker remembers of conversations, so that each goes on where it can be continued.

It is bounded, and lost at a restart. Nothing depends on it: an upstream that does not know what it is sent says so, and
the request is sent once more (`relay.providers.continuations`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NamedTuple, TypeVar

from relay.gateway.snapshot.views import Pair

K = TypeVar("K")
V = TypeVar("V")
_MOST: Final = 20_000  # entries of each kind, of about 200 bytes
_FORGETFUL_SECONDS: Final = 86_400.0


class LastTurn(NamedTuple):
    """Where the last turn of a conversation was answered."""

    pair: Pair
    at: float  # seconds since 1970
    for_an_hour: bool = False  # the prompt was written to the cache for an hour


class Continuity:
    """Belongs to one event loop. Times are seconds since 1970."""

    def __init__(self, key: bytes = b"") -> None:
        """`key`: of the digests of conversations, which are the same on every worker."""
        self._key = blake2b(key, digest_size=32).digest()
        self._turns: OrderedDict[int, LastTurn] = OrderedDict()  # by digests of conversations
        self._makers: OrderedDict[bytes, Pair] = OrderedDict()
        self._forgetful: OrderedDict[tuple[int, int], float] = OrderedDict()  # (user, channel) to the time
        self._ids: OrderedDict[bytes, bool] = OrderedDict()  # ids of upstreams, and whether they came again

    def digest(self, user: int, model: int, conversation: str) -> int:
        """What usage records call a user's conversation with a model: 64 bits, from which nobody can tell its name.

        Prompt caches are by model, so that each model of a conversation has one of its own.
        """
        text = b"%d %d %s" % (user, model, conversation.encode("utf-8", "replace"))
        return int.from_bytes(blake2b(text, digest_size=8, key=self._key).digest(), "big", signed=True)

    def last_turn(self, digest: int) -> LastTurn | None:
        """Where this worker had the last turn of a conversation answered; None: it has not, or has forgotten."""
        return self._turns.get(digest)

    def remember_turn(self, digest: int, turn: LastTurn) -> None:
        _put(self._turns, digest, turn)

    def remember_maker(self, user: int, sealed: str, pair: Pair) -> None:
        """The channel and key `pair` made this encrypted content for a user."""
        _put(self._makers, _digest(user, sealed), pair)

    def makers(self, user: int, sealed: Iterable[str]) -> dict[str, Pair]:
        """Which channel and key made each encrypted content, as far as it is known."""
        found = ((text, self._makers.get(_digest(user, text))) for text in sealed)
        return {text: pair for text, pair in found if pair is not None}

    def remember_forgetful(self, user: int, channel: int, now: float) -> None:
        """A channel did not know a young response of a user: responses are not kept there, whatever the vendor does."""
        _put(self._forgetful, (user, channel), now)

    def is_forgetful(self, user: int, channel: int, now: float) -> bool:
        found = self._forgetful.get((user, channel))
        return found is not None and now - found < _FORGETFUL_SECONDS

    def can_name(self, user: int, channel: int, upstream_id: str, now: float) -> bool:
        """Whether a response may be named at its upstream in a user's request."""
        return not self.is_forgetful(user, channel, now) and not self.is_repeated(channel, upstream_id)

    def remember_id(self, channel: int, upstream_id: str) -> None:
        """An upstream gave a response this id."""
        key = _digest(channel, upstream_id)
        _put(self._ids, key, key in self._ids)

    def is_repeated(self, channel: int, upstream_id: str) -> bool:
        """Whether an upstream gave several responses this id, so that it stands for none of them."""
        return self._ids.get(_digest(channel, upstream_id), False)


def _digest(number: int, text: str) -> bytes:
    return blake2b(b"%d %s" % (number, text.encode("utf-8", "replace")), digest_size=12).digest()


def _put(known: OrderedDict[K, V], key: K, value: V) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _MOST:
        known.popitem(last=False)
