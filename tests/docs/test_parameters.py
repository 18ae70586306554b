"""Functions on the way of a request take few parameters: things that travel together are one object."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.server import ROOT

MOST = 6
HOT = (
    "portal/relay_handler.py",
    "relay/api/openai",
    "relay/endpoints/text",
    "relay/gateway",
    "relay/protocols",
    "relay/transport",
    "relay/billing/prices.py",
    "relay/billing/ledger/requests.py",
    "relay/billing/ledger/writer.py",
    "relay/billing/ledger/rows.py",
    "relay/billing/ledger/sql.py",
)
# Not called for a request that goes well: a failure that is learnt from another worker.
COLD = {"relay/gateway/routing/circuit_breaker.py:take_over"}


def files() -> list[Path]:
    found = []
    for name in HOT:
        path = ROOT / name
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_of_the_hot_path_takes_more_than_six_parameters(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            names = [argument.arg for argument in arguments if argument.arg not in {"self", "cls"}]
            assert len(names) <= MOST or f"{path.relative_to(ROOT)}:{node.name}" in COLD, f"{node.name}{tuple(names)}"
