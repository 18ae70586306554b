"""Writes docs/compatibility.md: a table for each client API, features by upstreams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Final

from tests.api.compatibility.columns import GROUPS, Column
from tests.api.compatibility.features import FEATURES, Feature
from tests.api.compatibility.matrix import Cell
from tests.api.compatibility.notes import NOTES
from tests.api.compatibility.verdicts import Verdict
from tests.support.server import ROOT

PAGE: Final[Path] = ROOT / "docs" / "compatibility.md"
_TITLES: Final = {
    "chat": "Clients of OpenAI's chat completions",
    "responses": "Clients of OpenAI's Responses API",
    "messages": "Clients of Anthropic's Messages API",
    "gemini": "Clients of Gemini's generateContent",
}
_INTRO: Final = """\
# Compatibility

Which features of which client API work at which upstreams. The portal converts between all of them; where client and
upstream speak the same API, bytes pass through. What an upstream cannot be told is refused with a 4xx that names the
field, or left out and named in the header `x-airelays-ignored-parameters`; nothing is lost without a word.

The tables are not written by hand. Each cell is two requests, one plain and one streamed, through a running portal to
a server that is as strict as the real upstream. That server looks for the feature in the request that arrived, in its
own API's form, and answers with what exercises the feature; the answer is then read as a client of the API would. The
test suite does this with every run and compares what it sees with this page (`make matrix` writes it anew).

| In a cell | it means |
|---|---|
| ✓ | arrived, and came back; the tokens that the client is told, the usage record and its cost are what the upstream reported, by class |
| ✓ without `x` | served, and the answer's `x-airelays-ignored-parameters` names `x` |
| 422 `x` | refused before anything is sent or charged; `param` names the field. The code is `unsupported_parameter` unless the cell has another |
| estimate | counted by the portal, and marked with `x-airelays-estimated` |
| ✓ (a) | served, with the difference that the note under the tables tells |
| — | the upstream's API has no form for this answer, so that there is nothing to bring back |

Where plain requests and streams differ, the cell has both. Azure, Bedrock and Vertex AI speak another vendor's API in
an envelope of their own (addresses, keys, event streams): they are tried with every row, too, and stand in its column;
where one differs, the cell names it. Other OpenAI-compatible vendors are in the column “OpenAI chat”, as far as their
own parameters go: see [what apps call](api.md). Rows that a client's API has no form for are not in its table.

The models in question: Claude Opus 4.7, which thinks adaptively and takes no sampling parameters, Gemini 3 Pro, and
Nova 2 at Converse, which fetches no images or documents by their addresses, and whose usage has no tokens of thinking.
Older ones take budgets of thinking, and sampling. The requests ask for nothing that the row does not name.
"""  # noqa: E501  # tables cannot be broken


def page(seen: Sequence[tuple[Cell, Verdict]]) -> str:
    """The whole page."""
    parts = [_INTRO]
    for client, title in _TITLES.items():
        mine = {
            (cell.feature.name, cell.column, cell.stream): verdict for cell, verdict in seen if cell.client == client
        }
        parts.append(f"## {title}\n\n" + "\n".join(_table(mine)) + "\n")
    if NOTES:
        listed = (fill(f"- ({note.key}) {note.text}", 120, subsequent_indent="  ") for note in NOTES)
        parts.append("## Notes\n\n" + "\n".join(listed) + "\n")
    return "\n".join(parts)


def _table(mine: dict[tuple[str, Column, bool], Verdict]) -> Iterator[str]:
    heads = (", ".join(one.label for one in (leader, *others)) for leader, others in GROUPS.items())
    yield "| | " + " | ".join(heads) + " |"
    yield "|---" * (len(GROUPS) + 1) + "|"
    for feature in FEATURES:
        if any(name == feature.name for name, _, _ in mine):
            cells = (_cell(feature, mine, leader, others) for leader, others in GROUPS.items())
            yield f"| {feature.name} | " + " | ".join(cells) + " |"


def _cell(
    feature: Feature, mine: dict[tuple[str, Column, bool], Verdict], leader: Column, others: tuple[Column, ...]
) -> str:
    shown = [_of(feature, mine, column) for column in (leader, *others)]
    differing = [f"{column.label}: {text}" for column, text in zip(others, shown[1:], strict=True) if text != shown[0]]
    return "; ".join([shown[0], *differing])


def _of(feature: Feature, mine: dict[tuple[str, Column, bool], Verdict], column: Column) -> str:
    texts = [mine[feature.name, column, stream].shown for stream in feature.streams]
    if len(set(texts)) == 1:
        return texts[0]
    return f"plain {texts[0]}, stream {texts[1]}"
