"""The file of a backup: what is written is read, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from portal.backup import age, archive
from portal.backup.age import EncryptedReader, EncryptedWriter, Unreadable
from portal.backup.archive import Damaged, unpack, writing

PASSPHRASE = "correct horse battery"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(age, "_WORK", 10)


def sealed(data: bytes) -> bytes:
    to = io.BytesIO()
    with EncryptedWriter(to, PASSPHRASE) as writer:
        writer.write(data)
    return to.getvalue()


def opened(data: bytes, passphrase: str = PASSPHRASE) -> bytes:
    return io.BufferedReader(EncryptedReader(io.BytesIO(data), passphrase)).read()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072, 300_000])
def test_what_is_encrypted_is_decrypted(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert opened(sealed(data[:size])) == data[:size]


def test_another_passphrase_and_every_change_are_noticed() -> None:
    whole = sealed(b"x" * 150_000)
    with pytest.raises(Unreadable, match="passphrase"):
        opened(whole, "another passphrase")
    header = whole.index(b"\n---")
    for place in (30, header - 3, header + 8, header + 60, 100_000, len(whole) - 1):
        changed = bytearray(whole)
        changed[place] ^= 1
        with pytest.raises(Unreadable):
            opened(bytes(changed))
    for end in (len(whole) - 1, len(whole) - 18_944, 65_000, 70):
        with pytest.raises(Unreadable):
            opened(whole[:end])
    chunks = whole[:-18_944]
    with pytest.raises(Unreadable):
        opened(chunks[: -(65_536 + 16)] + whole[-18_944:])  # a chunk is missing


def test_a_header_that_asks_for_much_memory_is_refused() -> None:
    whole = sealed(b"")
    first = whole.split(b"\n", 2)[1]
    with pytest.raises(Unreadable, match="more memory"):
        opened(whole.replace(first, first.rsplit(b" ", 1)[0] + b" 30"))
    with pytest.raises(Unreadable, match="for keys"):
        opened(whole.replace(first, b"-> X25519 abc"))


def made(tmp_path: Path, passphrase: str | None = None, **texts: str) -> bytes:
    to = io.BytesIO()
    with writing(to, passphrase, tmp_path) as writer:
        writer.add_text("about.json", json.dumps({"format": 1}))
        for name, text in texts.items():
            writer.add_text(name, text)
        writer.add_text("summary.json", json.dumps({"gone": []}))
    return to.getvalue()


def read(data: bytes, folder: Path | None = None, passphrase: str | None = None) -> dict[str, Any]:
    return unpack(io.BufferedReader(io.BytesIO(data)), passphrase, folder)


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_members_are_unpacked(tmp_path: Path, passphrase: str | None) -> None:
    texts = {"keys/token_key": "k", "database/state.sqlite3": "d", "uploads/ab/abcd": "u"}
    whole = made(tmp_path, passphrase, **texts)
    place = tmp_path / "place"
    place.mkdir()
    assert read(whole, place, passphrase) == {"gone": [], "about": {"format": 1}}
    for name, text in texts.items():
        path = place / name
        assert path.read_text() == text and path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_backup_that_is_cut_off_is_not_whole(tmp_path: Path) -> None:
    whole = made(tmp_path, **{"database/state.sqlite3": "d" * 100_000})
    for end in (0, 10, len(whole) // 2, len(whole) - 20):
        with pytest.raises(Damaged):
            read(whole[:end])
    with pytest.raises(Damaged):
        read(b"no backup" * 100)


def test_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    whole = made(tmp_path, **{"keys/token_key": "k"})
    with zstd.ZstdFile(io.BytesIO(whole)) as packed, tarfile.open(fileobj=packed, mode="r|") as found:
        sums = next(found.extractfile(one).read() for one in found if one.name == "SHA256SUMS")  # type: ignore[union-attr]
    assert f"{hashlib.sha256(b'k').hexdigest()}  keys/token_key\n".encode() in sums


def packed_with(change: Callable[[tarfile.TarFile], None], sums: bool = True) -> bytes:
    """An archive as a stranger may make one."""
    to = io.BytesIO()
    with zstd.ZstdFile(to, "w") as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        add(tar, "about.json", b'{"format": 1}')
        change(tar)
        add(tar, "summary.json", b"{}")
        if sums:
            add(tar, "SHA256SUMS", b"")
    return to.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    about = tarfile.TarInfo(name)
    about.size, about.type, about.linkname = len(data), kind, link
    tar.addfile(about, io.BytesIO(data))


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "keys/../../x", "keys/other", "uploads/ab/../../x", "uploads/ab/A b", "uploads/abcd",
     "database/other", "state.sqlite3", "keys/token_key/x", "about.json", ""],
)  # fmt: skip
def test_names_that_do_not_belong_there_are_refused(tmp_path: Path, name: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(Damaged):
        read(packed_with(lambda tar: add(tar, name, b"x")), place)
    assert [path.name for path in tmp_path.iterdir()] == ["place"] and not list(place.rglob("*x*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(Damaged, match="no file"):
        read(packed_with(lambda tar: add(tar, "uploads/ab/abcd", b"", kind, "/etc/passwd")), tmp_path)


def test_a_header_of_any_length_is_refused_before_it_is_read(tmp_path: Path) -> None:
    def long_name(tar: tarfile.TarFile) -> None:
        add(tar, "x" * 300, b"x")

    with pytest.raises(Damaged, match="no file"):
        read(packed_with(long_name), tmp_path)


def test_large_members_are_refused_by_their_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Damaged, match="too large"):
        read(packed_with(lambda tar: add(tar, "keys/token_key", bytes(archive._SMALL + 1))), tmp_path)
    free = shutil.disk_usage(tmp_path)._replace(free=archive._SPARE + 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free)
    with pytest.raises(Damaged, match="no room"):
        read(packed_with(lambda tar: add(tar, "database/state.sqlite3", bytes(11))), tmp_path)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"[]", b"{", b"\xff", b'{"a": 1' + b"0" * 5000 + b"}"])
def test_what_it_says_of_itself_has_to_be_readable(text: bytes) -> None:
    to = io.BytesIO()
    with zstd.ZstdFile(to, "w") as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        add(tar, "about.json", text)
    with pytest.raises(Damaged):
        read(to.getvalue())


def test_wrong_or_missing_sums_are_noticed(tmp_path: Path) -> None:
    for sums in (True, False):
        with pytest.raises(Damaged, match=r"sums of its members|not whole"):
            read(packed_with(lambda tar: None, sums))
