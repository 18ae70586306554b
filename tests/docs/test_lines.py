"""Lines that people read are at most 120 characters long: templates, scripts, style sheets and documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.server import ROOT

LONGEST = 120
PATTERNS = ("templates/**/*.html", "static/portal/*.css", "static/portal/*.js", "docs/*.md", "*.md")
FILES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))


def too_long(path: Path) -> list[int]:
    """The numbers of lines over the limit; tables and fenced code of Markdown cannot be broken."""
    found, fenced = [], False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if path.suffix == ".md":
            fenced ^= line.startswith("```")
            if fenced or line.startswith("|"):
                continue
        if len(line) > LONGEST:
            found.append(number)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short(path: Path) -> None:
    assert too_long(path) == []


def test_tables_and_fenced_code_are_left_out_and_nothing_else(tmp_path: Path) -> None:
    long = "x" * (LONGEST + 1)
    page = tmp_path / "page.md"
    page.write_text(f"{long}\n\n| {long} |\n\n```\n{long}\n```\n\n{long[1:]}\n{long}\n")
    assert too_long(page) == [1, 10]
    sheet = tmp_path / "sheet.css"
    sheet.write_text(f"| {long} |\n")
    assert too_long(sheet) == [1]
