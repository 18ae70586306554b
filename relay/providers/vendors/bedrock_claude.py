"""Models on Amazon Bedrock: with an API key of Bedrock, or with an access key that signs each request.

Claude is asked by InvokeModel in Anthropic's own API, every other model by Converse, which is the same for all of them.
An application's inference profile does not say in its name which model is behind it: Converse serves each.

Source: docs.aws.amazon.com/bedrock, botocore 1.44, and the Bedrock client of Anthropic's SDK, read in November 2026.
"""

from __future__ import annotations

import re
from typing import Final

from relay.protocols.framing.envelope import BEDROCK
from relay.providers.apis import CONVERSE, MESSAGES
from relay.providers.credentials.aws import AWS
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor
from relay.providers.vendors import anthropic

VENDOR: Final = Vendor(
    key="bedrock_claude",
    telemetry_name="aws.bedrock",
    label="Amazon Bedrock",
    position=301,
    protocol="anthropic",
    bare_host=True,
    address_form="https://bedrock-runtime.{region}.amazonaws.com",
    credentials=AWS,
    # Of the control plane. Models of late are called by a profile, as `us.anthropic.claude-…` and `global.…` are.
    models_path="//inference-profiles?maxResults=1000",
    more_models_paths=("//foundation-models?byOutputModality=TEXT&byInferenceType=ON_DEMAND",),
    models_host=("bedrock-runtime.", "bedrock."),
    apis=MESSAGES | CONVERSE,
    model_apis=((re.compile(r"(?:^|[./])anthropic\."), MESSAGES), (re.compile(""), CONVERSE)),
    paths={"messages": "/model/{model}/invoke", "messages.count_tokens": "/model/{model}/count-tokens"},
    stream_paths={"messages": "/model/{model}/invoke-with-response-stream"},
    envelope=BEDROCK,
    signs_thinking=True,
    parameters={**anthropic.VENDOR.parameters, "messages/service_tier": "drop"},
    prompt_cache=anthropic.CLAUDE_CACHE,
    failures=(
        # The clock of this machine is wrong: the key may be right.
        rule(FailureClass.CONFIG, "403", text=r"^signature (expired|not yet current)"),
        rule(
            FailureClass.KEY_DEAD,
            "400 401 403",
            "unrecognizedclientexception invalidsignatureexception expiredtokenexception "
            "incompletesignatureexception missingauthenticationtokenexception invalidclienttokenid",
        ),
        rule(FailureClass.CONFIG, "401", "region"),
        rule(FailureClass.KEY_DEAD, "403", "accessdeniedexception", r"^authentication failed\b|^bearer token\b"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "403", "accessdeniedexception", doubtful=True),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", "resourcenotfoundexception", doubtful=True),
        rule(
            FailureClass.KEY_FORBIDDEN_MODEL,
            "400",
            "validationexception",
            r"^the provided model identifier is invalid|^invocation of model id\b",
        ),
        rule(FailureClass.CLIENT, "400", "validationexception"),
        rule(
            FailureClass.QUOTA_WINDOW,
            "429",
            "throttlingexception",
            r"^too many tokens per day",
            resets="midnight:UTC",
        ),
        rule(FailureClass.RATE, "429", "throttlingexception"),
        rule(FailureClass.OVERLOAD, "429 503", "modelnotreadyexception serviceunavailableexception"),
        rule(FailureClass.RATE, "400 402", "servicequotaexceededexception"),
        rule(
            FailureClass.TRANSIENT,
            "408 424 500",
            "modeltimeoutexception modelerrorexception modelstreamerrorexception internalserverexception",
        ),
        *anthropic.VENDOR.failures,
    ),
    price_list="aws",
    price_multiples=anthropic.VENDOR.price_multiples,
)
