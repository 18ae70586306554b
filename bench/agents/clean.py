"""Makes a recording of what `bench.agents.run` wrote down: `python -m bench.agents.clean OUT NODE_MODULES AGENT`.

What remains of a request is its shape: members, types, order, lengths. Texts of the agent become their lengths; names
of this machine, ids and times are replaced.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from bench.agents import task
from bench.agents.screens import AGENTS
from bench.agents.setup import UPSTREAMS
from tests.support.agents.answers import identities
from tests.support.agents.model import Said
from tests.support.agents.recordings import Exchange, Recording

_HEADERS: Final = re.compile(
    r"authorization|x-api-key|x-goog-api-key|anthropic-.*|user-agent|originator|session.id|x-session-.*|x-claude-.*"
    r"|x-app|content-type|x-codex-.*|conversation_id|thread.id|x-goog-api-client|x-stainless-.*|openai-beta|accept"
    r"|x-parent-.*|x-opencode-.*|x-openai-.*|x-client-request-id",
    re.IGNORECASE,
)
_OWN: Final = (
    *(task.ONE, task.TWO, task.SUB, task.DONE, task.SUMMARY, task.COLOUR, task.THOUGHT, "I use a tool."),
    *("cat first.txt", "cat second.txt", "echo blue > third.txt", "echo hello"),
)
_OWN_IN: Final = re.compile("|".join(re.escape(text) for text in sorted(_OWN, key=len, reverse=True)))
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ID: Final = re.compile(r"(?<![A-Za-z0-9_])(ses|msg|prt|call|toolu|fc|fco|rs|user|gen)_[A-Za-z0-9]{10,}")
_HASH: Final = re.compile(r"(?<![0-9a-zA-Z-])[0-9a-f]{16,64}(?![0-9a-zA-Z-])")
_TIME: Final = re.compile(r"(?<!\d)1[789]\d{8,11}(?!\d)")
_SOME_TIME: Final = 1_700_000_000
_PLAIN: Final = 100  # characters of a text without white space, which is a name or a number


class Cleaner:
    """Of one session."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found
        self.known: dict[str, str] = {}  # identities of answers: their marks
        self.ids: dict[str, str] = {}

    def exchange(self, one: dict[str, Any], number: int) -> Exchange:
        body = self.value(json.loads(one["body"])) if one["body"] else None
        headers = {
            name.lower(): self.replaced(value) for name, value in one["headers"].items() if _HEADERS.fullmatch(name)
        }
        said = self.said(one) if body else Said()
        for name, value in identities(one["answer"]).items() if body else ():
            self.known.setdefault(value, f"⟦{number} {name}⟧")
        return Exchange(one["method"], self.replaced(one["path"]), headers, body, said)

    def said(self, one: dict[str, Any]) -> Said:
        """What the model says to a request, with the agent's names for tools."""
        call: Any = SimpleNamespace(path=one["path"], json=json.loads(one["body"]))
        said = task.Model(Path(self.found["home"]) / "task")(call)
        calls = tuple((name, {key: self.value(x) for key, x in found.items()}) for name, found in said.calls)
        return Said(said.text, calls, said.thought)

    def value(self, value: Any) -> Any:
        if isinstance(value, dict):
            mixed = any("turn_id" in key for key in value)  # whose order is chance at Codex
            return {key: self.value(value[key]) for key in (sorted(value) if mixed else value)}
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if isinstance(value, str):
            return self.text(value)
        is_time = isinstance(value, int) and _TIME.fullmatch(str(value))
        return _SOME_TIME if is_time else value

    def text(self, text: str) -> str:
        if text in self.known:
            return self.known[text]
        if text.startswith(("{", "[")):
            try:
                return json.dumps(self.value(json.loads(text)), ensure_ascii=False, separators=_separators(text))
            except ValueError:
                pass
        if not re.search(r"\s", text) and len(text) <= _PLAIN:
            return self.replaced(text)
        parts: list[str] = []
        end = 0
        for own in _OWN_IN.finditer(text):
            parts += [_length(text[end : own.start()]), own[0]]
            end = own.end()
        parts.append(_length(text[end:]))
        whole = "".join(parts)
        return self.replaced(whole)

    def replaced(self, text: str) -> str:
        for value, mark in self.known.items():
            if value in text and len(value) > 5:
                text = text.replace(value, mark)
        text = text.replace(self.found["token"], "⟦token⟧").replace(self.found["model"], "⟦model⟧")
        text = text.replace(self.found["home"], "/home/me")
        for pattern in (_UUID, _ID, _HASH):
            text = pattern.sub(self._renamed, text)
        return _TIME.sub(str(_SOME_TIME), text)

    def _renamed(self, found: re.Match[str]) -> str:
        """Another one of the same form, by the order in which they are met."""
        if found[0] not in self.ids:
            number = f"{len(self.ids) + 1:04}"
            length = len(found[0])
            if found.re is _UUID:
                self.ids[found[0]] = f"00000000-0000-4000-8000-00000000{number}"
            elif found.re is _ID:
                self.ids[found[0]] = f"{found[1]}_{number:0>{length - len(found[1]) - 1}}"
            else:
                self.ids[found[0]] = f"{number:0>{length}}"
        return self.ids[found[0]]


def _is_its_own(one: dict[str, Any]) -> bool:
    """Whether an exchange was whole, and not that of the portal's own status line, which comes when it likes."""
    return bool(one["answer"] or one["method"] == "HEAD") and not one["path"].startswith("/v1/usage")


def _length(text: str) -> str:
    return f"⟦{len(text)}⟧" if text.strip() else text


def _separators(text: str) -> tuple[str, str]:
    return (", ", ": ") if '": ' in text else (",", ":")


def main(out: Path, modules: Path, name: str) -> None:
    package = AGENTS[name].package
    version = json.loads((modules / package / "package.json").read_text())["version"]
    recording = Recording(f"{package} {version}", dt.date.today().isoformat())
    for spoken in UPSTREAMS:
        file = out / f"{name}.{spoken}.json"
        if not file.exists():
            print(f"{name} was not driven at {spoken}")
            continue
        found = json.loads(file.read_text())
        cleaner = Cleaner(found)
        kept = [one for one in found["exchanges"] if one["status"] == 200 and _is_its_own(one)]
        for number, one in enumerate(kept):
            recording.add(spoken, cleaner.exchange(one, number))
    recording.write(name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
