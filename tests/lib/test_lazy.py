from __future__ import annotations

import subprocess
import sys

import pytest

from portal.lib.lazy import LazyModule

_WITHOUT = """
import sys
from portal.lib.lazy import without_package
with without_package("unittest"):
    import unittest.util
print("unittest.util" in sys.modules, "unittest" in sys.modules, "unittest.case" in sys.modules)
import unittest
print("unittest.case" in sys.modules, unittest.TestCase.__name__)
with without_package("unittest"):
    print(sys.modules["unittest"] is unittest)
"""


def test_a_lazy_module_is_imported_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = LazyModule("colorsys")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert "colorsys" not in sys.modules
    assert lazy.rgb_to_hls(1, 1, 1) == (0, 1, 0) and "colorsys" in sys.modules
    with pytest.raises(AttributeError):
        _ = lazy.nothing


def test_a_module_is_imported_without_its_package_which_can_be_imported_later() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False", "False", "True", "TestCase", "True"]
