"""What OpenAI's SDK for Node can do with realtime sessions: at the scripted upstream itself, and through the portal.

It connects to no websocket without TLS.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.node.runner import needs_node, run_cases
from tests.support.node.tls import tls_before
from tests.support.peers.conversing import converse
from tests.support.peers.every_event import every_event
from tests.support.peers.realtime import RealtimeUpstream
from tests.support.peers.spoken import Realtime

pytestmark = [needs_node, pytest.mark.timeout(1800)]

COMMON = (
    "every event comes as it was sent",
    "every event of a client is answered",
    "the older form of the API",
    *(f"closed by the upstream with {code}" for code in (1000, 1001, 1011, 4000)),
    "it connects again after a restart",
    "a call is made, joined and hung up",
)
OF_THE_PORTAL = (
    "what the portal refuses is named by its id",
    "a handshake is refused",
    "it does not connect again where it is refused",
    "an organization and a project are named",
    "the key comes from a function",
    "a client secret opens its session",
    *(f"a transcription by {by}" for by in ("secret", "older secret", "first event")),
    "of Azure",
)
AT_LAST = ("calls by telephone are not served", "translations are not served")


def names(*cases: str) -> list[str]:
    return [f"{kind}: {case}" for kind in ("ws", "websocket") for case in cases]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What the scripts have found, once they have run."""
    return {}


def _run(found: dict[str, Any], way: str, port: int, key: str, model: str, folder: Path) -> dict[str, str]:
    if way not in found:
        found[way] = {}  # the script is run once, whatever becomes of it
        said = [event for event in every_event() if way == "direct" or event["type"] != "rate_limits.updated"]
        events = folder / "events.json"
        events.write_text(json.dumps(said))
        with tls_before(port, folder) as (front, certificate):
            variables = {"BASE": f"https://127.0.0.1:{front}/v1", "KEY": key, "MODEL": model, "EVENTS": str(events)}
            variables |= {"NODE_EXTRA_CA_CERTS": str(certificate), "DIRECT": "1" if way == "direct" else ""}
            found[way] = run_cases("realtime.mjs", **variables)
    cases: dict[str, str] = found[way]
    return cases


@pytest.mark.parametrize("case", names(*COMMON))
def test_at_the_upstream(
    upstream_of_realtime: RealtimeUpstream, found: dict[str, Any], tmp_path: Path, case: str
) -> None:
    upstream_of_realtime.scripts["gpt-direct"] = converse
    cases = _run(found, "direct", upstream_of_realtime.port, "sk-upstream", "gpt-direct", tmp_path)
    assert cases.get(case, "the script has ended before") == "" and list(cases) == names(*COMMON)


@pytest.mark.parametrize("case", [*names(*COMMON, *OF_THE_PORTAL), *AT_LAST])
def test_through_the_portal(spoken: Realtime, found: dict[str, Any], tmp_path: Path, case: str) -> None:
    key, model = "", ""
    if "portal" not in found:
        model, key = spoken.model(converse), spoken.live.token()
        spoken.server.catch_up()
    cases = _run(found, "portal", spoken.server.port, key, model, tmp_path)
    assert cases.get(case, "the script has ended before") == "" and list(cases) == [
        *names(*COMMON, *OF_THE_PORTAL),
        *AT_LAST,
    ]
