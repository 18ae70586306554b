"""The tables of settings in `docs/configure.md`, made of the settings themselves.

usage: python -m tests.docs.settings_tables
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from pydantic.fields import FieldInfo

from portal.config import GROUPS
from tests.support.server import ROOT

PAGE: Final = ROOT / "docs" / "configure.md"
_BEGIN: Final = "<!-- settings: `python -m tests.docs.settings_tables` writes what follows -->"
_END: Final = "<!-- end of settings -->"
_MADE: Final = {"data_dir": "`~/.airelays`"}  # defaults that depend on the machine


def _default(name: str, field: FieldInfo) -> str:
    value = field.default.value if isinstance(field.default, Enum) else field.default
    if name in _MADE:
        return f" {_MADE[name]} "
    if value in ("", None, []):
        return " "
    if isinstance(value, bool):
        return f" `{str(value).lower()}` "
    if isinstance(value, list):
        return f" `{','.join(value)}` "
    return f" `{value:g}` " if isinstance(value, float) else f" `{value}` "


def tables() -> str:
    parts = []
    for group in GROUPS:
        rows = [
            f"| `{name.upper()}` |{_default(name, field)}| {field.description} |"
            for name, field in group.model_fields.items()
        ]
        head = f"### {(group.__doc__ or '').strip().rstrip('.')}"
        parts.append("\n".join((head, "", "| `AIRELAYS_…` | default | meaning |", "|---|---|---|", *rows)))
    return "\n\n".join(parts)


def page_with(tables: str, page: str) -> str:
    before, _, rest = page.partition(_BEGIN)
    assert _END in rest, f"docs/configure.md has no line {_END}"
    return f"{before}{_BEGIN}\n\n{tables}\n\n{_END}{rest.partition(_END)[2]}"


def columns(text: str) -> list[str]:
    """The names of settings in a page, in their order."""
    return re.findall(r"^\| `([A-Z_0-9]+)` \|", text, re.M)


if __name__ == "__main__":
    PAGE.write_text(page_with(tables(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{len(columns(tables()))} settings written to {PAGE.name}.")
