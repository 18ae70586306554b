"""Failures as vendors send them: a file for each vendor in `failures/`, a case for each of its rules.

`any.json` holds failures that mean the same whatever vendor sends them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FAILURES: Final = Path(__file__).parent / "failures"


@dataclass(frozen=True)
class FailureCase:
    """An answer of a vendor."""

    # The vendor's key; empty: any vendor.
    vendor: str
    status: int
    # The JSON of its body.
    body: Any
    # The word of the class that it means.
    kind: str
    # Whether a code of its vendor says so, and not a status or a text alone; None: not looked at.
    reserved: bool | None = None
    # Seconds until another try makes sense, at noon UTC on 22 November 2026; None: not looked at.
    wait: float | None = None

    def __str__(self) -> str:
        return f"{self.vendor or 'any'}-{self.status}-{self.kind}"

    @property
    def content(self) -> bytes:
        """The body as it arrives."""
        return json.dumps(self.body).encode()


def read_cases(text: str, vendor: str) -> list[FailureCase]:
    """The cases of one file. Raises KeyError, TypeError and ValueError when it is no such file."""
    return [
        FailureCase(vendor, int(case["status"]), case["body"], case["class"], case.get("reserved"), case.get("wait"))
        for case in json.loads(text)
    ]


def every_case() -> list[FailureCase]:
    """The cases of all files."""
    found = []
    for file in sorted(FAILURES.glob("*.json")):
        found += read_cases(file.read_text(encoding="utf-8"), "" if file.stem == "any" else file.stem)
    return found
