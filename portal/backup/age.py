"""Encryption of a stream with a passphrase, in the format of age, which `age -d` reads, too.

Source: https://c2sp.org/age, read in November 2026. A random key of the file is wrapped with one that scrypt makes of
the passphrase; the content is sealed with ChaCha20-Poly1305 in chunks of 64 KiB, each with its number, the last one
with a mark. So nothing can be changed, reordered, or cut off unnoticed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import secrets
from typing import IO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MAGIC: Final = b"age-encryption.org/v1\n"
_CHUNK: Final = 64 * 1024
_TAG: Final = 16
_WORK: Final = 17  # scrypt takes 2^17 KiB of memory, a second or two
_MOST_WORK: Final = 20  # 1 GiB: whoever wrote the file says how much
_LONGEST_LINE: Final = 200
_LABEL: Final = b"age-encryption.org/v1/scrypt"


class Unreadable(Exception):
    """The content cannot be decrypted. The message is one sentence."""


def _scrypt(passphrase: str, salt: bytes, work: int) -> bytes:
    return hashlib.scrypt(
        passphrase.encode(), salt=_LABEL + salt, n=1 << work, r=8, p=1, maxmem=(128 * 8 << work) + (1 << 20), dklen=32
    )


def _derived(key: bytes, salt: bytes, what: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=what).derive(key)


def _text(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _data(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise Unreadable("The header of the encrypted backup is damaged.") from None


def _mac(key: bytes, header: bytes) -> bytes:
    return hmac.new(_derived(key, b"", b"header"), header, hashlib.sha256).digest()


class EncryptedWriter(io.RawIOBase):
    """Encrypts what is written to it. `close` writes the last chunk, and leaves the stream below open."""

    def __init__(self, below: IO[bytes], passphrase: str) -> None:
        key, salt, nonce = secrets.token_bytes(16), secrets.token_bytes(16), secrets.token_bytes(16)
        wrapped = ChaCha20Poly1305(_scrypt(passphrase, salt, _WORK)).encrypt(bytes(12), key, None)
        header = MAGIC + b"-> scrypt %s %d\n%s\n---" % (_text(salt), _WORK, _text(wrapped))
        below.write(header + b" " + _text(_mac(key, header)) + b"\n" + nonce)
        self._below, self._cipher = below, ChaCha20Poly1305(_derived(key, nonce, b"payload"))
        self._waiting, self._number = bytearray(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        size = len(memoryview(data))  # type: ignore[arg-type]  # bytes, or another buffer of them
        self._waiting += data  # type: ignore[arg-type]
        while len(self._waiting) > _CHUNK:  # the last one is kept: it has a mark
            self._seal(bytes(self._waiting[:_CHUNK]), last=False)
            del self._waiting[:_CHUNK]
        return size

    def close(self) -> None:
        if not self.closed:
            self._seal(bytes(self._waiting), last=True)
        super().close()

    def _seal(self, chunk: bytes, last: bool) -> None:
        self._below.write(self._cipher.encrypt(_nonce(self._number, last), chunk, None))
        self._number += 1


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


class EncryptedReader(io.RawIOBase):
    """Reads what `EncryptedWriter`, or age, has written. Raises Unreadable."""

    def __init__(self, below: IO[bytes], passphrase: str) -> None:
        header = below.read(len(MAGIC))
        if header != MAGIC:
            raise Unreadable("The backup is not encrypted in the format of age.")
        stanza, body, end = (below.readline(_LONGEST_LINE) for _ in range(3))
        words = stanza.split()
        if len(words) != 4 or words[:2] != [b"->", b"scrypt"] or not words[3].isdigit() or len(words[3]) > 2:
            raise Unreadable("The backup is encrypted for keys, not with a passphrase: decrypt it with age first.")
        if int(words[3]) > _MOST_WORK:
            raise Unreadable("The backup asks for more memory to be decrypted than is safe.")
        salt, wrapped = _data(words[2]), _data(body.strip())
        try:
            key = ChaCha20Poly1305(_scrypt(passphrase, salt, int(words[3]))).decrypt(bytes(12), wrapped, None)
        except (InvalidTag, ValueError):
            raise Unreadable("The passphrase is not the one of this backup.") from None
        signed = header + stanza + body + b"---"
        if not end.startswith(b"--- ") or not hmac.compare_digest(_data(end[4:].strip()), _mac(key, signed)):
            raise Unreadable("The header of the encrypted backup is damaged.")
        self._below, self._cipher = below, ChaCha20Poly1305(_derived(key, _whole(below, 16), b"payload"))
        self._plain, self._number, self._ended = b"", 0, False
        self._next = _whole(below, _CHUNK + _TAG)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # a buffer that can be written
        while not self._plain and not self._ended:
            self._plain = self._open()
        size = min(len(view), len(self._plain))
        view[:size] = self._plain[:size]
        self._plain = self._plain[size:]
        return size

    def _open(self) -> bytes:
        sealed, self._next = self._next, _whole(self._below, _CHUNK + _TAG)
        self._ended = not self._next
        try:
            plain = self._cipher.decrypt(_nonce(self._number, self._ended), sealed, None)
        except InvalidTag:
            raise Unreadable("The encrypted backup is damaged, or not whole.") from None
        self._number += 1
        return plain


def _whole(stream: IO[bytes], size: int) -> bytes:
    """So many bytes, fewer only at the end: a pipe gives what it has."""
    found = bytearray()
    while len(found) < size and (more := stream.read(size - len(found))):
        found += more
    return bytes(found)
