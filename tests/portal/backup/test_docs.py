"""The commands that the page about backups shows are ones that there are."""

from __future__ import annotations

import os
import re
import shlex

import click
import pytest

from portal.cli.main import airelays
from tests.support.environment import ROOT

PAGE = (ROOT / "docs" / "backup.md").read_text(encoding="utf-8")


def test_the_commands_take_what_the_page_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRELAYS_DATA_DIR", os.environ["AIRELAYS_DATA_DIR"])  # which --data-dir sets
    lines = [line for block in re.findall(r"```\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    assert len(lines) >= 9
    for line in lines:
        program, name, *words = shlex.split(line.partition("|")[0])
        assert program == "airelays"
        command = airelays.get_command(click.Context(airelays), name)
        assert command is not None, line
        command.make_context(name, words, resilient_parsing=False)


def test_every_option_is_on_the_page_of_the_command_line() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    for name in ("backup", "restore", "move"):
        command = airelays.get_command(click.Context(airelays), name)
        assert command is not None
        row = next(line for line in page.splitlines() if line.startswith(f"| `airelays {name} "))
        own = {option for one in command.params[:-3] for option in one.opts if option.startswith("--")}
        assert own and all(option in row for option in own), row
