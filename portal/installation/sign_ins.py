"""The sign-ins at ChatGPT that AIRelays 0.x has left: in files of the data folder, and in the system's keychain.

Nothing is changed there. Of the keychain: versions 0.2.2 to 0.16 kept them in it, by way of the library `keyring`,
which is optional here. A keychain that is locked, or asks its user, keeps nobody waiting.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

logger: Final = logging.getLogger(__name__)
SERVICES: Final = ("AIRelays Auth", "AIRelay Auth")  # of the keychain, the newer first
_ACCOUNTS: Final = "accounts"
_FILE: Final = "auth.json"
_MOST_BYTES: Final = 1 << 20
_PATIENCE: Final = 3.0  # seconds for the keychain


@dataclass(frozen=True, slots=True)
class SignIn:
    """A sign-in: `auth` has `tokens` with `access_token`, `refresh_token`, `id_token` and `account_id`."""

    auth: dict[str, Any]
    source: str  # where it was, for people: a path, or the service of the keychain

    @property
    def fingerprint(self) -> str:
        """By which it is known again without being kept: of its tokens, which are others after the next sign-in."""
        tokens = self.auth["tokens"]
        secret = str(tokens.get("refresh_token") or tokens.get("access_token"))
        return hashlib.sha256(secret.encode(errors="backslashreplace")).hexdigest()[:32]


def find_sign_ins(data_dir: Path, keychain: bool = True) -> list[SignIn]:
    """The sign-ins of a data folder, the first account first.

    Of one account only the newest: each refresh makes the tokens before it invalid.
    """
    found: dict[str, SignIn] = {}
    for number, sign_in in enumerate(_all(data_dir, keychain)):
        account = _account(sign_in.auth) or str(number)
        other = found.get(account)
        if other is None or _refreshed(sign_in) > _refreshed(other):
            found[account] = sign_in
    return list(found.values())


def _refreshed(sign_in: SignIn) -> datetime:
    """When the tokens of a sign-in were last made."""
    try:
        at = datetime.fromisoformat(str(sign_in.auth.get("last_refresh")))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _all(data_dir: Path, keychain: bool) -> Iterator[SignIn]:
    for path in (data_dir / _FILE, *(data_dir / _ACCOUNTS / name / _FILE for name in _accounts(data_dir))):
        auth = _read(path)
        if auth is not None:
            yield SignIn(auth, str(path))
    if keychain:
        for service, text in _of_keychain(data_dir):
            auth = _parsed(text)
            if auth is not None:
                yield SignIn(auth, f"the keychain's “{service}”")


def _accounts(data_dir: Path) -> list[str]:
    """The folders of accounts beside the first, in the order that their owner gave them."""
    folder = data_dir / _ACCOUNTS
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []
    try:
        order = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["order"]
        first = [name for name in order if name in names]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        first = []
    return [*dict.fromkeys(first), *(name for name in names if name not in first)]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MOST_BYTES:
            return None
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("the sign-in in %s cannot be read: %s", path, type(error).__name__)
        return None
    auth = _parsed(text)
    if auth is None:
        logger.warning("the sign-in in %s is not taken over: it has no tokens", path)
    return auth


def _parsed(text: str) -> dict[str, Any] | None:
    """What is written, if it is a sign-in."""
    try:
        auth = json.loads(text)
    except (ValueError, RecursionError):
        return None
    tokens = auth.get("tokens") if isinstance(auth, dict) else None
    return auth if isinstance(tokens, dict) and (tokens.get("access_token") or tokens.get("refresh_token")) else None


def _account(auth: dict[str, Any]) -> str:
    return str(auth["tokens"].get("account_id") or auth.get("bound_account_id") or "")


# -- the keychain ----------------------------------------------------------------------------------------------------


def user_name(data_dir: Path) -> str:
    """The name by which the keychain has the sign-in of a data folder."""
    return f"cli|{hashlib.sha256(str(data_dir.expanduser().resolve()).encode()).hexdigest()[:16]}"


def _of_keychain(data_dir: Path) -> list[tuple[str, str]]:
    """What the keychain has, by service. It is asked in a thread that may be left behind: it may wait for its user."""
    found: list[tuple[str, str]] = []
    asking = threading.Thread(target=_ask, args=(user_name(data_dir), found), name="airelays keychain", daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    if asking.is_alive():
        logger.warning("the keychain does not answer: a sign-in in it is not taken over. Unlock it, and start again")
    return list(found)


def _ask(user: str, found: list[tuple[str, str]]) -> None:
    try:
        keyring: Any = importlib.import_module("keyring")
    except ImportError:
        return
    for service in SERVICES:
        try:
            text = keyring.get_password(service, user)
        except Exception as error:  # each kind of keychain has its own: none there, locked, refused by its user
            logger.info("the keychain cannot be read: %s", type(error).__name__)
            return
        if text:
            found.append((service, str(text)))
