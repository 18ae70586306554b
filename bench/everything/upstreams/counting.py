"""What upstreams have done, counted while they do it, and the faults that they have."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final, TextIO

from aiohttp import web

TAG: Final = re.compile(r"#([a-z]+-[0-9a-f]{8,})")
WORD: Final = "word "
SLOW, STALL = 12.0, 12.0  # seconds, longer than the portal's time limits
# The share of the answers of a channel that have a fault.
FAULTS: Final[Mapping[str, Mapping[str, float]]] = {
    "a": {"500": 0.03, "slow": 0.01, "cut": 0.02, "reset": 0.01},
    "b": {"429": 0.03, "503": 0.02, "cut": 0.02, "stall": 0.01},
    "c": {"500": 0.02, "429": 0.02, "cut": 0.02, "error in 200": 0.01},
}


@dataclass
class Attempt:
    """What an upstream has done for one request, or for one response of a realtime session."""

    tag: str
    kind: str  # the endpoint
    channel: str
    key: str
    at: float = field(default_factory=time.time)
    seconds: float = 0.0
    fault: str = ""
    end: str = "left"  # whole, failed (nothing was said), cut (by the upstream), left (the other side closed)
    counted: dict[str, int] = field(default_factory=dict)
    reported: bool = False  # the usage was sent
    sent: int = 0  # characters of text, or bytes of sound
    model: str = ""
    status: str = ""  # of a response of a realtime session


class Upstreams:
    """All channels' upstreams."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._random = random.Random(7)  # noqa: S311  # not for secrets
        self.faults, self.dead = False, frozenset[str]()

    def begin(self, request: web.Request, kind: str, text: str) -> Attempt:
        """An attempt, with its fault if it has one."""
        found, key = TAG.search(text), request.headers.get("authorization", "").removeprefix("Bearer ")
        attempt = Attempt(found[1] if found else "", kind, request.match_info["channel"], key)
        if key in self.dead:
            attempt.fault = "dead key"
        elif self.faults and attempt.tag:
            fate = self._random.random()
            for fault, share in FAULTS.get(attempt.channel, {}).items():
                fate -= share
                if fate < 0:
                    attempt.fault = fault
                    break
        return attempt

    def write(self, attempt: Attempt) -> None:
        attempt.seconds = round(time.time() - attempt.at, 4)
        if attempt.tag:
            self._file.write(json.dumps(asdict(attempt)) + "\n")
            self._file.flush()


UPSTREAMS: Final = web.AppKey("upstreams", Upstreams)
