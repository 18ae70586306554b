"""Modules that are imported when something of them is first used: large ones, which few processes ever need."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class LazyModule(ModuleType):
    """Stands for a module that may not be imported yet. Give its type with `if TYPE_CHECKING: import …`.

    The first use takes as long as the import does, so nothing on the event loop may be the first.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


@contextmanager
def without_package(name: str) -> Iterator[None]:
    """Inside, modules of a package are imported without the package itself, unless that has been imported already."""
    if name in sys.modules or (spec := find_spec(name)) is None:
        yield
        return
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = spec.submodule_search_locations or []
    try:
        yield
    finally:
        del sys.modules[name]
