"""Errors for requests that are invalid, or that an upstream cannot serve as they are."""

from __future__ import annotations

from relay.errors import InvalidRequest, RelayError, UnsupportedParameter
from relay.protocols.fields import BadRequest


def invalid(bad: BadRequest) -> RelayError:
    """The client's error for a BadRequest."""
    kind = UnsupportedParameter if bad.status == 422 else InvalidRequest
    return kind(bad.message, code=bad.code, param=bad.param)


def refused_parameter(name: str) -> RelayError:
    """The client's error for a parameter that the upstream does not accept."""
    return UnsupportedParameter(
        f"The upstream of this model does not accept “{name}”. Leave it out, or use another model.", param=name
    )
