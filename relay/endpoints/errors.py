"""What clients are told of requests that cannot be understood, or not be served as they are."""

from __future__ import annotations

from relay.errors import InvalidRequest, RelayError, UnsupportedParameter
from relay.protocols.fields import BadRequest


def invalid(bad: BadRequest) -> RelayError:
    """What the client is told of a request that cannot be understood, or not be done."""
    kind = UnsupportedParameter if bad.status == 422 else InvalidRequest
    return kind(bad.message, code=bad.code, param=bad.param)


def refused_parameter(name: str) -> RelayError:
    return UnsupportedParameter(f"The upstream of this model does not accept “{name}”. Leave it out, or use another model.", param=name)
