"""No query is open on a connection that writes: SQLite refuses that as soon as anybody else has written since.

`.iterator()` and rows that are read from a cursor in a loop keep one open. Where they are used, nothing else is done in
the loop. Others read pages: `relay.models.byte_count.texts_of`, or by keys.
"""

from __future__ import annotations

import ast

from tests.support.server import ROOT

# The functions whose loops only calculate.
ONLY_READ = {
    ("relay/importers/undo.py", "_used_before"),
    ("relay/usage/rollup.py", "differences"),
    ("relay/usage/rollup.py", "_months_before"),
    ("relay/usage/reports.py", "_sum_records"),
    ("relay/usage/sessions/sums.py", "_differences"),
    ("relay/billing/ledger/movements.py", "mend_wallet"),  # in a transaction that holds the lock
    ("relay/storage/response_history.py", "_read_turns"),
}


def _opens(node: ast.AST) -> bool:
    """Whether rows are taken from a query that stays open."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "iterator":
        return True
    if not isinstance(node, ast.For | ast.comprehension):
        return False
    source = node.iter
    if isinstance(source, ast.Name):
        return "cursor" in source.id
    called = source.func if isinstance(source, ast.Call) else None
    return isinstance(called, ast.Attribute) and called.attr in {"execute", "run", "chunked_fetch"}


def found_in(text: str) -> set[str]:
    """The innermost functions that hold a query open."""
    found: set[str] = set()

    def walk(node: ast.AST, name: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = node.name
        if _opens(node):
            found.add(name)
        for child in ast.iter_child_nodes(node):
            walk(child, name)

    walk(ast.parse(text), "")
    return found


def test_only_loops_that_calculate_keep_a_query_open() -> None:
    found = {
        (str(path.relative_to(ROOT)), name)
        for package in ("accounts", "portal", "relay")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "migrations" not in path.parts
        for name in found_in(path.read_text(encoding="utf-8"))
    }
    assert found == ONLY_READ


def test_queries_that_stay_open_are_found() -> None:
    assert found_in("def a():\n    for row in rows.values('x').iterator(200):\n        save(row)") == {"a"}
    assert found_in("def b():\n    return [row for row in connection.cursor().execute('SELECT 1')]") == {"b"}
    assert found_in("def c(cursor):\n    for row in cursor:\n        save(row)") == {"c"}
    assert found_in("def d():\n    for row in list(rows):\n        save(row)") == set()
