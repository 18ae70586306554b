"""Webhooks of users: signed calls that tell of a notice, to public addresses alone."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import httpx
import msgspec
from django.conf import settings
from standardwebhooks.webhooks import Webhook

from portal import limits
from portal.lib import net
from portal.lib.crypto import Undecryptable
from relay.models import Notice, NoticeSettings
from relay.transport.body import USER_AGENT
from relay.transport.pool import Upstreams

logger: Final = logging.getLogger(__name__)
_PREFIX: Final = "whsec_"  # of secrets
_FROM_URLSAFE: Final = str.maketrans("-_", "+/")  # secrets made before version 0.2 are base64 for URLs
_TIMEOUT: Final = httpx.Timeout(10.0)


async def call(notice: Notice, preferences: NoticeSettings) -> str:
    """Call a user's webhook. Returns "sent", or "failed: " with the reason.

    An address that is not public is refused when the connection is made, whatever channels may use.
    """
    message = f"notice_{notice.pk}"
    content = {
        "id": message,
        "type": notice.kind,
        "created": int(notice.created_at.timestamp()),
        "subject": notice.subject,
        "text": notice.text,
        "data": notice.data,
    }
    body = msgspec.json.encode(content)
    try:
        signature = sign(preferences.secret(), message, body, int(time.time()))
        headers = {"content-type": "application/json", "user-agent": USER_AGENT, **signature}
        allowed = allowances()
        net.check_url(preferences.webhook_url, allowed, query=True)
        status = await _post(preferences.webhook_url, headers, body, allowed)
    except TimeoutError:
        return f"failed: it did not answer within {limits.WEBHOOK_SECONDS} seconds"
    except (httpx.HTTPError, httpx.InvalidURL, net.AddressRefused, Undecryptable, OSError) as error:
        said = str(error).replace(preferences.webhook_url, net.mask_query(preferences.webhook_url))
        return f"failed: {said or type(error).__name__}"[:120]
    except Exception as error:
        logger.exception("the webhook of the notice %s could not be called", notice.key)
        return f"failed: {type(error).__name__}"
    return "sent" if 200 <= status < 300 else f"failed: HTTP {status}"


def allowances() -> tuple[net.Allowance, ...]:
    """Return what webhooks of users may call beside the public Internet: never what is allowed for channels."""
    return tuple(net.Allowance.parse(line) for line in settings.CONFIG.webhook_allow)


def new_secret() -> str:
    """Return a new secret for signing webhooks, in the form of Standard Webhooks."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str, message: str, body: bytes, at: int) -> dict[str, str]:
    """Return the headers that authenticate a webhook call, as https://www.standardwebhooks.com describes.

    `message` is its id, the same at every try, `at` the seconds since 1970. `x-airelays-signature` is the form from
    before version 0.2; version 0.3 leaves it out.
    """
    key = secret.removeprefix(_PREFIX).translate(_FROM_URLSAFE)
    signature = Webhook(key).sign(message, datetime.fromtimestamp(at, UTC), body.decode())
    old = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return {
        "webhook-id": message,
        "webhook-timestamp": str(at),
        "webhook-signature": signature,
        "x-airelays-signature": f"t={at},v1={old}",
    }


async def _post(url: str, headers: dict[str, str], body: bytes, allowed: Sequence[net.Allowance]) -> int:
    """Call a webhook; returns the status of its answer, of which nothing else is read."""
    upstreams = Upstreams(lambda: allowed, 1, settings.CONFIG.upstream_ca_file)
    try:
        async with (
            asyncio.timeout(limits.WEBHOOK_SECONDS),
            httpx.AsyncClient(transport=upstreams.transport(""), timeout=_TIMEOUT, follow_redirects=False) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            return answer.status_code
    finally:
        await upstreams.close()
