"""Recordings whose length cannot be measured: refused where their price depends on it, and served where it does not."""

from __future__ import annotations

from typing import Any

import pytest

from relay.models import UsageRecord
from tests.support.peers.sounds import adts_frame, esds, m4a
from tests.support.portal import Portal
from tests.support.server import ROOT, Server
from tests.support.upstream import Call

pytestmark = pytest.mark.shared

RECORDINGS = ROOT / "tests" / "protocols" / "passthrough" / "recordings"  # two seconds each
MINUTE = b"\x93NEW" + bytes(960_000)  # at 128 kbit/s
WORDS = "word " * 150  # a minute of speech
BY_SECOND = {"input": 0, "output": 0, "per_second": "0.01"}
BY_TOKEN = {"input": 6, "output": 10}
BY_AUDIO = {"input": 0, "audio_input": 6, "output": 0}
BY_CALL = {"input": 0, "output": 0, "per_call": "0.01"}
FREE = {"input": 0, "output": 0}


def asked(
    live: Portal,
    server: Server,
    content: bytes,
    price: dict[str, Any],
    path: str = "transcriptions",
    name: str = "a.new",
) -> tuple[Any, list[Call]]:
    """The response of the portal, and what reached the upstream."""
    calls: list[Call] = []

    async def script(call: Call) -> None:
        calls.append(call)
        await call.reply(200, {"text": WORDS})

    data = {"model": live.model(script, price=price)}
    token = live.token(live.user(balance=10**11))
    server.catch_up()
    files = {"file": (name, content)}
    return server.request("POST", token, f"/v1/audio/{path}", data=data, files=files), calls


def frames(name: str) -> list[bytes]:
    """The blocks of a recording of AAC."""
    whole, at, found = (RECORDINGS / name).read_bytes(), 0, list[bytes]()
    while at + 7 < len(whole):
        size = (whole[at + 3] & 3) << 11 | whole[at + 4] << 3 | whole[at + 5] >> 5
        found.append(whole[at + 7 : at + size])
        at += size
    return found


def crafted() -> dict[str, bytes]:
    blocks = frames("aac.aac")
    packed = [b"".join(blocks[at : at + 4]) for at in range(0, len(blocks), 4)]
    return {
        "unknown.new": MINUTE,
        "packed.aac": b"".join(map(adts_frame, packed)),
        "packed.m4a": m4a(packed, esds(8)),
        "played-often.m4a": m4a(blocks, esds(8), edits=[(2112, 0)] * 10),
    }


@pytest.mark.parametrize("name", ["unknown.new", "packed.aac", "packed.m4a", "played-often.m4a"])
@pytest.mark.parametrize("path", ["transcriptions", "translations"])
def test_one_that_cannot_be_measured_is_refused_and_costs_nothing(
    live: Portal, server: Server, name: str, path: str
) -> None:
    response, calls = asked(live, server, crafted()[name], BY_SECOND, path, name)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "unsupported_audio", "file")
    assert error["type"] == "invalid_request_error" and "ffmpeg" in error["message"]
    assert response.headers["x-should-retry"] == "false" and not calls
    assert not UsageRecord.objects.filter(request_id=response.headers["x-request-id"], cost__gt=0).exists()


@pytest.mark.parametrize("price", [BY_TOKEN, BY_AUDIO], ids=["tokens", "audio tokens"])
def test_so_it_is_where_the_length_decides_about_tokens(live: Portal, server: Server, price: dict[str, Any]) -> None:
    response, calls = asked(live, server, MINUTE, price)
    assert response.status_code == 400 and not calls


@pytest.mark.parametrize(("price", "cost"), [(BY_CALL, 10_000_000), (FREE, 0)], ids=["by call", "free"])
def test_it_is_served_where_its_length_has_no_price(
    live: Portal, server: Server, price: dict[str, Any], cost: int
) -> None:
    response, calls = asked(live, server, MINUTE, price)
    assert response.status_code == 200 and len(calls) == 1
    record = live.record(response)
    assert record.cost == cost and 45_000 <= record.milliseconds <= 90_000


@pytest.mark.parametrize("name", ["ac3.ac3", "aac.latm", "latm.ts", "mp2.mpg", "mp3.avi", "aac.flv", "gsm.wav"])
def test_recordings_in_other_containers_cost_their_seconds(live: Portal, server: Server, name: str) -> None:
    response, _ = asked(live, server, (RECORDINGS / name).read_bytes(), BY_SECOND, name="renamed.mp3")
    assert response.status_code == 200, response.text
    record = live.record(response)
    assert record.milliseconds == pytest.approx(2050, rel=0.05) and record.cost == record.milliseconds * 10_000
