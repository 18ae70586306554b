"""Tests mirror the rooms: small folders, no test module that another one needs, and nothing of the benchmarks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.server import ROOT

OTHERS = {"node_modules", ".peers"}  # of others, installed for SDKs and benchmarks
FILES = sorted(
    path for folder in ("tests", "bench") for path in (ROOT / folder).rglob("*.py") if not OTHERS & set(path.parts)
)


def imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("folder", sorted({str(path.parent.relative_to(ROOT)) for path in FILES}))
def test_a_folder_holds_at_most_twelve_files(folder: str) -> None:
    assert len([path for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"]) <= 12


def test_nothing_imports_a_test_module_nor_do_tests_import_benchmarks() -> None:
    wrong = []
    for path in FILES:
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "tests" and any(part.startswith("test_") or part == "conftest" for part in parts):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
            if parts[0] == "bench" and path.is_relative_to(ROOT / "tests"):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
            if parts[0] == "tests" and path.is_relative_to(ROOT / "bench") and parts[1:2] not in ([], ["support"]):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []
