"""The health endpoints."""

from __future__ import annotations

import pytest
from django.test import Client

pytestmark = pytest.mark.shared


def test_health(db: None) -> None:
    assert Client().get("/healthz").json()["ok"] is True
    assert Client().get("/readyz").json()["ready"] is True
