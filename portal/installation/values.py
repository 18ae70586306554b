"""How each kind of setting is written. A validator raises ValueError with what to write instead."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from portal.lib import crypto, money, net
from portal.services import databases

_BOUNDS: Final = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}  # of numbers


def wanted(kind: str, message: str, context: Mapping[str, Any], metadata: Iterable[object]) -> str:
    """What to write in place of a value that was refused: of pydantic's errors, in our words.

    `kind`, `message`, `context`: of the error; `metadata`: of the setting, with the bounds of numbers.
    """
    kind = kind.replace("finite_number", "float")
    number = {"int": "a whole number", "float": "a number"}.get(kind.partition("_")[0], "")
    if number or kind.startswith(("greater_", "less_")):
        bounds = {name: getattr(one, name) for one in metadata for name in _BOUNDS if hasattr(one, name)}
        bounds = bounds or {name: context[name] for name in _BOUNDS if name in context}
        if bounds.keys() == {"ge", "le"}:
            said = f"from {bounds['ge']} to {bounds['le']}"
        else:
            said = ", ".join(f"{words} {bounds[name]}" for name, words in _BOUNDS.items() if name in bounds)
        return f"write {number or 'a number'} {said}".rstrip()
    if kind in {"literal_error", "enum"}:
        return f"write {str(context.get('expected', '')).replace(chr(39), '')}"
    if kind.startswith("bool_"):
        return "write true or false"
    return {"string_type": "write a text", "list_type": "write a list"}.get(kind, message.removeprefix("Value error, "))


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _networks(value: list[str]) -> list[str]:
    net.check_narrow(net.parse_networks(value))
    return value


def _allowances(value: list[str]) -> list[str]:
    for line in value:
        net.Allowance.check(line)
    return value


def _key(value: str) -> str:
    return _keys([value])[0] if value else value


def _keys(value: list[str]) -> list[str]:
    """The first encrypts. The others only read what they have encrypted, so that a weak one can be replaced."""
    for key in value[:1]:
        try:
            crypto.check_key(key)
        except ValueError as error:
            raise ValueError(f"{error}, or leave it out to have one made") from None
    return value


def _bearer(value: str) -> str:
    if value:
        crypto.check_key(value)
    return value


def _usd(value: str) -> str:
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ValueError("write an amount in USD, such as 2.50") from None
    if not amount.is_finite() or not 0 <= amount <= money.MOST_USD:
        raise ValueError(f"write an amount in USD from 0 to {money.MOST_USD:,}")
    return value


def _share(value: str) -> str:
    if Decimal(_usd(value)) > 10:
        raise ValueError("write a share of the price between 0 and 10, such as 0.5")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("write a time zone such as Europe/Berlin") from None
    return value


def _redis(value: str) -> str:
    if value and not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("write it as redis://host:6379/0")
    try:
        parts = urlsplit(value)
        port, number = parts.port, parts.path.strip("/")
    except ValueError:
        port, number = 0, ""
    if port == 0 or (value.startswith("redis") and not (parts.hostname and (not number or number.isdecimal()))):
        raise ValueError("write it as redis://host:6379/0: a host, a port and the number of a database")
    return value


def _host(value: str) -> str:
    name = value.strip()
    if name and not _is_host(name.strip("[]")):
        raise ValueError(f"“{name[:60]}” is not the name of a host: leave out the scheme, the port and the path")
    return name


def listening_address(value: str) -> str:
    """An address or name to listen on, without brackets."""
    name = _host(value).removeprefix("[").removesuffix("]")
    if not name:
        raise ValueError("write an address of this machine, such as 127.0.0.1")
    return name


def _public_url(value: str) -> str:
    url = value.strip().rstrip("/")
    if not url:
        return url
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("write it as https://ai.example.org") from None
    if parts.scheme not in {"https", "http"} or not _is_host(parts.hostname or "") or "@" in parts.netloc or port == 0:
        raise ValueError("write it with https:// or http:// and the name of the host, as in https://ai.example.org")
    if parts.path or parts.query or parts.fragment:
        raise ValueError(
            "the portal is not built to be served below a path: write the scheme and the host only, as in "
            "https://ai.example.org"
        )
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _is_host(name: str) -> bool:
    """Whether a text is a host name or an address: no scheme, port, path or space in it."""
    return re.fullmatch(r"[\w.-]+", name) is not None or (":" in name and net.parse_address(name) is not None)


def _hosts(value: list[str]) -> list[str]:
    for name in value:
        if name != "*" and not _is_host(name.removeprefix(".").strip("[]")):
            raise ValueError(f"“{name[:60]}” is not the name of a host: leave out the scheme, the port and the path")
    return value


def _origins(value: list[str]) -> list[str]:
    for origin in value:
        if origin != "*" and re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+/?", origin) is None:
            raise ValueError(f"“{origin[:60]}” is not an origin: write it as https://app.example.org")
    return [origin.rstrip("/") for origin in value]


def _urls(value: list[str]) -> list[str]:
    for url in value:
        if re.fullmatch(r"https?://[^/?#@\s]+/[^?#\s]*", url) is None:
            raise ValueError(f"“{url[:60]}” is not an address such as https://sts.example.com/token")
    return value


def server_url(value: str) -> str:
    url = value.strip().rstrip("/")
    if url and re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", url) is None:
        raise ValueError("write an address such as https://auth.example.com")
    return url


def _client_id(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._:-]{0,200}", value.strip()) is None:
        raise ValueError("write the id of an OAuth client: letters, digits, dots, dashes and underscores")
    return value.strip()


def _client_version(value: str) -> str:
    if re.fullmatch(r"auto|(\d+(\.\d+){0,3})?", value.strip()) is None:
        raise ValueError("write a version such as 0.153.4, or auto")
    return "" if value.strip() == "auto" else value.strip()


def _domains(value: list[str]) -> list[str]:
    found = [domain.strip().lower().removeprefix("@") for domain in value]
    for domain in found:
        if not _is_host(domain):
            raise ValueError(f"“{domain[:60]}” is not a domain such as example.org")
    return found


def _sender(value: str) -> str:
    if "@" not in value or any(ord(character) < 32 for character in value):
        raise ValueError("write an address of e-mail, such as airelays@example.org")
    return value


def _certificates(value: str) -> str:
    if value and not (Path(value).is_file() and os.access(value, os.R_OK)):
        raise ValueError("there is no such file, or it cannot be read")
    return value


def _balance(value: str) -> str:
    return value if value == "unlimited" else _usd(value)


def _unpriced(value: str) -> str:
    if value not in {"refuse", "free"}:
        parts = value.split("/")
        if len(parts) != 2:
            raise ValueError("write refuse, free, or two prices such as 5/15")
        for part in parts:
            _usd(part)
    return value


def _expand(value: Path) -> Path:
    try:
        return value.expanduser().absolute()
    except RuntimeError:  # a container may have neither HOME nor an entry in the list of users
        raise ValueError("there is no home folder here: write the whole path") from None


Key = Annotated[str, AfterValidator(_key)]
Bearer = Annotated[str, AfterValidator(_bearer)]  # what others send; none is made where there is none
Keys = Annotated[list[str], NoDecode, BeforeValidator(_split), AfterValidator(_keys)]
Networks = Annotated[list[str], NoDecode, BeforeValidator(_split), AfterValidator(_networks)]
Allowances = Annotated[list[str], NoDecode, BeforeValidator(_split), AfterValidator(_allowances)]
Hosts = Annotated[list[str], NoDecode, BeforeValidator(_split), AfterValidator(_hosts)]
Origins = Annotated[list[str], NoDecode, BeforeValidator(_split), AfterValidator(_origins)]
Urls = Annotated[list[str], NoDecode, BeforeValidator(_split), AfterValidator(_urls)]
ServerUrl = Annotated[str, AfterValidator(server_url)]
ClientId = Annotated[str, AfterValidator(_client_id)]
ClientVersion = Annotated[str, AfterValidator(_client_version)]
Domains = Annotated[list[str], NoDecode, BeforeValidator(_split), AfterValidator(_domains)]
Folder = Annotated[Path, AfterValidator(_expand)]
OptionalFolder = Annotated[
    Annotated[Path, AfterValidator(_expand)] | None, BeforeValidator(lambda value: value or None)
]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Usd = Annotated[str, AfterValidator(_usd)]
Share = Annotated[str, AfterValidator(_share)]
Balance = Annotated[str, AfterValidator(_balance)]
Unpriced = Annotated[str, AfterValidator(_unpriced)]
Zone = Annotated[str, AfterValidator(_zone)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
RedisUrl = Annotated[str, AfterValidator(_redis)]
Host = Annotated[str, AfterValidator(_host)]
ListeningAddress = Annotated[str, AfterValidator(listening_address)]
DatabaseUrl = Annotated[str, AfterValidator(databases.check_database_url)]
Sender = Annotated[str, AfterValidator(_sender)]
Certificates = Annotated[str, AfterValidator(_certificates)]
