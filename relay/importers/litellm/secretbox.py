"""What LiteLLM encrypts in its database: values of models and credentials, with its salt key or its master key.

The older form is base64 of NaCl's secret box, which is XSalsa20 with Poly1305; the newer one begins with `v2:gcm:` and
is AES-256-GCM. The key of both is the SHA-256 of the salt key. Values are short and read once, so that Salsa20 is
written out here rather than asked of one more library; Poly1305 tells whether the result is right.

Source: LiteLLM 1.108's encrypt_decrypt_utils, and “Cryptography in NaCl” by D. J. Bernstein, read in November 2026.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from binascii import Error as NotBase64
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.poly1305 import Poly1305

_GCM: Final = "v2:gcm:"
_NONCE: Final = 24  # bytes of XSalsa20's
_TAG: Final = 16
_BASE64: Final = re.compile(r"[A-Za-z0-9_-]{54,}={0,2}")  # of a nonce and a tag at least, as it is written
_SIGMA: Final = struct.unpack("<4I", b"expand 32-byte k")
_MASK: Final = 0xFFFFFFFF
# Which words each quarter of a double round works on: the columns, then the rows.
_QUARTERS: Final = (
    (0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11),
    (0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14),
)  # fmt: skip


class Locked(Exception):
    """A value is encrypted with another key than the one at hand, or none is."""


class SecretBox:
    """Opens what was encrypted with one key. An empty key opens nothing."""

    def __init__(self, key: str) -> None:
        self._key = hashlib.sha256(key.encode()).digest() if key else b""

    def open(self, value: str) -> str:
        """The text of a value; one that is not encrypted is returned as it is. Raises Locked."""
        if not is_sealed(value):
            return value
        if not self._key:
            raise Locked
        try:
            if value.startswith(_GCM):
                sealed = base64.urlsafe_b64decode(value.removeprefix(_GCM))
                return AESGCM(self._key).decrypt(sealed[:12], sealed[12:], None).decode()
            return _open_box(base64.urlsafe_b64decode(value), self._key).decode()
        except (InvalidTag, InvalidSignature, UnicodeDecodeError, NotBase64, ValueError):
            raise Locked from None


def is_sealed(value: str) -> bool:
    """Whether a value looks encrypted. A long key without any mark of its own does, too."""
    return value.startswith(_GCM) or (len(value) % 4 == 0 and _BASE64.fullmatch(value) is not None)


def _open_box(box: bytes, key: bytes) -> bytes:
    """Raises InvalidSignature."""
    nonce, tag, sealed = box[:_NONCE], box[_NONCE : _NONCE + _TAG], box[_NONCE + _TAG :]
    if len(tag) < _TAG:
        raise InvalidSignature
    derived = _derived(key, nonce[:16])
    stream = b"".join(_block(derived, nonce[16:], count) for count in range((len(sealed) + 32 + 63) // 64))
    Poly1305.verify_tag(stream[:32], sealed, tag)
    return bytes(one ^ other for one, other in zip(sealed, stream[32:], strict=False))


def _mixed(words: tuple[int, ...]) -> list[int]:
    """Twenty rounds of Salsa20."""
    x = list(words)
    for _ in range(10):
        for a, b, c, d in _QUARTERS:
            for to, one, other, turn in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
                added = (x[one] + x[other]) & _MASK
                x[to] ^= ((added << turn) & _MASK) | (added >> (32 - turn))
    return x


def _words(key: bytes, middle: bytes) -> tuple[int, ...]:
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", middle)
    return (_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3])


def _derived(key: bytes, nonce: bytes) -> bytes:
    """The key of Salsa20 that XSalsa20 makes of its own and the first half of its nonce (HSalsa20)."""
    x = _mixed(_words(key, nonce))
    return struct.pack("<8I", *(x[place] for place in (0, 5, 10, 15, 6, 7, 8, 9)))


def _block(key: bytes, nonce: bytes, count: int) -> bytes:
    words = _words(key, nonce + struct.pack("<Q", count))
    mixed = _mixed(words)
    return struct.pack("<16I", *((one + other) & _MASK for one, other in zip(words, mixed, strict=True)))
