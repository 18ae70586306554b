"""iFlytek Spark, by HTTP. The key is the API password, or key and secret with a colon between them.

Source: Spark's HTTP reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="spark",
    label="iFlytek Spark",
    position=190,
    base_url="https://spark-api-open.xf-yun.com/v1",
    apis=CHAT,
    failures=(
        rule(FailureClass.KEY_DEAD, words="10015 10016"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, words="11200"),
        rule(FailureClass.QUOTA_WINDOW, words="11201", resets="midnight:Asia/Shanghai", zone="Asia/Shanghai"),
        rule(FailureClass.RATE, words="10007 11202 11203"),
        rule(FailureClass.OVERLOAD, words="10008 10110"),
        rule(FailureClass.CONTENT, words="10013 10014 10019 10021"),
        rule(FailureClass.CLIENT, words="10907"),
    ),
)
