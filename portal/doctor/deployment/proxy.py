"""Checks of what stands in front of the portal: what it says of clients, and what it lets through."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
from django.http.request import validate_host
from django.utils.translation import gettext as _
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from portal.config import Config
from portal.doctor.deployment import question
from portal.doctor.deployment.address import FORGED, SECONDS, Public
from portal.doctor.report import Check, told
from portal.lib import net

_UPLOAD_BYTES: Final = 30_000_000
_UPLOAD_SECONDS: Final = 120.0
_PIECE: Final = b"0" * 65_536
_SHARE: Final = 0.3  # of the time over which a stream is sent, within which a buffered one arrives
_SAMPLES: Final = "docs/deploy.md"


def proxy(config: Config, public: Public) -> Iterator[Check]:
    """Everything that can be asked by way of the public address, once the portal was reached there."""
    if public.seen is None:
        for name in ("proxy", "streams", "websockets", "uploads"):
            yield Check(name, "skip", _("Not checked: the portal was not reached at its public address."))
        return
    yield from forwarding(public.seen, public.url)
    yield streams(public)
    yield websockets(public)
    yield uploads(public, min(_UPLOAD_BYTES, config.max_body_bytes))


def forwarding(seen: dict[str, Any], public_url: str) -> Iterator[Check]:
    """What the portal saw of a request that named `FORGED` as its client.

    `seen`: as of `question.seen`.
    """
    faults = list(_faults(seen, public_url))
    data = {name: seen[name] for name in ("peer", "trusted", "client", "forwarded_for", "forwarded_proto", "host")}
    for text, step in faults:
        yield Check("proxy", "fail", text, (step,), data)
    if not faults:
        last = net.parse_hop(seen["forwarded_for"].rpartition(",")[2])
        text = _("Requests come from the proxy %(peer)s, which says who their clients are: %(last)s for this one.")
        if not seen["trusted"]:
            text = _("Requests come from their clients, such as %(peer)s, without a proxy.")
        yield Check("proxy", "pass", text % {**data, "last": last}, data=data)


def _faults(seen: dict[str, Any], public_url: str) -> Iterator[tuple[str, str]]:
    scheme, _separator, netloc = public_url.partition("://")
    last = seen["forwarded_for"].rpartition(",")[2].strip()
    added = last not in {"", FORGED}
    if not seen["trusted"]:
        if added or seen["forwarded_proto"] or seen["proxied"] or scheme == "https":
            text = _(
                "Requests come from the proxy %(peer)s, which is not trusted: to the portal it is the client of all of "
                "them, and pages are not shown."
            )
            step = _("Set AIRELAYS_TRUSTED_PROXIES=%(peer)s, or to its network if that changes.")
            yield text % seen, step % seen
    else:
        if not last:
            text = _(
                "The proxy %(peer)s does not send X-Forwarded-For: to the portal it is the client of all requests."
            )
            yield text % seen, _("Let it send the header: %(file)s has samples.") % {"file": _SAMPLES}
        elif last == FORGED:
            text = _(
                "The proxy %(peer)s passes the X-Forwarded-For of clients on as it is: anybody can pretend to come "
                "from another address."
            )
            step = _("Let the proxy add the client's address, or replace the header: %(file)s has samples.")
            yield text % seen, step % {"file": _SAMPLES}
        elif net.parse_hop(last) is None:
            text = _("The proxy %(peer)s writes “%(last)s” into X-Forwarded-For, which is not an address.")
            step = _("Let it write the address of the client, with or without its port.")
            yield text % {**seen, "last": last[:60]}, step
        if seen["forwarded_proto"] != scheme:
            text = _("The proxy says “%(said)s” as X-Forwarded-Proto, and users come by %(scheme)s.")
            step = _("Let it send X-Forwarded-Proto: %(scheme)s. Pages are not shown, or redirect for ever, otherwise.")
            shown = {"said": seen["forwarded_proto"][:60], "scheme": scheme}
            yield text % shown, step % shown
    host = seen["host"].rpartition(":")[0] if seen["host"].rpartition(":")[2].isdecimal() else seen["host"]
    if not validate_host(host.lower(), seen["hosts"]):
        text = _("The proxy names the host “%(host)s”, to which the pages do not answer.")
        step = _("Let it pass the Host header on as %(netloc)s, or add that name to AIRELAYS_ALLOWED_HOSTS.")
        yield text % {"host": seen["host"][:100]}, step % {"netloc": netloc}


def streams(public: Public) -> Check:
    """Whether the parts of a stream arrive as they are sent. A buffered one is asked for twice."""
    wait = question.PAUSE_SECONDS * (question.PARTS - 1)
    spread = 0.0
    for _try in range(2):
        arrived: list[float] = []
        try:
            with public.client() as client, client.stream("GET", public.question("stream")) as answer:
                arrived += [time.monotonic() for _part in answer.iter_raw()]
        except httpx.HTTPError as error:
            text = _("A stream broke off: %(why)s.") % {"why": told(error)}
            return Check("streams", "fail", text, (_("Look into the log of what stands in front."),))
        spread = max(spread, arrived[-1] - arrived[0] if arrived else 0.0)
        if spread > _SHARE * wait:
            return Check("streams", "pass", _("Streams arrive as they are sent."))
    text = _("Streams are held back until they end: clients see nothing while a model writes.")
    step = _("Turn buffering off in what stands in front (nginx: proxy_buffering off), and compression: see %(file)s.")
    return Check("streams", "fail", text, (step % {"file": _SAMPLES},), {"seconds": round(spread, 2)})


def websockets(public: Public) -> Check:
    """Whether a websocket can be opened."""
    url = "ws" + public.question("socket").removeprefix("http")
    tls = public.tls if url.startswith("wss") else None
    try:
        with connect(url, ssl=tls, proxy=None, open_timeout=SECONDS, close_timeout=1) as socket:
            socket.recv(SECONDS)
    except (WebSocketException, OSError) as error:
        text = _("No websocket can be opened: %(why)s. Realtime sessions and live pages need them.")
        step = _("Let the proxy pass the headers Upgrade and Connection over HTTP/1.1: %(file)s has samples.")
        return Check("websockets", "fail", text % {"why": told(error)}, (step % {"file": _SAMPLES},))
    return Check("websockets", "pass", _("Websockets can be opened."))


def uploads(public: Public, size: int) -> Check:
    """Whether a large body comes through. Sends so many bytes."""
    shown = {"size": f"{size // 1_000_000} MB", "file": _SAMPLES}
    step = _("Raise the limit of bodies in what stands in front (nginx: client_max_body_size 33m): see %(file)s.")

    def body() -> Iterator[bytes]:
        for sent in range(0, size, len(_PIECE)):
            yield _PIECE[: size - sent]

    try:
        with public.client(_UPLOAD_SECONDS) as client:
            answer = client.post(public.question("upload"), content=body(), headers={"content-length": str(size)})
    except httpx.TimeoutException:
        text = _("An upload of %(size)s did not end within two minutes.") % shown
        return Check("uploads", "warn", text, (_("Check the line, and the timeouts of what stands in front."),))
    except httpx.HTTPError as error:  # a proxy may refuse and close before everything was sent
        text = _("An upload of %(size)s was cut off: %(why)s.") % {**shown, "why": told(error)}
        return Check("uploads", "fail", text, (step % shown,))
    if answer.status_code == 200 and f'"received": {size}' in answer.text:
        return Check("uploads", "pass", _("Uploads of %(size)s come through.") % shown)
    text = _("An upload of %(size)s was answered with %(status)d.") % {**shown, "status": answer.status_code}
    return Check("uploads", "fail", text, (step % shown,))
