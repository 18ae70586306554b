"""LiteLLM's `config.yaml`: its models, and the settings of its router."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from relay.importers.description import SourceUnreadable
from relay.importers.litellm.deployments import Stored
from relay.importers.reading.row import object_of, text_of

_MOST: Final = 20 * 1024 * 1024  # bytes


def read_config(path: Path) -> Mapping[str, Any]:
    """The file as an object. Raises SourceUnreadable."""
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise SourceUnreadable("No reader of YAML is installed: install the package PyYAML.") from None
    try:
        if path.stat().st_size > _MOST:
            raise SourceUnreadable(f"{path} is too large for a configuration.")
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceUnreadable(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SourceUnreadable(f"{path} is no text in UTF-8.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark is not None else ""
        raise SourceUnreadable(f"{path} is no YAML{at}.") from None
    if not isinstance(found, dict):
        raise SourceUnreadable(f"{path} is no configuration of LiteLLM.")
    return found


def deployments_of(config: Mapping[str, Any]) -> Iterator[Stored]:
    listed = config.get("model_list")
    seen: dict[str, int] = {}
    for entry in listed if isinstance(listed, list) else ():
        name = text_of(entry.get("model_name")) if isinstance(entry, dict) else ""
        if name:
            seen[name] = seen.get(name, 0) + 1
            params, info = object_of(entry.get("litellm_params")), object_of(entry.get("model_info"))
            yield Stored(f"file:{name}:{seen[name]}", name, params, info)


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return object_of(config.get(name))
