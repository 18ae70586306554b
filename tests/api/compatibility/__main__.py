"""Writes docs/compatibility.md anew.

usage: python -m tests.api.compatibility
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ["WRITE_COMPATIBILITY"] = "1"
sys.exit(pytest.main([str(Path(__file__).parent), "-q", "-n", "0"]))
