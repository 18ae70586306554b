"""Users that commands act for. Needs Django."""

from __future__ import annotations

from accounts.models import User
from portal.cli.errors import Refusal

_NAMED = 10  # users that an error lists


def user_named(username: str | None, how: str = " with --user") -> User:
    """The active user of this name; without a name the only superuser. Raises Refusal.

    `how`: in which way the command takes a name.
    """
    if username is not None:
        found = User.objects.filter(username=username, is_active=True).first()
        if found is None:
            raise Refusal(f"There is no active user “{username}”.", 2)
        return found
    several = list(User.objects.filter(is_superuser=True, is_active=True).order_by("pk")[: _NAMED + 1])
    if len(several) == 1:
        return several[0]
    if not several:
        raise Refusal(f"There is no active superuser. Name the user{how}.")
    names = ", ".join(user.get_username() for user in several[:_NAMED])
    more = ", …" if len(several) > _NAMED else ""
    raise Refusal(f"There are several superusers. Name one of them{how}: {names}{more}.")
