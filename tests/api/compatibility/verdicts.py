"""What a cell says: carried, lost and told so, or refused; anything else is a fault of the portal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from tests.api.compatibility.columns import COUNTED
from tests.api.compatibility.conversation import Reply, Used, lost_of_ask, lost_of_reply
from tests.api.compatibility.features import PARTLY, TELLING
from tests.api.compatibility.matrix import Cell, cost, counted
from tests.api.compatibility.notes import NOTES, UNHEARD, Note

CARRIED: Final = "✓"
NOTHING: Final = "—"  # the upstream's API has no form for it


@dataclass(frozen=True)
class Verdict:
    """`shown`: what stands in the cell. `fault`: why it may not stand there; empty: it may."""

    shown: str
    fault: str = ""
    note: Note | None = None


def verdict_of(cell: Cell) -> Verdict:
    if cell.said is None:
        return Verdict(NOTHING)
    if cell.feature.counts:
        return _counting(cell)
    if cell.said.error:
        return _failure(cell)
    if cell.status != 200:
        return _refusal(cell)
    if cell.fault:
        return Verdict("✗", cell.fault)
    return _carried(cell)


def _carried(cell: Cell) -> Verdict:
    assert cell.said is not None and cell.came is not None
    if len(cell.sent) != len(cell.turns):
        return Verdict("✗", f"{len(cell.sent)} requests arrived for {len(cell.turns)}")
    lost = [name for asked, sent in zip(cell.turns, cell.sent, strict=True) for name in lost_of_ask(asked, sent)]
    lost = [name for name in lost if name not in getattr(cell.column.api, "DONE_HERE", ())]
    silent = [name for name in lost if not _is_told(name, cell.ignored)]
    silent += [f"{name} of the answer" for name in lost_of_reply(cell.said, cell.came) if not cell.feature.again]
    note = next((one for one in NOTES if one.covers(cell, silent)), None)
    if silent and note is None:
        return Verdict("✗", f"lost without a word: {', '.join(silent)}")
    if cell.ignored and not lost and cell.feature.name not in PARTLY:
        return Verdict("✗", f"told that {_names(cell.ignored)} is left out, and all is there")
    if foreign := [name for name in cell.ignored if not _is_own(name, cell)]:
        return Verdict("✗", f"what is left out is called {_names(foreign)}, which is not in the request")
    if not silent and (unheard := _unheard(cell, cell.said)) is not None:
        return unheard
    if wrong := _wrong_usage(cell, cell.said, cell.came):
        return Verdict("✗", wrong)
    if silent and note is not None:
        told = f"{CARRIED} without {_names(cell.ignored)}" if cell.ignored else CARRIED
        return Verdict(f"{told} ({note.key})", note=note)
    return Verdict(f"{CARRIED} without {_names(cell.ignored)}" if cell.ignored else CARRIED)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _is_told(lost: str, ignored: list[str]) -> bool:
    words = TELLING.get(lost, (lost,))
    return any(word == name.lower() or (len(word) > 1 and word in name.lower()) for word in words for name in ignored)


def _is_own(name: str, cell: Cell) -> bool:
    """Whether a name is one of a member that the client has sent, or of a place in one."""
    return re.split(r"[.[]", name)[0] in cell.body


def _unheard(cell: Cell, said: Reply) -> Verdict | None:
    """Of a recording whose tokens the upstream's usage does not tell apart: the portal counts them. None: it does."""
    record = cell.records[0]
    if said.used.audio_in is not None or record is None or not record.audio_input_tokens:
        return None
    counted = replace(said.used, audio_in=record.audio_input_tokens)
    right = (record.input_tokens, record.output_tokens, record.cost) == (counted.input, counted.output, cost(counted))
    note = next(one for one in NOTES if one.lost == UNHEARD)
    return Verdict(f"{CARRIED} ({note.key})", "" if right else f"cost {record.cost} ≠ {cost(counted)}", note)


