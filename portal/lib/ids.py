"""Identifiers made here, not by the database."""

from __future__ import annotations

import os
import time


def time_ordered_hex() -> str:
    """32 hex digits: 48 bits of milliseconds, then 80 random bits.

    Ids that grow keep the unique index of a table of millions growing at one end; random ones would touch a page anywhere for every row.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
