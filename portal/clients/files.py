"""Writes the settings of client apps, with a copy of what was there before, and puts that back.

What was written is kept in a file of the portal's data folder for each app: paths, copies, and a digest by which it is
known later whether somebody has changed a file since. Files with a token can be read by their owner alone.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from portal.clients.app import CannotEdit, ClientApp, Environment
from portal.clients.target import CannotConnect, Target
from portal.lib.redaction.redact import redact

_COPY: Final = ".before-airelays"  # behind the name of a file, that of its copy
_CONTEXT: Final = 2  # lines around a change that are shown


@dataclass(frozen=True, slots=True)
class FileChange:
    """What becomes of one file. `before` is None where there is none."""

    path: Path
    before: str | None
    after: str

    @property
    def is_none(self) -> bool:
        return self.before == self.after

    def shown(self, *secrets: str) -> str:
        """The difference in the unified format, without secrets."""
        lines = difflib.unified_diff(
            (self.before or "").splitlines(),
            self.after.splitlines(),
            str(self.path) if self.before is not None else os.devnull,
            str(self.path),
            n=_CONTEXT,
            lineterm="",
        )
        text = "\n".join(lines)
        for secret in secrets:
            text = text.replace(secret, f"{secret[:3]}…{secret[-4:]}")
        return redact(text)


@dataclass(frozen=True, slots=True)
class _Written:
    """One file that was written, as it is kept."""

    path: str
    copy: str  # of what was there before, empty: nothing was
    digest: str  # of what was written


def planned(app: ClientApp, target: Target, environment: Environment, home: Path) -> list[FileChange]:
    """What is to be changed. Raises CannotConnect for a file that cannot be read or edited."""
    found = []
    for file in app.files:
        path = file.place(environment, home).expanduser().resolve()  # what a link points at is edited, not the link
        try:
            before = path.read_text(encoding="utf-8") if path.exists() else None
            found.append(FileChange(path, before, file.edit(before or "", target)))
        except CannotEdit as why:
            raise CannotConnect(f"{path} is left as it is: {why}. Nothing was changed.") from None
        except (OSError, UnicodeError) as error:
            raise CannotConnect(f"{path} cannot be read: {error}. Nothing was changed.") from None
    return found


def write(app: ClientApp, changes: Iterable[FileChange], folder: Path) -> list[Path]:
    """Write what is planned. `folder`: of the portal's data. Returns the copies of what was there before.

    Of an app that is connected already, the copies stay those from before the first time. Raises CannotConnect, also
    where a file is not what it was when that was planned, or may not be written.
    """
    changes = list(changes)
    for change in changes:
        _check_unchanged(change)
    known = {one.path: one for one in _read(app, folder)}
    written, copies = [], []
    try:
        for change in changes:
            before = known.get(str(change.path))
            copy = before.copy if before is not None else _copy(change)
            _put(change.path, change.after)
            written.append(_Written(str(change.path), copy, _digest(change.after)))
            if copy:
                copies.append(Path(copy))
            known.pop(str(change.path), None)
            _keep(app, folder, [*written, *known.values()])
    except OSError as error:
        raise CannotConnect(f"{error.filename or app.label} cannot be written: {error.strerror or error}.") from None
    return copies


def undo(app: ClientApp, folder: Path, force: bool = False) -> list[Path]:
    """Put back what was there before. Returns the files. Raises CannotConnect.

    `force`: also over what was changed since.
    """
    written = _read(app, folder)
    if not written:
        raise CannotConnect(f"{app.label} has not been connected from here, so that there is nothing to undo.")
    changed = [one for one in written if not force and _is_changed(one)]
    if changed:
        one = changed[0]
        remedy = f"What was there before is in {one.copy}." if one.copy else "There was no such file before."
        raise CannotConnect(
            f"{one.path} was changed after {app.label} had been connected. {remedy} Put it back by hand, or with "
            "--force."
        )
    try:
        for number, one in enumerate(written):
            if one.copy:
                Path(one.copy).replace(one.path)
            else:
                Path(one.path).unlink(missing_ok=True)
            _keep(app, folder, written[number + 1 :])  # what is back is not put back again, should another one fail
        _place(app, folder).unlink()
    except OSError as error:
        raise CannotConnect(f"{error.filename or app.label} cannot be put back: {error.strerror or error}.") from None
    return [Path(one.path) for one in written]


def texts(app: ClientApp, folder: Path) -> list[str]:
    """What is in the files that were written, of those that can be read. Raises CannotConnect."""
    found = []
    for one in _read(app, folder):
        try:
            found.append(Path(one.path).read_text(encoding="utf-8"))
        except (OSError, UnicodeError):
            continue
    return found


def is_connected(app: ClientApp, folder: Path) -> bool:
    return bool(_read(app, folder))


def _is_changed(one: _Written) -> bool:
    try:
        return _digest(Path(one.path).read_text(encoding="utf-8")) != one.digest
    except FileNotFoundError:
        return False
    except (OSError, UnicodeError):
        return True


def _check_unchanged(change: FileChange) -> None:
    """Raise CannotConnect where somebody has changed a file meanwhile, such as the app itself, or has locked it."""
    try:
        now = change.path.read_text(encoding="utf-8") if change.path.exists() else None
    except (OSError, UnicodeError) as error:
        raise CannotConnect(f"{change.path} cannot be read: {error}. Nothing was changed.") from None
    if now != change.before:
        raise CannotConnect(f"{change.path} was changed meanwhile. Nothing was changed: begin again.")
    locked = now is not None and not (change.path.stat().st_mode & 0o222 and os.access(change.path, os.W_OK))
    if locked:  # also for root, who may write everything
        raise CannotConnect(f"{change.path} may not be written. Nothing was changed: make it writable, or edit it.")


def _copy(change: FileChange) -> str:
    """Keep what is there, byte by byte and with its mode; returns where. No copy is written over."""
    if change.before is None:
        return ""
    number, place = 1, change.path.with_name(change.path.name + _COPY)
    while place.exists():
        number += 1
        place = change.path.with_name(f"{change.path.name}{_COPY}-{number}")
    with tempfile.TemporaryDirectory(dir=change.path.parent, prefix=f".{change.path.name}.") as made:
        Path(shutil.copy2(change.path, made)).replace(place)
    return str(place)


def _put(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # its owner's alone
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _place(app: ClientApp, folder: Path) -> Path:
    return folder / "clients" / f"{app.key}.json"


def _read(app: ClientApp, folder: Path) -> list[_Written]:
    try:
        return [_Written(**one) for one in json.loads(_place(app, folder).read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise CannotConnect(f"{_place(app, folder)} cannot be read: {error}.") from None


def _keep(app: ClientApp, folder: Path, written: Sequence[_Written]) -> None:
    _put(_place(app, folder), json.dumps([asdict(one) for one in written], indent=2) + "\n")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
