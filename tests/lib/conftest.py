from __future__ import annotations

import pytest

from portal.lib.redaction import redact, verbatim
from portal.lib.redaction.sent import Sent


@pytest.fixture(autouse=True)
def nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests send keys from this process that may be like those in a test."""
    known = Sent()
    monkeypatch.setattr(redact, "sent", known)
    monkeypatch.setattr(verbatim, "sent", known)
