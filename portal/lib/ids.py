"""Identifiers that the application generates, not the database."""

from __future__ import annotations

import random
import time


def time_ordered_hex() -> str:
    """32 hex digits: 48 bits of milliseconds, then 80 random bits.

    Unique, not secret: the random part comes from a generator that each process seeds from the system. Ascending ids
    append to the unique index of a large table; random ones would touch a random page of it for every row.
    """
    return f"{time.time_ns() // 1_000_000:012x}{random.getrandbits(80):020x}"
