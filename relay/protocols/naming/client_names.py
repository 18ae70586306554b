"""What clients call members of their requests that the hub form has under other names. Pure.

Conversions name what they refuse or leave out as the hub has it, which are chat completions' names. Each client's API
has a table of its own names beside its conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_MESSAGES: Final = "messages"
_ANY: Final = "messages[]"  # of whichever message it is


def own_name(name: str, members: Mapping[str, str]) -> str:
    """A member's name as the client has it. `members`: the client's, by the hub's.

    Numbers of messages are those of the hub, which may be others in the client's request: of them, only where messages
    are is told. Names that are not in the table are the same at the client, or the client's own already.
    """
    if name in members:
        return members[name]
    if name.startswith(_ANY) and _ANY in members:
        return members[_ANY] + name.removeprefix(_ANY)
    if name.startswith(f"{_MESSAGES}[") and _MESSAGES in members:
        return members[_MESSAGES]
    return name
