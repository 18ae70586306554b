"""Identifiers made here, not by the database."""

from __future__ import annotations

import random
import time


def time_ordered_hex() -> str:
    """32 hex digits: 48 bits of milliseconds, then 80 random bits.

    Unique, not secret: the random part comes from a generator that each process seeds from the system. Ids that grow keep the unique index
    of a table of millions growing at one end; random ones would touch a page anywhere for every row.
    """
    return f"{time.time_ns() // 1_000_000:012x}{random.getrandbits(80):020x}"