def _wrong_usage(cell: Cell, said: Reply, came: Reply) -> str:
    """What is wrong with the usage that the client was told, or with the record and its cost."""
    if not cell.feature.again and (wrong := said.used.differs(came.used)):
        return f"usage: {wrong}"
    record = cell.records[0]
    if record is None:
        return "there is no usage record"
    recorded = Used(
        input=record.input_tokens,
        cached=record.cached_input_tokens,
        written=record.cache_write_tokens,
        hour=record.cache_write_1h_tokens,
        output=record.output_tokens,
        reasoning=record.reasoning_tokens,
        audio_in=record.audio_input_tokens,
        audio_out=record.audio_output_tokens,
    )
    if record.usage_source != "reported" or (wrong := said.used.differs(recorded)):
        return f"record: {record.usage_source} {said.used.differs(recorded)}"
    if record.cost != cost(said.used):
        return f"cost {record.cost} ≠ {cost(said.used)}"
    told = cell.headers.get("x-relay-cost-usd")
    if not cell.stream and told is not None and len(cell.ids) == 1 and round(float(told) * 10**9) != record.cost:
        return f"told cost {told} ≠ {record.cost}"
    return ""


def _refusal(cell: Cell) -> Verdict:
    """A request that the portal refused: with a code and the field at fault, before anything was sent or charged."""
    status, code, field, message = _error_of(cell)
    record = cell.records[0] if cell.records else None
    if cell.sent:
        return Verdict("✗", f"the upstream refuses what it is sent: {cell.status} {message}")
    if status not in {400, 422} or not code or not field:
        return Verdict("✗", f"refused without a reason: {cell.status} {code} {field} {message}")
    if not _is_own(field, cell):
        return Verdict("✗", f"{field} is refused, which is not in the request")
    if record is not None and record.cost:
        return Verdict("✗", f"refused and charged {record.cost}")
    return Verdict(f"{status} `{field}`" if code == "unsupported_parameter" else f"{status} {code} `{field}`")


def _error_of(cell: Cell) -> tuple[int, str, str, str]:
    """The status, code, field and message of an error, in the client's shape."""
    try:
        body = json.loads(cell.text)
    except ValueError:
        return cell.status, "", "", cell.text[:300]
    error: Any = body[0].get("error") if isinstance(body, list) else body.get("error")
    if not isinstance(error, dict):
        return cell.status, "", "", cell.text[:300]
    if cell.client == "messages":
        details = error.get("details") or {}
        return cell.status, details.get("error_code", ""), details.get("param") or "", error["message"]
    if cell.client == "gemini":
        info: Any = next((one for one in error.get("details") or () if one["@type"].endswith("ErrorInfo")), {})
        field = (info.get("metadata") or {}).get("field", "")
        return cell.status, str(info.get("reason", "")).lower(), field, error["message"]
    return cell.status, str(error.get("code") or ""), error.get("param") or "", error["message"]


def _failure(cell: Cell) -> Verdict:
    """An error of the upstream: its words in the client's shape, with its status where nothing had been sent."""
    assert cell.said is not None
    if cell.fault or cell.came is None:
        return Verdict("✗", cell.fault or "no error came")
    lost = lost_of_reply(cell.said, cell.came)
    status = 200 if cell.said.begins else 400
    record = cell.records[0]
    if lost or cell.status != status or cell.said.begins != cell.came.begins:
        return Verdict("✗", f"the error is told as {cell.status} {cell.came.error!r}: {cell.text[:300]}")
    if record is None or (not cell.said.begins and record.cost):
        return Verdict("✗", "a refused request has no record, or costs something")
    if cell.said.begins and record.end_reason == "completed":
        return Verdict("✗", "a broken answer is recorded as complete")
    return Verdict(CARRIED)


def _counting(cell: Cell) -> Verdict:
    if cell.status != 200:
        return _refusal(cell)
    estimated, tokens = "x-airelays-estimated" in cell.headers, counted(cell)
    if not tokens or estimated == (tokens == COUNTED):
        return Verdict("✗", f"counted {tokens}: {cell.text[:200]}")
    return Verdict("estimate" if estimated else CARRIED)
