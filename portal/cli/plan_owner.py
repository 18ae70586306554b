"""Whose plan a command is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portal.cli.errors import Refusal

if TYPE_CHECKING:
    from accounts.models import User


def owner_of(name: str | None) -> User:
    """The user of a name; without one the only administrator. Raises Refusal."""
    from accounts.models import User

    if name is not None:
        found = User.objects.filter(username=name, is_active=True).first()
        if found is None:
            raise Refusal(f"There is no user “{name}” in this portal.")
        return found
    administrators = list(User.objects.filter(is_superuser=True, is_active=True)[:2])
    if not administrators:
        raise Refusal("This portal has no administrator yet. Run `airelays init`.")
    if len(administrators) > 1:
        raise Refusal("This portal has several administrators: say whose plan it is with --user.")
    return administrators[0]
