"""Hooks for Schemathesis: most requests name an existing model, so that they do not all fail with “no such model”."""

from __future__ import annotations

import random
from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if isinstance(body, dict) and ("model" in body or random.random() < 0.2) and random.random() < 0.7:  # noqa: S311  # not for secrets
        return {**body, "model": "plain"}
    return body
