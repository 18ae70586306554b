"""The file of a backup: a tar archive, compressed with zstd, perhaps encrypted. `tar --zstd -xf` unpacks it.

Its members, in this order: `about.json`, `keys/…`, `settings/…`, `database/…`, `uploads/…`, `summary.json`, and
`SHA256SUMS`, by which `sha256sum -c` checks them. An archive without that one at its end is not whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final

from portal.backup.age import MAGIC, EncryptedReader, EncryptedWriter
from portal.lib import crypto

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SUMS: Final = "SHA256SUMS"
_BLOCK: Final = 1 << 20
_LEVEL: Final = 3
_SPARE: Final = 64 << 20  # bytes that a restore leaves free on a disk
_SMALL: Final = 1 << 20  # bytes of what is read into memory
# What may be in a backup, and how much of it: names that lead elsewhere cannot be written in this form.
_MEMBERS: Final = (
    (re.compile(r"about\.json|keys/(secret_key|encryption_keys|token_key)|settings/[a-z]{1,20}\.(toml|env)"), _SMALL),
    (re.compile(r"database/(state\.sqlite3|postgresql\.dump|mysql\.sql)|uploads/[0-9a-z]{2}/[0-9a-z]{1,64}"), None),
    (re.compile(r"summary\.json|SHA256SUMS"), None),
)


class Damaged(Exception):
    """The file is no backup, or not whole. The message is one sentence."""


class ArchiveWriter:
    """Adds members to an archive."""

    def __init__(self, archive: tarfile.TarFile, sums: IO[str]) -> None:
        self._archive, self._sums = archive, sums
        self.members = self.bytes = 0

    def add_text(self, name: str, text: str) -> None:
        data = text.encode()
        self.add(name, io.BytesIO(data), len(data))

    def add(self, name: str, file: IO[bytes], size: int) -> str:
        """Add a file of this size. Returns its SHA-256 in hex. Raises OSError when it is shorter."""
        about = tarfile.TarInfo(name)
        about.size, about.mode, about.mtime = size, 0o600, int(time.time())
        hashed = _Hashed(file)
        self._archive.addfile(about, hashed)
        if name != SUMS:
            self._sums.write(f"{hashed.digest}  {name}\n")
        self.members, self.bytes = self.members + 1, self.bytes + size
        return hashed.digest


class _Hashed:
    """A file whose SHA-256 is made as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


@contextmanager
def writing(to: IO[bytes], passphrase: str | None, scratch: Path) -> Iterator[ArchiveWriter]:
    """Write an archive to a stream, which stays open. `scratch`: a private folder for sums of many members."""
    with ExitStack() as stack:
        sums = stack.enter_context((scratch / "sums").open("w+", encoding="utf-8"))
        below = stack.enter_context(EncryptedWriter(to, passphrase)) if passphrase is not None else to
        packed = stack.enter_context(zstd.ZstdFile(below, "w", level=_LEVEL))
        archive = stack.enter_context(tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT))
        writer = ArchiveWriter(archive, sums)
        yield writer
        sums.flush()
        with (scratch / "sums").open("rb") as file:
            writer.add(SUMS, file, (scratch / "sums").stat().st_size)


class _RegularFile(tarfile.TarInfo):
    """A member that is a regular file: links, and headers with texts of any length, are refused."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise Damaged(f"The backup has a member that is no file: {self.name[:60]!r}.")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]  # not among the types of the library


def is_encrypted(stream: io.BufferedReader) -> bool:
    return stream.peek(len(MAGIC)).startswith(MAGIC[:4])


def unpack(
    stream: io.BufferedReader,
    passphrase: str | None,
    folder: Path | None,
    on_about: Callable[[dict[str, Any]], None] = lambda about: None,
) -> dict[str, Any]:
    """Read an archive, and check every member against its sum. Returns its summary, with `about` in it.

    `folder`: where members go, None to check them alone. `on_about` sees what the archive says of itself before
    anything else is unpacked, and may raise. Raises Damaged, Unreadable, OSError.
    """
    below: Any = EncryptedReader(stream, passphrase) if passphrase is not None else stream
    if passphrase is not None:
        below = io.BufferedReader(below, _BLOCK)
    try:
        with (
            zstd.ZstdFile(below, "r") as packed,
            tarfile.open(fileobj=packed, mode="r|", tarinfo=_RegularFile) as archive,
        ):
            return _Unpacking(folder, on_about).all_of(archive)
    except (zstd.ZstdError, tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise Damaged("The file is no backup of a portal, or it is damaged or not whole.") from error


class _Unpacking:
    def __init__(self, folder: Path | None, on_about: Callable[[dict[str, Any]], None]) -> None:
        self._folder, self._on_about = folder, on_about
        self._names: set[str] = set()
        self._lines = hashlib.sha256()  # of the sums as they should be, which may be many
        self._texts: dict[str, dict[str, Any]] = {}

    def all_of(self, archive: tarfile.TarFile) -> dict[str, Any]:
        for member in archive:
            self._take(archive, member)
            if member.name == SUMS:
                break
        if SUMS not in self._names:
            raise Damaged("The backup is not whole: its end is missing.")
        if not {"about.json", "summary.json"} <= self._names:
            raise Damaged("The backup lacks what it should say of itself.")
        return {**self._texts["summary.json"], "about": self._texts["about.json"]}

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = member.name
        limit = next((most for pattern, most in _MEMBERS if pattern.fullmatch(name)), 0)
        if limit == 0 or name in self._names:
            raise Damaged(f"The backup has a member that does not belong into it: {name[:60]!r}.")
        if limit is not None and member.size > limit:
            raise Damaged(f"The backup has a member that is too large: {name}.")
        if not self._names and name != "about.json":
            raise Damaged("The backup does not begin with what it says of itself.")
        self._names.add(name)
        content = archive.extractfile(member)
        assert content is not None  # noqa: S101  # a regular file has one
        if name == SUMS:
            if hashlib.file_digest(content, "sha256").digest() != self._lines.digest():  # type: ignore[arg-type]
                raise Damaged("The backup is damaged: the sums of its members are wrong.")
            return
        as_json = name.endswith(".json")
        if as_json and member.size > 256 * _SMALL:
            raise Damaged(f"The backup has a member that is too large: {name}.")
        digest = self._store(name, content, member.size, as_json)
        self._lines.update(f"{digest}  {name}\n".encode())
        if name == "about.json":
            self._on_about(self._texts[name])

    def _store(self, name: str, content: IO[bytes], size: int, as_json: bool) -> str:
        hashed = _Hashed(content)
        if as_json:
            found = json.loads(hashed.read())
            if not isinstance(found, dict):
                raise Damaged("The backup lacks what it should say of itself.")
            self._texts[name] = found
        elif self._folder is None:
            while hashed.read(_BLOCK):
                pass
        else:
            free = shutil.disk_usage(self._folder).free
            if size > free - _SPARE:
                raise Damaged(f"The disk has no room for {name}: {size + _SPARE:,} bytes should be free, {free:,} are.")
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(path, "xb", opener=crypto.open_private) as file:  # Path.open takes no opener
                shutil.copyfileobj(hashed, file, _BLOCK)
        return hashed.digest
