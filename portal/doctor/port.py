"""Checks of the port: free, held by this portal, which is then asked how it is, or held by another program."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
from django.utils.translation import gettext as _

from portal import __version__
from portal.config import Config
from portal.doctor.report import Check, tidy

_SECONDS: Final = 5.0
_OURS: Final = "AIRelays Portal"
_LISTENS: Final = "0A"  # the state in /proc/net/tcp


def port(config: Config) -> Iterator[Check]:
    host, number = config.host, config.port
    data: dict[str, Any] = {"host": host, "port": number}
    shown: dict[str, Any] = {"host": host, "port": number}
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, number))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            yield Check(
                "port",
                "fail",
                _("The portal cannot listen on %(host)s:%(port)s: %(why)s.") % {**shown, "why": error.strerror},
                (_("Set AIRELAYS_HOST to an address of this machine, and AIRELAYS_PORT to a port above 1023."),),
                data,
            )
            return
    else:
        yield Check("port", "pass", _("%(host)s:%(port)s is free: the portal does not run there.") % shown, data=data)
        return
    yield _held(host, number, shown, data)


def _held(host: str, number: int, shown: dict[str, Any], data: dict[str, Any]) -> Check:
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    base = f"http://{f'[{local}]' if ':' in local else local}:{number}"
    alive = _ask(f"{base}/healthz")
    if alive.get("name") != _OURS:
        who = holder_of(number)
        data = {**data, "program": who} if who else data
        text = (
            _("%(host)s:%(port)s is used by another program: %(who)s.") % {**shown, "who": who}
            if who
            else _("%(host)s:%(port)s is used by another program, which is not a portal.") % shown
        )
        stop = _("Stop it, or choose another port with AIRELAYS_PORT.")
        look = _("See who it is: %(command)s") % {"command": f"lsof -i :{number}"}
        return Check("port", "fail", text, (stop,) if who else (look, stop), data)
    version = str(alive.get("version", ""))[:20]
    data, shown = {**data, "version": version}, {**shown, "version": version}
    ready = _ask(f"{base}/readyz")
    if not ready.get("ready"):
        problems = ready.get("problems")
        why = "; ".join(str(one) for one in problems[:5]) if isinstance(problems, list) else _("it does not answer")
        text = _("The portal at %(host)s:%(port)s cannot serve requests: %(why)s.") % {**shown, "why": why}
        return Check("port", "fail", text, (_("Look into its log, and correct what it says."),), data)
    if version != __version__:
        text = _("The portal at %(host)s:%(port)s runs version %(version)s, and %(own)s is installed.")
        return Check("port", "warn", text % {**shown, "own": __version__}, (_("Restart the portal."),), data)
    text = _("The portal runs at %(host)s:%(port)s and serves requests (version %(version)s).")
    return Check("port", "pass", text % shown, data=data)


def _ask(url: str) -> dict[str, Any]:
    """The JSON object at an address of this machine; empty when there is none."""
    try:
        answer = httpx.get(url, timeout=_SECONDS, trust_env=False, follow_redirects=False)
        found = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def holder_of(number: int) -> str:
    """The program that listens on a port and its process id, as far as Linux tells; else empty."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for columns in (line.split() for line in lines):
            if columns[3] == _LISTENS and int(columns[1].rpartition(":")[2], 16) == number:
                inodes.add(f"socket:[{columns[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(str(one.readlink()) in inodes for one in (process / "fd").iterdir()):
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                return f"{tidy(name)} ({_('process')} {process.name})"
        except OSError:  # another user's, or it has ended
            continue
    return ""
