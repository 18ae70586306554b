"""Zhipu (GLM), whose models are also sold as Z.ai.

Source: Zhipu's API reference and error codes (docs.bigmodel.cn), read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="zhipu",
    label="Zhipu (GLM)",
    position=90,
    base_url="https://open.bigmodel.cn/api/paas/v4",
    apis=CHAT | {"messages", "embeddings", "images.generations", "audio.speech", "audio.transcriptions", "rerank"},
    paths={"messages": "/../../anthropic/v1/messages"},
    parameters={
        "n": "refuse:1",
        "logit_bias": "drop",
        "frequency_penalty": "drop",
        "presence_penalty": "drop",
        "seed": "drop",
        "logprobs": "refuse:false",
        "store": "drop",
    },
    failures=(
        rule(FailureClass.KEY_DEAD, words="1000 1001 1002 1003 1004 1005 1110 1111 1112 1121"),
        rule(FailureClass.KEY_DEAD, words="1313", cooldown=86_400.0),
        rule(FailureClass.BILLING, words="1113 1309"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, words="1311 1211 1220"),
        rule(FailureClass.RATE, words="1302 1303"),
        rule(FailureClass.QUOTA_WINDOW, words="1304", resets="midnight:Asia/Shanghai", zone="Asia/Shanghai"),
        # Windows of five hours, a week and a month, which end at the time that the message gives.
        rule(FailureClass.QUOTA_WINDOW, words="1308 1310", zone="Asia/Shanghai"),
        rule(FailureClass.OVERLOAD, words="1305 1312"),
        rule(FailureClass.CONTENT, words="1301"),
        rule(FailureClass.CLIENT, words="1210 1212 1213 1214 1215 1261"),
        rule(FailureClass.CONFIG, words="1221 1222", doubtful=True),  # one API of it is gone; others work
        rule(FailureClass.TRANSIENT, words="1100 1120 1200 1230 1234"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "434"),
        rule(FailureClass.CLIENT, "435"),
    ),
    price_list="zhipuai",
    price_search={"zai": 60, "zhipuai": 70},
)
