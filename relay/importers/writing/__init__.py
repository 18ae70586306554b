"""What is carried over, in the order in which it is: each part needs the ones before it."""

from __future__ import annotations

from typing import Final

from relay.importers.run import Parts
from relay.importers.writing import channels, codes, groups, models, prices, tokens, usage, users

PARTS: Final[Parts] = (
    ("groups", groups.carry),
    ("users", users.carry),
    ("models", models.carry),
    ("channels", channels.carry),
    ("prices", prices.carry),
    ("tokens", tokens.carry),
    ("redemption codes", codes.carry),
    ("usage", usage.carry),
)
