"""Recordings of sessions of coding agents: what each sent through the portal, at an upstream of each protocol.

They have the shape of the requests, and none of the agents' own texts. A text stands there as its length: `⟦120⟧` is
one of 120 characters. What a request sends back of an earlier answer is named: `⟦3 function_call.call.0⟧` is that
identity (`tests.support.agents.answers`) of the answer to the fourth exchange of the session. `⟦model⟧` and `⟦token⟧`
are those of the replay. Values are kept once for all sessions of an agent, and named by their numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.agents.model import Said

Json = dict[str, Any]
FOLDER: Final = Path(__file__).with_name("recordings")
_MARK: Final = re.compile(r"⟦([^⟧]*)⟧")
_FILLER: Final = "some words of an agent, as many as it had, "


@dataclass(frozen=True)
class Exchange:
    """A request of an agent, and what the model says to it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Json | None
    said: Said


@dataclass
class Recording:
    client: str  # its name at npm, and the version
    date: str
    values: list[Any] = field(default_factory=list)
    sessions: dict[str, list[Json]] = field(default_factory=dict)  # by protocol of the upstream; see `add`
    numbers: dict[str, int] = field(default_factory=dict)  # of values, by their JSON

    def add(self, spoken: str, one: Exchange) -> None:
        row: Json = {"method": one.method, "path": one.path, "headers": self._number(dict(one.headers))}
        if one.body is not None:
            row["body"] = {
                name: [self._number(item) for item in value] if _is_long(value) else self._number(value)
                for name, value in one.body.items()
            }
            said = one.said
            row["said"] = self._number([said.text, [list(call) for call in said.calls], said.thought])
        self.sessions.setdefault(spoken, []).append(row)

    def exchanges(self, spoken: str) -> list[Exchange]:
        found = []
        for row in self.sessions[spoken]:
            body: Json | None = None
            said = Said()
            if "body" in row:
                body = {
                    name: [self.values[item] for item in number] if isinstance(number, list) else self.values[number]
                    for name, number in row["body"].items()
                }
                text, calls, thought = self.values[row["said"]]
                said = Said(text, tuple((name, arguments) for name, arguments in calls), thought)
            found.append(Exchange(row["method"], row["path"], self.values[row["headers"]], body, said))
        return found

    def _number(self, value: Any) -> int:
        key = json.dumps(value)
        if key not in self.numbers:
            self.numbers[key] = len(self.values)
            self.values.append(value)
        return self.numbers[key]

    def write(self, name: str) -> None:
        """A value and an exchange a line, for the sake of differences."""
        values = ",\n".join(json.dumps(value, ensure_ascii=False) for value in self.values)
        sessions = ",\n".join(
            f'"{spoken}": [\n' + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"
            for spoken, rows in self.sessions.items()
        )
        head = f'"client": {json.dumps(self.client)},\n"date": {json.dumps(self.date)}'
        text = f'{{\n{head},\n"values": [\n{values}\n],\n"sessions": {{\n{sessions}\n}}\n}}\n'
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


def _is_long(value: object) -> bool:
    """Whether the items of a member are kept one by one, as those of a conversation, which grows, and tools."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def read(name: str) -> Recording:
    found = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Recording(found["client"], found["date"], found["values"], found["sessions"])


def filled(value: Any, names: Mapping[str, str]) -> Any:
    """A value with what its marks stand for. `names`: of everything that is no length."""
    if isinstance(value, dict):
        return {name: filled(one, names) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, names) for one in value]
    if not isinstance(value, str):
        return value
    return _MARK.sub(lambda found: _filler(int(found[1])) if found[1].isdecimal() else names[found[1]], value)


def _filler(length: int) -> str:
    """It begins and ends with no white space, since some upstreams refuse that."""
    text = (_FILLER * (length // len(_FILLER) + 1))[:length]
    return f"{text[:-1]}." if text.endswith(" ") else text
