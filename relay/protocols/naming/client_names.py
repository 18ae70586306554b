"""What clients call members of their requests that the hub form has under other names. Pure.

Conversions name what they refuse or leave out as the hub has it, which are chat completions' names. Each client's API
has a table of its own names beside its conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_MESSAGES: Final = "messages"


def own_name(name: str, members: Mapping[str, str]) -> str:
    """A member's name as the client has it. `members`: the client's, by the hub's.

    A member inside of one that is in the table is told with that one's name. Numbers of messages are those of the hub,
    which may be others in the client's request: of them, only where messages are is told. All other names are the same
    at the client, or the client's own already.
    """
    if name in members:
        return members[name]
    around = [one for one in members if name.startswith(one) and name[len(one)] in ".["]
    outer = max(around, key=len, default="")
    if outer == _MESSAGES:
        return members[outer]
    return members[outer] + name.removeprefix(outer) if outer else name
