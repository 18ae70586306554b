"""Forms that cost their reader much."""

from __future__ import annotations

import pytest

from relay.protocols.fields import BadRequest
from relay.protocols.framing import multipart

_FORM = "multipart/form-data; boundary=b"
_FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def test_a_form_that_is_full_of_boundaries_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(multipart.parse_form(_FILE + b"x\r\n--b--\r\n", _FORM).parts) == 1
    monkeypatch.setattr(multipart, "MultipartParser", None)
    for piece in (b"\r\n--bx", b"--b", b"\r\n--b\r\n"):
        with pytest.raises(BadRequest):
            multipart.parse_form(_FILE + piece * 600 + b"\r\n--b--\r\n", _FORM)
