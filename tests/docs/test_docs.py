"""The documentation is complete: every setting, command, endpoint, error code and admin action is in it, and every link
leads somewhere.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from django.contrib import admin

from portal.config import Config
from tests.docs import settings_tables
from tests.support.server import ROOT

DOCS = ROOT / "docs"


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_tables_of_settings_are_those_of_the_settings() -> None:
    page = text("configure.md")
    assert page == settings_tables.page_with(settings_tables.tables(), page), (
        "docs/configure.md is stale: python -m tests.docs.settings_tables"
    )
    assert set(settings_tables.columns(page)) == {name.upper() for name in Config.model_fields}


def test_every_setting_says_what_it_means() -> None:
    assert not [name for name, field in Config.model_fields.items() if not field.description]


def test_every_command_is_documented() -> None:
    commands = {path.stem for path in (ROOT / "portal" / "management" / "commands").glob("[a-z]*.py")}
    commands |= set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M)) - {
        "help",
        "lock",
        "clean",
        "format",
        "run",
    }
    missing = [name for name in commands if name not in text("operate.md")]
    assert not missing


def test_every_endpoint_is_documented() -> None:
    from relay.api.urls import api

    for prefix, router in api._routers:
        for path, view in router.path_operations.items():
            for operation in view.operations:
                for method in operation.methods:
                    shown = f"`{method} /v1{prefix}{path}`".replace("{path:name}", "{id}")
                    assert shown in text("api.md"), shown


def test_every_error_code_is_documented() -> None:
    from relay import errors

    codes = {
        found.code
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, errors.RelayError) and found.code
    }
    codes |= {"token_expired", "ip_not_allowed", "invalid_json", "missing_required_parameter"}
    missing = [code for code in codes - {"internal_error"} if f"`{code}`" not in text("api.md")]
    assert not missing


def test_every_admin_action_is_documented() -> None:
    manual = text("admin.md")
    for model, page in admin.site._registry.items():
        if model._meta.app_label not in {"relay", "accounts"}:
            continue
        listed = [*(page.actions or ()), *getattr(page, "actions_detail", ()), *getattr(page, "actions_list", ())]
        for name in [name for entry in listed for name in (entry["items"] if isinstance(entry, dict) else [entry])]:
            label = getattr(getattr(type(page), str(name)), "short_description", "")
            assert f"**{label}" in manual, f"{model.__name__}: {label}"


@pytest.mark.parametrize("path", [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 60


def test_lock_files_have_hashes_and_name_no_index() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lock = (ROOT / name).read_text()
        assert "://" not in lock and "--index" not in lock and "--find-links" not in lock
        pins = re.findall(r"^[A-Za-z0-9].*?==[^\n]*(?:\n\s+--hash=sha256:[0-9a-f]{64}[^\n]*)+", lock, re.M)
        assert len(pins) == len(re.findall(r"^[A-Za-z0-9]", lock, re.M))


FILES = ("relay.lock", "relay.pid")  # called as modules are
PACKAGES = ("accounts", "bench", "portal", "relay", "tests")


def names_in_texts() -> list[tuple[str, str]]:
    """Modules, and what is in them, that comments, docstrings and pages name in backticks; each with where it
    stands.
    """
    found = []
    for folder in (*PACKAGES, "docs", "templates", "static"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".md", ".html", ".js", ".css"} and "node_modules" not in path.parts:
                names = re.findall(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)", path.read_text(encoding="utf-8"))
                found += [(name, str(path.relative_to(ROOT))) for name in names]
    return found


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            place: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(place, part):
                return False
            place = getattr(place, part)
        return True
    return False


def test_every_module_that_a_text_names_exists() -> None:
    found = names_in_texts()
    assert len(found) > 10
    assert [(name, where) for name, where in found if not exists(name) and name not in FILES] == []
