"""Fixtures of the admin: staff with few rights."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import User


@pytest.fixture
def clerk(db: None) -> Client:
    """Staff with permission for users and tokens, not for channels."""
    user = User.objects.create_user("clerk", password="a long password", is_staff=True)
    wanted = ["view_user", "change_user", "add_token", "change_token", "view_token"]
    user.user_permissions.set(Permission.objects.filter(codename__in=wanted))
    client = Client()
    client.force_login(user)
    return client
