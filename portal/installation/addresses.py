"""The address under which programs on this machine reach the portal."""

from __future__ import annotations

from typing import Final

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def own_address(public_url: str, host: str, port: int) -> str:
    """The URL, without a trailing slash. `public_url`: stands before the address that is listened on."""
    if public_url:
        return public_url
    shown = _EVERYWHERE.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
