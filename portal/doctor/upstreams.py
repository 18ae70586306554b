"""Checks of the channels: what the portal knows of each, and the way to its upstream, phase by phase.

Only addresses of enabled channels are reached, by the guard, the proxy and the certificates that requests use. Channels
at one address share the measurement, so that ten thousand of them cost no more than their upstreams.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
from asgiref.sync import async_to_sync
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.config import Config
from portal.doctor.report import Check, told
from portal.installation import addresses
from portal.lib import net
from portal.lib.crypto import Undecryptable
from portal.lib.net import Allowance
from portal.lib.redaction.redact import redact
from relay.channels import status as channel_status
from relay.channels.connection import client_of, why_unreachable
from relay.channels.probe import Signed, explain_failure, list_address, signed_with, why_unusable
from relay.models import AllowedUpstream, ApiKey, Channel
from relay.providers.classify import classify
from relay.providers.vendors import BUILT_IN
from relay.transport.resolver import ConnectRefused, NotPermitted
from relay.transport.timings import AnswerTimer, Timings, measure

AT_ONCE: Final = 16  # upstreams that are reached at the same time
PHASE_SECONDS: Final = 5.0  # for the name, the connection, TLS
ANSWER_SECONDS: Final = 15.0
ALL_SECONDS: Final = 90.0  # for all upstreams together
_MOST: Final = 200  # channels without a fault, and with one, that are told one by one
_BAD: Final = frozenset((401, 403))


@dataclass(slots=True)
class Way:
    """The way to the upstream of one or more channels, and what was measured on it."""

    channel: Channel  # the one that is asked for its models
    signed: Signed
    timings: Timings | None = None  # None: not measured
    http: int | None = None  # milliseconds until the head of the answer
    status: int | None = None
    fault: str = ""
    refused: bool = False  # the fault is about the key alone
    skew: float | None = None  # seconds that the upstream's clock is ahead of ours


@dataclass(slots=True)
class Found:
    """What the checks of the channels leave to others."""

    skews: list[float] = field(default_factory=list)
    working: list[Channel] = field(default_factory=list)  # that may be asked for an answer, the first choice first


def upstreams(config: Config, found: Found, tell: Callable[[str], None]) -> Iterator[Check]:
    """One result per channel; where there are very many, those without a fault are summed up."""
    # A plan of one person's is private: it is neither reached nor asked, and only counted.
    channels = list(Channel.objects.filter(enabled=True, chatgpt_account=None).order_by("-priority", "pk"))
    real = [channel for channel in channels if channel.provider not in BUILT_IN]
    states = {one.id: one for one in channel_status.channel_statuses()} if channels else {}
    yield _sign_in(config, real, states)
    keys = _keys()
    ways: dict[tuple[str, str], Way] = {}
    place: dict[int, tuple[str, str]] = {}
    broken: dict[int, str] = {}
    for channel in real:
        if states[channel.pk].state == channel_status.DOWN:
            continue  # it has no key, or may not be used
        try:
            signed = signed_with(channel, keys.get(channel.pk))
        except Undecryptable as error:
            broken[channel.pk] = why_unusable(error)
            continue
        place[channel.pk] = key = (net.origin(channel.effective_base_url), channel.proxy_url)
        ways.setdefault(key, Way(channel, signed))
    if ways:
        async_to_sync(_reach_all)(list(ways.values()), AllowedUpstream.allowances(), config.upstream_ca_file, tell)
        found.skews += [way.skew for way in ways.values() if way.skew is not None]
    fine: list[Check] = []
    bad: list[Check] = []
    for channel in real:
        where = place.get(channel.pk)
        way = ways.get(where) if where is not None else None
        check = _check_of(channel, states[channel.pk], way, broken.get(channel.pk, ""))
        if check.status != "fail":
            found.working.append(channel)
        (fine if check.status == "pass" else bad).append(check)
    yield from _summed_bad(bad)
    yield from _summed(fine)
    found.working += [channel for channel in channels if channel.provider in BUILT_IN]


def _keys() -> dict[int, ApiKey]:
    """A key in service by channel."""
    rows = ApiKey.objects.filter(enabled=True, auto_disabled="", channel__enabled=True)
    found: dict[int, ApiKey] = {}
    for key in rows.order_by("pk"):
        found.setdefault(key.channel_id, key)
    return found


def _sign_in(config: Config, real: Sequence[Channel], states: dict[int, channel_status.ChannelStatus]) -> Check:
    """Whether any upstream lets the portal in."""
    if not real:
        guide = f"{addresses.own_address(config.public_url, config.host, config.port)}/admin/setup/"
        return Check(
            "upstream_auth",
            "skip",
            _("There is no channel of your own yet: only the demo answers."),
            (_("Add a channel: %(address)s") % {"address": guide},),
            {"channels": 0},
        )
    able = [channel for channel in real if states[channel.pk].state != channel_status.DOWN]
    data = {"channels": len(real), "able": len(able)}
    if able:
        text = ngettext(
            "%(able)d of %(n)d channel has what its upstream asks for.",
            "%(able)d of %(n)d channels have what their upstreams ask for.",
            len(real),
        ) % {"able": len(able), "n": len(real)}
        return Check("upstream_auth", "pass", text, data=data)
    text = _("No channel can be used: keys are missing or out of service, or addresses are not permitted.")
    return Check("upstream_auth", "fail", text, (_("Correct the channels below in the admin."),), data)


def _check_of(channel: Channel, state: channel_status.ChannelStatus, way: Way | None, broken: str) -> Check:
    name = f"channel:{channel.pk}"
    data: dict[str, Any] = {"channel": channel.pk, "provider": channel.provider, "state": state.state}
    shown = {"name": channel.name}
    if state.state == channel_status.DOWN or broken:
        text = _("“%(name)s” serves nothing: %(why)s") % {**shown, "why": broken or redact(state.text)}
        return Check(name, "fail", text, (_("Correct the channel in the admin."),), data)
    if way is None or way.timings is None:
        text = _("“%(name)s” was not measured: the time for all upstreams was over.") % shown
        return Check(name, "warn", text, (), data)
    times = way.timings
    own = way.channel.pk == channel.pk
    data |= {"name_ms": times.name, "tcp_ms": times.tcp, "tls_ms": times.tls, "http_ms": way.http}
    data |= {"status": way.status, "proxy": bool(channel.proxy_url), "measured_with": way.channel.pk}
    if way.fault and (own or not way.refused):
        data["failed"] = times.failed or "http"
        text = _("“%(name)s”: %(why)s") % {**shown, "why": way.fault}
        return Check(name, "fail", text, (_advice(times.failed or "http", way),), data)
    text = _("“%(name)s”: %(times)s.") % {**shown, "times": _words(times, way.http, bool(channel.proxy_url))}
    if state.state != channel_status.UP:
        return Check(
            name, "warn", f"{text} {state.word}: {redact(state.text)}", (_("See the channel in the admin."),), data
        )
    return Check(name, "pass", text, data=data)


def _words(times: Timings, http: int | None, proxied: bool) -> str:
    parts = ((_("name"), times.name), ("TCP", times.tcp), ("TLS", times.tls), ("HTTP", http))
    said = ", ".join(f"{label} {value} ms" for label, value in parts if value is not None)
    return _("through its proxy: %(times)s") % {"times": said} if proxied else said


def _advice(phase: str, way: Way) -> str:
    if phase == "name":
        return _("Check the base URL and this machine's name server.")
    if phase == "tcp":
        return _("Check that the upstream runs, the firewall, and the proxy of the channel.")
    if phase == "tls":
        return _("Check the base URL, and AIRELAYS_UPSTREAM_CA_FILE for certificates of your own.")
    if way.refused:
        return _("Replace the key of the channel in the admin.")
    return _("Check the base URL, and test the channel in the admin.")


def _summed_bad(bad: list[Check]) -> Iterator[Check]:
    yield from bad[:_MOST]
    if left := bad[_MOST:]:
        text = ngettext("%(n)d more channel is not listed here.", "%(n)d more channels are not listed here.", len(left))
        status = "fail" if any(check.status == "fail" for check in left) else left[0].status
        steps = (_("The list of channels in the admin has them all."),)
        yield Check("channels_left_out", status, text % {"n": len(left)}, steps, {"channels": len(left)})


def _summed(fine: list[Check]) -> Iterator[Check]:
    yield from fine[:_MOST]
    if (more := len(fine) - _MOST) > 0:
        text = ngettext("%(n)d more channel answers.", "%(n)d more channels answer.", more) % {"n": more}
        yield Check("channels", "pass", text, data={"channels": more})


# -- reaching them ---------------------------------------------------------------------------------------------------


async def _reach_all(ways: list[Way], allowed: Sequence[Allowance], ca_file: str, tell: Callable[[str], None]) -> None:
    tls = ssl.create_default_context(cafile=ca_file or None)
    if ca_file:
        tls.load_default_certs()
    slots, done = asyncio.Semaphore(AT_ONCE), 0

    async def one(way: Way) -> None:
        nonlocal done
        async with slots:
            await _reach(way, allowed, tls)
        done += 1
        tell(_("Upstreams: %(done)d of %(all)d") % {"done": done, "all": len(ways)})

    with suppress(TimeoutError):
        async with asyncio.timeout(ALL_SECONDS):
            await asyncio.gather(*(one(way) for way in ways))


async def _reach(way: Way, allowed: Sequence[Allowance], tls: ssl.SSLContext) -> None:
    """Measure the way, through the channel's proxy if it has one, then ask for the list of models, which is free."""
    channel = way.channel
    times = await measure(channel.proxy_url or channel.effective_base_url, allowed, tls, PHASE_SECONDS)
    if times.failed is not None:
        way.fault = why_unreachable(_as_of_client(times))
        way.timings = times
        return
    timer = AnswerTimer()
    try:
        async with asyncio.timeout(ANSWER_SECONDS), client_of(channel, allowed, way.signed.signer, timer) as client:
            path = list_address(channel, channel.vendor.models_paths[0])
            async with client.stream("GET", path, headers=way.signed.headers) as answer:
                body = b""
                async for piece in answer.aiter_raw():
                    body += piece
                    if len(body) > 65_536 or answer.status_code == 200:
                        break
        _read(way, answer, body)
        way.http = timer.milliseconds
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
        way.fault = why_unreachable(error)
    way.timings = times


def _as_of_client(times: Timings) -> Exception:
    """The error as a client of HTTP would raise it."""
    error = times.error
    if error is None or isinstance(error, TimeoutError):
        return httpx.ConnectTimeout("")
    return ConnectRefused(str(error)) if isinstance(error, NotPermitted) else httpx.ConnectError(told(error))


def _read(way: Way, answer: httpx.Response, body: bytes) -> None:
    way.status = answer.status_code
    with suppress(KeyError, ValueError, TypeError):
        way.skew = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
    if answer.status_code in _BAD or answer.status_code >= 500 or 300 <= answer.status_code < 400:
        failure = classify(answer.status_code, answer.headers, body, way.channel.provider)
        way.fault = explain_failure(answer.status_code, failure, body)
        way.refused = answer.status_code in _BAD
