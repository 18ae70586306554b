"""Baidu Qianfan (ERNIE), version 2 of its API.

Source: Qianfan's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="qianfan",
    label="Baidu Qianfan (ERNIE)",
    position=160,
    base_url="https://qianfan.baidubce.com/v2",
    apis=CHAT | {"embeddings"},
    failures=(
        rule(FailureClass.KEY_DEAD, "401", "invalid_iam_token"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "400 401", "invalid_model"),
        # Not the key's fault: it may not use this parameter.
        rule(FailureClass.CLIENT, "401", "no_parameter_permission"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "401", "access_denied", doubtful=True),
        rule(
            FailureClass.RATE,
            "429",
            "rpm_rate_limit_exceeded tpm_rate_limit_exceeded preemptible_rpm_rate_limit_exceeded "
            "preemptible_tpm_rate_limit_exceeded",
        ),
    ),
)
