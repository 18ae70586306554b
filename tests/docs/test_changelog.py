"""The changelog's form, and that the version is written down once."""

from __future__ import annotations

import re
from datetime import date
from typing import Final

from django.conf import settings
from django.test import Client

import portal
from tests.support.server import ROOT

CHANGELOG: Final = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS: Final = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_the_newest_version_is_the_portals() -> None:
    assert settings.VERSION == portal.__version__ == re.findall(r"^## \[(\d+\.\d+\.\d+)\]", CHANGELOG, re.M)[0]


def test_what_is_served_says_the_version(client: Client) -> None:
    assert client.get("/healthz").json()["version"] == portal.__version__


def test_the_version_is_written_down_once() -> None:
    patterns = (
        "portal/**/*.py",
        "relay/**/*.py",
        "accounts/**/*.py",
        "templates/**/*.html",
        "pyproject.toml",
        "Makefile",
    )
    files = [file for pattern in patterns for file in ROOT.glob(pattern)]
    said = f'"{portal.__version__}"'
    holding = [file for file in files if said in file.read_text(encoding="utf-8")]
    assert holding == [ROOT / "portal/__init__.py"]


def test_the_form_is_that_of_keep_a_changelog() -> None:
    heads = re.findall(r"^## (.*)$", CHANGELOG, re.M)
    assert heads[0] == "[Unreleased]"
    found = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)", head) for head in heads[1:]]
    released = [(tuple(map(int, match.groups()[:3])), date.fromisoformat(match[4])) for match in found if match]
    assert len(released) == len(heads) - 1 and released == sorted(released, reverse=True), "newest first"
    for section in re.split(r"^## .*$", CHANGELOG, flags=re.M)[1:]:
        kinds = re.findall(r"^### (.*)$", section, re.M)
        assert kinds == [kind for kind in KINDS if kind in kinds], "each once, in the usual order"
        assert "- " not in section.split("### ")[0], "every entry is of a kind"
