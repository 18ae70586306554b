"""The tree is what docs/layout.md says, and every room's import directions are enforced."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ROOT

PACKAGES = ("accounts", "portal", "relay")
DICTIONARIES = {
    "portal/cli/commands/",
    "relay/models/",
    "relay/providers/vendors/",
}  # one small noun per file and nothing else
UNLISTED = ("migrations", "formats", "locale", "__pycache__")
MOST_FILES = 12


def described() -> dict[str, tuple[str, list[str]]]:
    """Folders of the page's tree: what each is about, and its files."""
    block = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8").split("## The tree")[1].split("```")[1]
    found: dict[str, tuple[str, list[str]]] = {}
    folder = ""
    for line in block.strip().splitlines():
        if line.startswith(" "):
            found[folder][1].extend(line.split())
        else:
            folder, _, text = line.partition(" ")
            found[folder] = (text.strip(), [])
    return found


def folders() -> dict[str, list[str]]:
    """The folders of the three packages that hold code, and their files without the ending."""
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).parts
            if not set(parts) & set(UNLISTED):
                names = found.setdefault("/".join(parts[:-1]) + "/", [])
                if path.stem != "__init__":
                    names.append(path.stem)
    return found


def contracts() -> list[dict[str, Any]]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = config["tool"]["importlinter"]["contracts"]
    return found


def test_every_folder_and_file_is_on_the_page_and_nothing_else() -> None:
    page, tree = described(), folders()
    assert set(page) == set(tree)
    for folder, (_, names) in page.items():
        assert names == ["…"] if folder == "relay/providers/vendors/" else names == tree[folder], folder


@pytest.mark.parametrize("folder", sorted(set(folders()) - DICTIONARIES))
def test_a_folder_holds_at_most_twelve_files(folder: str) -> None:
    assert len(folders()[folder]) <= MOST_FILES


def test_every_room_has_its_import_directions() -> None:
    """A folder with folders or several files is the container of a contract, or named in the contract of the
    storeys.
    """
    ruled = {container for contract in contracts() for container in contract.get("containers", ())}
    layers = contracts()[0]["layers"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    named |= {
        f"{container}.{name.strip()}"
        for contract in contracts()
        for container in contract.get("containers", ())
        for layer in contract["layers"]
        for name in layer.split("|")
    }
    rooms = {folder.strip("/").replace("/", ".") for folder in folders()}
    without = {
        room for room in rooms - set(PACKAGES) if not any(room == name or room.startswith(name + ".") for name in named)
    }
    assert not without
    nested = {room for room in rooms if any(other.startswith(room + ".") for other in rooms)} - {
        "relay",
        "portal",
        "portal.management",
    }
    assert nested <= ruled | {"portal.pages"}, nested - ruled


def test_what_a_protocol_must_give_fits_on_a_screen() -> None:
    assert len((ROOT / "relay/protocols/contract.py").read_text(encoding="utf-8").splitlines()) <= 100


VIOLATIONS = {
    "relay/gateway/runtime.py": "portal.serving.mail",
    "relay/models/fields.py": "relay.billing.prices",
    "relay/protocols/gemini/usage.py": "relay.protocols.responses.request",
    "relay/protocols/sse.py": "relay.protocols.chat_completions.hub",
    "relay/providers/retry_after.py": "django.utils.timezone",
    "relay/storage/retention.py": "relay.billing.redemption",
    "relay/gateway/routing/selection.py": "relay.gateway.routing.health",
    "relay/gateway/snapshot/cache.py": "relay.gateway.exchange.exchange",
    "relay/api/auth.py": "relay.admin.forms",
    "portal/lib/money.py": "portal.config",
    "accounts/audit_words.py": "accounts.preferences",
    "portal/pages/status.py": "portal.settings",
}  # fmt: skip


def test_an_import_that_runs_upward_is_red(tmp_path: Path) -> None:
    """In a copy of the code with an import of the wrong kind in each of these files, each is named."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "locale"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, module in VIOLATIONS.items():
        path = tmp_path / file
        path.write_text(path.read_text(encoding="utf-8") + f"\n\nimport {module}\n", encoding="utf-8")
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 1
    for file, module in VIOLATIONS.items():
        source = file[:-3].replace("/", ".")
        target = module.partition(".")[0] if module.startswith("django") else module
        assert f"{source} -> {target}" in done.stdout, (source, module)


QUERIES = {
    "objects",
    "filter",
    "exclude",
    "aggregate",
    "values_list",
    "save",
    "refresh_from_db",
    "bulk_create",
    "select_related",
}


@pytest.mark.parametrize("path", sorted((ROOT / "relay" / "endpoints").rglob("*.py")), ids=lambda path: path.name)
def test_endpoints_ask_storage_and_no_table(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    asked = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & QUERIES
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not asked and not {name for name in imported if name and name.startswith("django.db")}
