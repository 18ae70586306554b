"""Whether objects of the account at an upstream that a request names were made for its user."""

from __future__ import annotations

from collections.abc import Sequence

from relay.gateway.snapshot.cache import snapshot_cache
from relay.protocols.fields import refused_reference
from relay.protocols.naming.references import Reference
from relay.storage import responses as stored_responses


async def check_own(user_id: int, named: Sequence[Reference]) -> None:
    """Raise BadRequest for an object that no stored response of the user has made. Raises RelayUnavailable."""
    if not named:
        return
    own = await snapshot_cache.in_thread(stored_responses.made_for, user_id, {one.id for one in named})
    for one in named:
        if one.id not in own:
            raise refused_reference(one)
