"""What the checks of an installation found: one result per check, for people and as JSON for support."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from portal.lib.redaction.redact import redact
from portal.lib.texts import reason

Status = Literal["pass", "warn", "fail", "skip"]
_WORDS: Final[Mapping[Status, str]] = {"pass": "passed", "warn": "warnings", "fail": "failed", "skip": "skipped"}


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check. Nothing in it is secret: it is pasted into tickets."""

    name: str  # stable, for programs
    status: Status
    message: str  # one sentence or two, in the reader's language
    next_steps: tuple[str, ...] = ()  # what to do about it
    data: Mapping[str, Any] = field(default_factory=dict)  # figures, for programs

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "status": self.status, "message": tidy(self.message)}
        if self.next_steps:
            found["next_steps"] = [tidy(step) for step in self.next_steps]
        if self.data:
            found["data"] = {
                name: tidy(value) if isinstance(value, str) else value for name, value in self.data.items()
            }
        return found


@dataclass(slots=True)
class Report:
    """The results of all checks, in the order in which they were made."""

    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing failed. Warnings are no failures."""
        return not any(check.status == "fail" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """`ok`, `summary`, `checks` and `next_steps`, as AIRelays 0.x has them."""
        count = Counter(check.status for check in self.checks)
        return {
            "ok": self.ok,
            "summary": {word: count[status] for status, word in _WORDS.items()},
            "checks": [check.as_json() for check in self.checks],
            "next_steps": list(dict.fromkeys(_steps(self.checks))),
        }


def _steps(checks: Iterable[Check]) -> Iterable[str]:
    for status in ("fail", "warn", "skip"):
        for check in checks:
            if check.status == status:
                yield from (tidy(step) for step in check.next_steps)


def tidy(text: str) -> str:
    """A text without the home folder, whose name is that of a person."""
    home = str(Path("~").expanduser())
    return text.replace(home, "~") if len(home) > 1 else text


def told(error: BaseException) -> str:
    """What an error says, without what must not be told."""
    return redact(reason(error).splitlines()[0])[:200].rstrip(".")
