"""Changes of texts of settings that leave everything else in them as it is. Pure.

All raise CannotEdit for a text that cannot be changed so.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from portal.clients.app import CannotEdit

Path = tuple[str, ...]
_INDENT: Final = re.compile(r'^([ \t]+)"', re.MULTILINE)
_NO_PLAIN_VALUE: Final = re.compile(r"[\"'\s\\#$]")


def in_json(text: str, values: Mapping[Path, Any]) -> str:
    """JSON with these values at these paths; the objects on the way are made."""
    try:
        found = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise CannotEdit(f"it is no plain JSON ({error}), and its comments would be lost") from None
    for path, value in values.items():
        _set(found, path, value)
    indent = _INDENT.search(text)
    return json.dumps(found, indent=indent[1] if indent else 2, ensure_ascii=False) + "\n"


def _set(found: Any, path: Path, value: Any) -> None:
    for at, name in enumerate(path):
        if not isinstance(found, dict):
            raise CannotEdit(f"“{'.'.join(path[:at])}” in it is no object" if at else "it is no JSON object")
        if at < len(path) - 1:
            found = found.setdefault(name, {})
        else:
            found[name] = value


def in_toml(text: str, values: Mapping[Path, Any]) -> str:
    """The same of TOML, with its comments and its order."""
    import tomlkit  # a megabyte of each worker, for a page and a command
    from tomlkit.exceptions import TOMLKitError

    try:
        wanted = tomllib.loads(text)
        for path, value in values.items():
            _set(wanted, path, value)
        document = tomlkit.parse(text)
        for path, value in values.items():
            found: Any = document
            for at, name in enumerate(path[:-1]):
                if name not in found:
                    found[name] = tomlkit.table(is_super_table=at < len(path) - 2)
                found = found[name]
            found[path[-1]] = value
        edited = tomlkit.dumps(document)
        if tomllib.loads(edited) != wanted:
            raise CannotEdit("its tables are written in a way that cannot be edited")
    except (TOMLKitError, ValueError, TypeError) as error:
        raise CannotEdit(f"it cannot be edited as TOML ({error})") from None
    return edited


def in_env(text: str, values: Mapping[str, str]) -> str:
    """The same of a file of variables, with `NAME=value` on each line. Earlier lines of these names go."""
    kept = [line for line in text.splitlines() if _name_of(line) not in values]
    for name, value in values.items():
        if _NO_PLAIN_VALUE.search(value):
            raise CannotEdit(f"the value of {name} has characters that such a file does not keep")
        kept.append(f"{name}={value}")
    return "\n".join(kept) + "\n"


def _name_of(line: str) -> str:
    return line.strip().removeprefix("export ").partition("=")[0].strip() if "=" in line else ""
