"""W&B Inference, which CoreWeave documents as Serverless Inference.

Source: the errors of W&B Inference, as W&B and CoreWeave document them, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="wandb",
    label="W&B Inference (CoreWeave)",
    position=478,
    base_url="https://api.inference.wandb.ai/v1",
    apis=CHAT,
    failures=(
        rule(FailureClass.BILLING, "402 429", text=r"^you exceeded your current quota"),
        rule(FailureClass.CONFIG, "403", text=r"^country, region,? or territory not supported"),
        rule(FailureClass.KEY_DEAD, "403", text=r"^the inference gateway is not enabled for your organization"),
    ),
)
