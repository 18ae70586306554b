"""What the admin shows around its model pages."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def environment(request: HttpRequest) -> list[str] | None:
    """A badge in the admin's header when something about the installation should be in sight."""
    return ["Debug mode", "danger"] if settings.DEBUG else None


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    return []


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    return context
