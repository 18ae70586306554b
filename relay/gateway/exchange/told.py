"""What upstreams are told of a client that want to know who asks, or which conversation a request belongs to."""

from __future__ import annotations

import hashlib
import hmac

from django.conf import settings

from relay.gateway.exchange.exchange import Exchange
from relay.providers.vendor import Vendor


def told_of_client(vendor: Vendor, exchange: Exchange, user: int, conversation: str) -> dict[str, str]:
    """Headers for requests to a vendor; empty for nearly all. `user`: whose the conversation is, empty: it has none."""
    found: dict[str, str] = {}
    if vendor.session_header:
        found[vendor.session_header] = _digest(f"{user} {conversation or exchange.request_id}")
    if vendor.tells_agent and (agent := exchange.headers.get(b"user-agent")):
        found["user-agent"] = agent.decode("latin-1")
    if exchange.trace is not None:
        found.update(exchange.trace.headers)
    return found


def _digest(conversation: str) -> str:
    """A name by which an upstream knows a conversation again, and nobody anything else."""
    key = b"airelays upstream session" + settings.SECRET_KEY.encode()
    return hmac.new(key, conversation.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]
