"""Checks of the machine and of the servers beside it: who runs the portal, files, clocks, connections."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from django.db import DatabaseError, InterfaceError, connection
from django.utils.translation import gettext as _

from portal.config import Config
from portal.doctor.report import Check
from portal.services import redis

_SKEW: Final = 5.0  # seconds between two clocks; leases and budgets of several hosts are timed by them
_FILES: Final = 4096
_BESIDE: Final = 5  # connections to the database that a worker has beside its pool
_NETWORK: Final = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs"))
_LINK: Final = Path("/etc/localtime")


def machine(config: Config) -> Iterator[Check]:
    yield from _owner(config)
    yield from _time_zone(config)
    yield from _synchronised()
    yield from _open_files()
    if not config.database_url:
        yield from _place_of_sqlite(config)


def servers(config: Config) -> Iterator[Check]:
    """Of the database and of Redis, where there are any: clocks, and connections."""
    if config.database_url:
        yield from _connections(config)
    yield from _clocks(config)


def _owner(config: Config) -> Iterator[Check]:
    if os.geteuid() == 0:
        text = _("This command runs as root. If the portal does, too, a fault in it is a fault of the whole machine.")
        step = _("Run both as a user of their own, as the systemd unit and the Dockerfile do: docs/deploy.md.")
        yield Check("user", "warn", text, (step,))
    else:
        yield Check("user", "pass", _("This command does not run as root."))
    if config.debug:
        text = _("AIRELAYS_DEBUG is on: pages of errors show settings and code to everybody.")
        yield Check("debug", "fail", text, (_("Remove AIRELAYS_DEBUG."),))


def _time_zone(config: Config) -> Iterator[Check]:
    """The setting, unless somebody has chosen it, against that of the machine."""
    zone = ""
    try:
        zone = str(_LINK.resolve()).rpartition("zoneinfo/")[2]
    except OSError:
        pass
    plain = {"", "UTC", "Etc/UTC", "UCT", "Etc/UCT", "Zulu", "Universal", "Etc/Universal", "GMT", "Etc/GMT"}
    if "time_zone" not in config.model_fields_set and zone not in plain and not zone.startswith("/"):
        text = _(
            "Days and months of budgets and reports begin at midnight in UTC; the machine's time zone is %(zone)s."
        )
        step = _("Set AIRELAYS_TIME_ZONE=%(zone)s, or AIRELAYS_TIME_ZONE=UTC if that is meant.")
        yield Check("time_zone", "warn", text % {"zone": zone}, (step % {"zone": zone},), {"machine": zone})
    else:
        text = _("Days and months of budgets and reports begin at midnight in %(zone)s.")
        yield Check("time_zone", "pass", text % {"zone": config.time_zone}, data={"zone": config.time_zone})


def _synchronised() -> Iterator[Check]:
    """What systemd says of the clock, where it is asked; containers have their host's."""
    try:
        done = subprocess.run(
            ["timedatectl", "show", "--property=NTPSynchronized", "--value"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return
    if done.stdout.strip() == "no":
        text = _("The clock of this machine is not synchronised with the network.")
        step = _("Let the system set its clock by the network (NTP), for example: %(command)s")
        yield Check("clock", "warn", text, (step % {"command": "timedatectl set-ntp true"},))
    elif done.stdout.strip() == "yes":
        yield Check("clock", "pass", _("The clock of this machine is synchronised with the network."))


def _open_files() -> Iterator[Check]:
    """The limit of this process, which the portal has too when it is started in the same way."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # the server raises its own to the hard one
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        text = _("A process may have %(n)d files open: connections beyond that are refused.") % {"n": hard}
        step = _("Raise the limit (systemd: LimitNOFILE=65536, Docker: --ulimit nofile=65536).")
        yield Check("open_files", "warn", text, (step,), {"limit": hard})


def _place_of_sqlite(config: Config) -> Iterator[Check]:
    kind = file_system_of(config.data_dir, Path("/proc/self/mountinfo"))
    if kind in _NETWORK:
        text = _("The database is on a network file system (%(kind)s), whose locks SQLite cannot rely on.")
        step = _("Put AIRELAYS_DATA_DIR on a disk of this machine, or use PostgreSQL (AIRELAYS_DATABASE_URL).")
        yield Check("database_file", "fail", text % {"kind": kind}, (step,), {"file_system": kind})


def file_system_of(path: Path, table: Path) -> str:
    """The kind of file system that a path is on, by Linux's `mountinfo`; empty where that cannot be read."""
    try:
        lines = [line.split() for line in table.read_text(encoding="utf-8").splitlines()]
        place = path.resolve()
    except (OSError, ValueError):
        return ""
    found, depth = "", -1
    for parts in lines:
        if len(parts) > 6 and "-" in parts[6:]:
            mounted = Path(parts[4].encode().decode("unicode_escape"))
            if place.is_relative_to(mounted) and len(mounted.parts) >= depth:
                found, depth = parts[parts.index("-", 6) + 1], len(mounted.parts)
    return found


def _connections(config: Config) -> Iterator[Check]:
    query = {
        "postgresql": "SELECT current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int",
        "mysql": "SELECT @@max_connections",
    }
    try:
        with connection.cursor() as cursor:
            cursor.execute(query[connection.vendor])
            most = int(cursor.fetchone()[0])
    except (DatabaseError, InterfaceError, KeyError):
        return  # the check of the database says so
    wanted = config.workers * (config.database_connections + _BESIDE)
    shown = {"most": most, "wanted": wanted, "workers": config.workers}
    if wanted > most:
        text = _("The database takes %(most)d connections, and %(workers)d workers may open %(wanted)d.") % shown
        step = _("Raise max_connections of the database, or lower AIRELAYS_DATABASE_CONNECTIONS or AIRELAYS_WORKERS.")
        yield Check("connections", "fail", text, (step,), shown)
    else:
        text = _("The database takes %(most)d connections; this host may open %(wanted)d of them.") % shown
        yield Check("connections", "pass", text, data=shown)


def _clocks(config: Config) -> Iterator[Check]:
    steps = (_("Let all hosts set their clocks by the network (NTP)."),)
    for name, ahead in (("database", _ahead_of_database()), ("Redis", _ahead_of_redis(config))):
        if ahead is None:
            continue
        shown = {"name": _("database") if name == "database" else name, "seconds": abs(ahead)}
        if abs(ahead) > _SKEW:
            text = _("The clock of the %(name)s server differs from this machine's by %(seconds).0f seconds.")
            yield Check("clocks", "fail", text % shown, steps, {"server": name.lower(), "ahead": round(ahead, 1)})
        else:
            text = _("The clock of the %(name)s server agrees with this machine's.")
            yield Check("clocks", "pass", text % shown, data={"server": name.lower(), "ahead": round(ahead, 1)})


def _ahead_of_database() -> float | None:
    """Seconds by which its clock is ahead of ours; None of a file, and where it does not say."""
    query = {
        "postgresql": "SELECT extract(epoch from clock_timestamp())",
        "mysql": "SELECT unix_timestamp(sysdate(6))",
    }
    if connection.vendor not in query:
        return None
    try:
        with connection.cursor() as cursor:
            began = time.time()
            cursor.execute(query[connection.vendor])
            said = float(cursor.fetchone()[0])
            return said - (began + time.time()) / 2
    except (DatabaseError, InterfaceError):
        return None


def _ahead_of_redis(config: Config) -> float | None:
    if not config.redis_url:
        return None
    from redis import Redis, RedisError  # imported only where Redis is configured

    try:
        with Redis.from_url(config.redis_url, **redis.options()) as client:
            client.ping()
            began = time.time()
            seconds, micros = client.time()
            ahead: float = seconds + micros / 1e6 - (began + time.time()) / 2
            return ahead
    except (RedisError, OSError):
        return None
