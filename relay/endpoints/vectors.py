"""Vectors of upstreams that make them in another API than OpenAI's embeddings."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from portal.lib.json import encode, objects_of
from relay.endpoints.overrides import override_vectors
from relay.gateway.attempt import Attempt
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.views import ChannelView
from relay.protocols.cohere_chat.vectors import CohereVectors
from relay.protocols.gemini.embedding.upstream import GeminiVectors, PredictVectors
from relay.protocols.vectors import Embedded, VectorRequest, VectorUpstream
from relay.providers import parameters
from relay.providers.vendors import VENDORS

OPENAI: Final = "embeddings"
_GEMINI, _OF_CLOUD = GeminiVectors(), GeminiVectors(bare=True)
_UPSTREAMS: Final[tuple[VectorUpstream, ...]] = (_GEMINI, PredictVectors(), CohereVectors())


def vector_upstream(run: Runtime, channel: ChannelView) -> VectorUpstream | None:
    """The API in which a channel makes vectors; None: OpenAI's, or none."""
    if run.health.serves_api(channel, OPENAI):
        return None
    served = [upstream.api for upstream in _UPSTREAMS if run.health.serves_api(channel, upstream.api)]
    return vector_upstream_among(served, channel.provider)


def vector_upstream_among(apis: Container[str], provider: str) -> VectorUpstream | None:
    """The API among these of a vendor in which vectors are made; None: none of them."""
    found = next((upstream for upstream in _UPSTREAMS if upstream.api in apis), None)
    return _OF_CLOUD if found is _GEMINI and VENDORS[provider].embeds_bare else found


async def ask_vectors(attempt: Attempt, upstream: VectorUpstream, asked: VectorRequest, wanted: int) -> Embedded:
    """Have `wanted` vectors made. Adds what is dropped to the record. Raises Failure, Ended, CancelledError."""
    holders = objects_of(asked.body, "requests") or [asked.body]
    policy = attempt.channel.policy(upstream.api)
    dropped = [*attempt.record.dropped, *asked.lost]
    dropped += [name for one in holders for name in parameters.apply_to(policy, one)]
    dropped += override_vectors(attempt, asked.api, holders)
    attempt.record.dropped = list(dict.fromkeys(dropped))
    try:
        text = await (await attempt.open(asked.api, encode(asked.body))).read_all()
    finally:
        attempt.close()
    found = upstream.read(text, wanted)
    if found is None:
        raise attempt.unreadable_answer(text, f"an answer of {asked.api}")
    if found.error is not None:
        raise attempt.error_in_body(found.error)
    return found
