"""Checks of the data folder: that it can be written, who else may read it, how much fits in."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from django.core.checks import ERROR
from django.utils.translation import gettext as _

from portal.checks import data_folder as other_users
from portal.checks import key_files
from portal.config import Config
from portal.doctor.report import Check, Status

_LEAST: Final = 64 << 20  # bytes without which the database cannot work
_FEW: Final = 1 << 30
_LEAST_FILES: Final = 1000  # inodes


def data_folder(config: Config) -> Iterator[Check]:
    folder = config.data_dir
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        yield Check(
            "data_dir",
            "fail",
            _("The data folder %(path)s cannot be written: %(why)s.") % {"path": folder, "why": error.strerror},
            (_("Give it to the user that runs the portal, or set AIRELAYS_DATA_DIR to another folder."),),
            {"path": str(folder)},
        )
    else:
        yield from _rights(folder)
    yield from _room(folder)


def _rights(folder: Path) -> Iterator[Check]:
    mode = stat.S_IMODE(folder.stat().st_mode)
    data = {"path": str(folder), "mode": f"{mode:04o}"}
    found = [*key_files(None), *other_users(None)]
    foreign = [name for name in _own_files(folder) if name.stat().st_uid != os.geteuid() and os.geteuid() != 0]
    for message in found:
        status: Status = "fail" if message.level >= ERROR else "warn"
        yield Check("data_dir", status, str(message.msg), (str(message.hint),), data)
    if foreign:
        yield Check(
            "data_dir",
            "fail",
            _("%(path)s belongs to another user.") % {"path": foreign[0]},
            (_("Run the portal always as the same user, or change the owner with chown."),),
            data,
        )
    if not found and not foreign:
        yield Check(
            "data_dir",
            "pass",
            _("The data folder %(path)s can be written, and nobody else may read it (%(mode)s).") % data,
            data=data,
        )


def _own_files(folder: Path) -> Iterator[Path]:
    for name in ("keys", "state.sqlite3", "state.sqlite3-wal", "uploads"):
        if (folder / name).exists():
            yield folder / name


def _room(folder: Path) -> Iterator[Check]:
    """Room on the disks of the folder and of the uploads, which may be a mount of its own."""
    seen = set()
    for place in (folder, folder / "uploads"):
        try:
            found, device = os.statvfs(place), place.stat().st_dev
        except OSError:
            continue
        if device in seen:
            continue
        seen.add(device)
        free, files = found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None
        data = {"free_bytes": free, "free_files": files}
        shown = {"path": place, "free": f"{free / (1 << 30):.1f} GiB", "files": f"{files or 0:,}"}
        steps = (_("Delete what is not needed, or move the data folder to a larger disk (AIRELAYS_DATA_DIR)."),)
        if free < _LEAST or (files is not None and files < _LEAST_FILES):
            text = _(
                "The disk of %(path)s is full: %(free)s and %(files)s files are left. Requests cannot be recorded."
            )
            yield Check("disk", "fail", text % shown, steps, data)
        elif free < _FEW:
            yield Check("disk", "warn", _("The disk of %(path)s has only %(free)s left.") % shown, steps, data)
        else:
            yield Check("disk", "pass", _("The disk of %(path)s has %(free)s left.") % shown, data=data)
