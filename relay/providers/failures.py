"""Classes of upstream failures with their consequences, and rules that tell which failure is of which class. Pure data.

The first rule that fits counts: the administrator's own come first, then those about sizes, then the vendor's
(`relay.providers.vendors`), then the generic ones below, which end with one for every status. Source of these: the
errors that vendors and their SDKs have in common, and those of vendors that have no file of their own, read in November
2026.

Most refusals quote the request, so that words in their messages may be the client's. Texts are therefore matched
without what is quoted, and from the beginning; and only rules that go by a code (`Rule.reserved`) prove that the
failure is not of the request's making.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final


class CooldownScope(Enum):
    """What a failure takes out of service for a while. Values: which of (channel, key, model) are named."""

    NOTHING = (False, False, False)
    PAIR = (True, True, True)  # this key, for this model
    KEY = (True, True, False)
    CHANNEL_MODEL = (True, False, True)
    CHANNEL = (True, False, False)


class FailureClass(Enum):
    """A class of upstream failures, with its consequences."""

    CLIENT = ("client", "the request is at fault", False, CooldownScope.NOTHING)
    # Not retried: asking elsewhere would go around somebody's policy.
    CONTENT = ("content", "refused by a content filter", False, CooldownScope.NOTHING)
    TOO_LARGE = ("too_large", "too large for the limits of this key", True, CooldownScope.NOTHING)
    KEY_DEAD = ("key_dead", "the key is not accepted", True, CooldownScope.KEY, 30.0, 300.0)
    KEY_FORBIDDEN_MODEL = (
        "key_forbidden_model",
        "the key may not use this model",
        True,
        CooldownScope.PAIR,
        3600.0,
        3600.0,
    )
    BILLING = ("billing", "the account behind the key has no money", True, CooldownScope.KEY, 60.0, 600.0)
    RATE = ("rate", "rate limit", True, CooldownScope.PAIR, 5.0, 300.0)
    QUOTA_WINDOW = ("quota_window", "quota of a day, week or month used up", True, CooldownScope.PAIR, 3600.0, 3600.0)
    OVERLOAD = ("overload", "overloaded", True, CooldownScope.CHANNEL_MODEL, 10.0, 60.0)
    TRANSIENT = ("transient", "failed", True, CooldownScope.PAIR, 2.0, 120.0, True)
    # It may have been billed, as may one without an answer in time.
    UNANSWERED = ("unanswered", "the connection broke before an answer", True, CooldownScope.PAIR, 2.0, 120.0, True)
    TIMEOUT = ("timeout", "no answer in time", False, CooldownScope.PAIR, 2.0, 120.0, True)
    STREAM_BROKEN = ("stream_broken", "the answer broke off", False, CooldownScope.PAIR, 2.0, 120.0, True)
    CONFIG = ("config", "the channel's address or settings are wrong", True, CooldownScope.CHANNEL, 30.0, 300.0)
    # Another relay's word, caused by a header that anybody may send: nothing is concluded from it for others.
    LOOP = ("loop", "leads back to a portal that asked", True, CooldownScope.NOTHING)
    NO_API = ("no_api", "the upstream does not have this API", True, CooldownScope.NOTHING)
    FULL = ("full", "at a limit set here", True, CooldownScope.NOTHING)
    ENDED = ("ended", "ended by the portal or its time limit", False, CooldownScope.NOTHING)

    def __init__(
        self,
        word: str,
        text: str,
        retry: bool,
        scope: CooldownScope,
        cooldown: float = 0.0,
        longest: float = 0.0,
        counted: bool = False,
    ) -> None:
        # Its name in records, rules and pages.
        self.word = word
        # What it means, for people.
        self.text = text
        # Another key or channel may succeed.
        self.retry = retry
        # What cools down.
        self.scope = scope
        # Seconds of the first cooldown when the upstream names none; doubled each time in a row.
        self.cooldown = cooldown
        # Seconds of the longest cooldown.
        self.longest = longest
        # It takes several in a row to open the circuit.
        self.counted = counted


BY_WORD: Final = {kind.word: kind for kind in FailureClass}
# Classes of failures that are no answers, so that no rule about answers can name them.
_NO_ANSWER: Final = {"full", "ended", "no_api", "timeout", "unanswered", "stream_broken"}
RULE_CLASSES: Final = [kind for kind in FailureClass if kind.word not in _NO_ANSWER]


@dataclass(frozen=True, slots=True)
class Rule:
    """Which failures are of a class. All that a rule gives must fit."""

    # The class that it means.
    kind: FailureClass
    # The vendor that it is limited to, empty for none. Only rules of the administrator name one.
    provider: str = ""
    # HTTP statuses; empty: any.
    status: frozenset[int] = frozenset()
    # The error's code, type, status or reason, in lower case; one that ends with * is a beginning. Empty: any.
    words: frozenset[str] = frozenset()
    # Found in what the upstream says in its own words, without all that it quotes; None: any message.
    text: re.Pattern[str] | None = None
    # Seconds, in place of the class's.
    cooldown: float | None = None
    # When a quota comes back if the upstream does not say: `midnight:<zone>` or `month`.
    resets: str = ""
    # False for rules that go by a bare status: one such failure takes no key out of service for good.
    certain: bool = True
    # The vendor uses the same words for faults of requests.
    doubtful: bool = False
    # The zone of times in the message that name none.
    zone: str = "UTC"

    @property
    def reserved(self) -> bool:
        """Whether it goes by a code that the vendor keeps for failures of this class, so that no request causes it."""
        return bool(self.words) and self.text is None and not self.doubtful

    def fits(self, provider: str, status: int, words: frozenset[str], message: str) -> bool:
        """Whether a failure is of the rule's class. `status`: 0 for one inside a 200, which only its words tell.

        `words` in lower case.
        """
        if self.provider and self.provider != provider:
            return False
        if (status not in self.status) if status and self.status else not (status or self.words):
            return False
        if self.words and not any(_fits(wanted, words) for wanted in self.words):
            return False
        return self.text is None or self.text.search(message) is not None


def _fits(wanted: str, words: frozenset[str]) -> bool:
    if wanted.endswith("*"):
        return any(word.startswith(wanted[:-1]) for word in words)
    return wanted in words


def rule(
    kind: FailureClass,
    status: str = "",
    words: str = "",
    text: str = "",
    cooldown: float | None = None,
    resets: str = "",
    doubtful: bool = False,
    zone: str = "UTC",
) -> Rule:
    """A rule as vendors' files write it.

    `status` and `words` are separated by spaces; `text` is a regular expression, without regard to case. A text that
    moves anything begins with `^`: what a vendor says first is its own. Quoted parts of the message are `…`.
    """
    return Rule(
        kind,
        status=frozenset(int(part) for part in status.split()),
        words=frozenset(words.lower().split()),
        text=re.compile(text, re.I) if text else None,
        cooldown=cooldown,
        resets=resets,
        doubtful=doubtful,
        zone=zone,
    )


def _by_status(kind: FailureClass, status: str, cooldown: float | None = None) -> Rule:
    """A rule that goes by the bare status, and so is a guess."""
    return replace(rule(kind, status, cooldown=cooldown), certain=False)


# A model that the upstream does not know, in the words of most servers: `The model … does not exist`.
_NO_MODEL: Final = (
    r"^(error: )?(the )?(requested |specified )?models?(/\S+)?( id| name)?:? ?(\S{1,150} )?(was |is |does |do )?"
    r"not (found|exist)|^(该|当前|此)?模型.{0,100}不存在"
    r"|^(/\S+: )?invalid model name passed in model\b"  # LiteLLM
    r"|^(the )?model (\S{1,150} )?(has |was |is )(reached |been )?(its |now )?"  # NVIDIA, Hugging Face
    r"(end of life|deprecated|retired|decommissioned|discontinued|no longer)\b"
)

# What relays say when a server behind them refused their key: OpenRouter (`Provider returned error`), new-api (`bad
# response status code 401`), LiteLLM (`litellm.AuthenticationError: OpenAIException - …`).
_BEHIND: Final = (
    r"^provider returned error\b|^bad response status code \d|^(error code: \d+ - )?(litellm\.)?"
    r"(authentication|permissiondenied)error: (litellm\.|\w+exception\b|\w+error:)|^litellm\.\w+error:"
)
# A thing that the request names and that belongs to somebody else, as Gemini says it.
_NOT_YOURS: Final = (
    r"^you do(n't| not) have (permission|access) to (access |use )?(the |this )?"
    r"(file|cached ?content|conversation|response|vector store|assistant|batch|container)\b|^cached ?content not found"
)

# An account without money, in the vendors' own words and without a code: `insufficient quota`, `Your credit balance is
# too low to access the Anthropic API`, `You're out of extra usage`, `用户额度不足`.
_NO_MONEY: Final = (
    r"^(error: )?((you|you're|you've|your|the|this|user|current|api|upstream|account|token|key|team|organi[sz]ation"
    r"|project|has|have|is|run) ){0,6}(insufficient|not enough|no|out of)( (remaining|available|account|user|api|token"
    r"|more|your|extra)){0,3} (quota|balance|credits?|funds?|usage)( (left|remaining|available))?"
    r"( (to|in|on)\b|[^\w\s]|$)"
    r"|^your (credit|account) balance is (too low|insufficient|negative)"
    r"|^you have reached your specified (workspace )?api usage limits"
    r"|^(您的|你的|该|当前)?(账户|账号|用户|令牌)?(余额|额度|配额)(已)?(不足|用尽|耗尽|用完)"
)

# Refusals of requests that are too large for what the account pays for; it pays for smaller ones. They come before the
# vendors' rules for the same statuses.
SIZES: Final = (
    rule(
        FailureClass.TOO_LARGE,
        "402 403 429",
        text=r"\bcan only afford\b|\bor fewer max_tokens|\bneed quota\b|需要预扣费额度",
    ),
    # OpenRouter: “Prompt tokens limit exceeded: 41250 > 3180.”, “max_tokens limit exceeded: 100000 > 9577.”
    rule(FailureClass.TOO_LARGE, "402", text=r"\d ?> ?-?\d|^(prompt tokens|max_tokens) limit exceeded"),
    # Anthropic, of the context of a million tokens.
    rule(
        FailureClass.TOO_LARGE,
        "400 403 429",
        text=r"^(extra usage is|usage credits are) required for long context"
        r"|^the long context beta is not yet available",
    ),
)

# Other relays pass on whatever their upstreams say. These words are unmistakable enough to be read wherever they come
# from.
GENERIC: Final = (
    rule(FailureClass.LOOP, "508"),  # of relays of this kind alone; RFC 5842 has it for WebDAV
    rule(
        FailureClass.CONTENT,
        "400 403 422 451",
        "content_filter content_policy_violation responsibleaipolicyviolation moderation_blocked "  # OpenAI, Azure
        "cyber_policy bio_policy misalignment_policy_violation image_content_policy_violation "
        "potentially_unintended_data_access potentially_unintended_data_transfer "
        "potentially_unintended_destructive_activity "
        "data_inspection_failed datainspectionfailed "  # DashScope
        "inputtextsensitivecontentdetected* inputimagesensitivecontentdetected* "  # Ark
        "outputtextsensitivecontentdetected* outputimagesensitivecontentdetected* sensitivecontentdetected* "
        "inputtextriskdetection inputimageriskdetection outputtextriskdetection outputimageriskdetection "
        "content_filter_error 451001 "  # Tencent TokenHub
        "unsafe_request",  # Qianfan
    ),
    # What an upstream of the upstream refused says nothing of our key: new-api, OpenRouter (of its own key, or of the
    # account's for one provider), LiteLLM.
    rule(FailureClass.TRANSIENT, "401 402 403 404 405", "bad_response_status_code"),
    rule(FailureClass.TRANSIENT, "401 402 403", "channel:*"),
    rule(FailureClass.TRANSIENT, "401 402 403", text=_BEHIND),
    rule(FailureClass.CLIENT, "401 403 404", text=_NOT_YOURS),
    # llama.cpp, of a model without its projector: “image input is not supported - hint: … mmproj”.
    rule(FailureClass.CLIENT, "500", text=r"^(image|audio|video) input is not supported\b"),
    rule(
        FailureClass.CLIENT,
        "401 403",
        "key_vector_store_access_denied team_vector_store_access_denied org_vector_store_access_denied",  # LiteLLM
    ),
    rule(FailureClass.TOO_LARGE, "402 403", "weight_exceeds_budget pre_consume_token_quota_failed"),
    # one-api says so as well when only this request is too dear.
    rule(FailureClass.BILLING, "402 403 429", "insufficient_user_quota", doubtful=True),
    rule(FailureClass.BILLING, "402", "401007 401008 403004"),  # Tencent TokenHub
    rule(FailureClass.RATE, "402", "openrouter_in_flight_budget in_flight_budget_exhausted"),
    _by_status(FailureClass.BILLING, "402"),
    rule(
        FailureClass.BILLING,
        "400 403 429",
        "insufficient_quota billing_hard_limit_reached credit_balance_exhausted exceeded_current_quota_error "
        "arrearage insufficient_balance billing_insufficient_balance accountoverdueerror",
    ),
    # LiteLLM: the key's budget, or that of the user whom the request names.
    rule(FailureClass.BILLING, "400 429", "budget_exceeded", doubtful=True),
    # Google's and Anthropic's, also where they speak OpenAI's API.
    rule(FailureClass.KEY_DEAD, "400 401 403", "api_key_invalid consumer_suspended organization_on_hold"),
    rule(FailureClass.QUOTA_WINDOW, "429", "quota_per_day", resets="midnight:America/Los_Angeles"),
    rule(
        FailureClass.KEY_DEAD,
        "401 403",
        "invalid_api_key account_deactivated invalidapikey token_disabled token_expired invalid_iam_token",
    ),
    rule(
        FailureClass.KEY_FORBIDDEN_MODEL,
        "400 401 403 404",
        "model_not_found model_not_allowed unknown_model model_not_supported model_decommissioned modelnotfound "
        "modelnotopen invalidendpoint.notfound invalidendpoint.closedendpoint invalidendpointormodel.* "  # Ark
        "model.accessdenied accessdenied.unpurchased deploymentnotfound "
        "key_model_access_denied team_model_access_denied user_model_access_denied org_model_access_denied "
        "project_model_access_denied",  # LiteLLM
    ),
    rule(
        FailureClass.KEY_FORBIDDEN_MODEL,
        "401 403",
        text=r"^(authentication error, )?(key|team|user|org(anization)?|project) not allowed to access model\b",
    ),
    rule(FailureClass.KEY_FORBIDDEN_MODEL, "503", "model_not_found", cooldown=300.0),  # new-api: no channel has it now
    # MiniMax puts its errors into a 200, in a form that nobody else uses.
    rule(FailureClass.BILLING, words="base_resp:1008"),
    rule(FailureClass.KEY_DEAD, words="base_resp:1004 base_resp:2049"),
    rule(FailureClass.RATE, words="base_resp:1002 base_resp:1039 base_resp:1041"),
    rule(FailureClass.QUOTA_WINDOW, words="base_resp:2056"),
    rule(FailureClass.CONTENT, words="base_resp:1026 base_resp:1027"),
    rule(FailureClass.CLIENT, words="base_resp:2013"),
    rule(FailureClass.TRANSIENT, words="base_resp:1000 base_resp:1001 base_resp:1013 base_resp:1024 base_resp:1033"),
    rule(FailureClass.CONFIG, "301 302 303 307 308"),
    rule(FailureClass.CONFIG, "404", text=r"^(invalid|unknown request) url\b|^no route\b"),
    rule(FailureClass.KEY_FORBIDDEN_MODEL, "400 404 410 422", text=_NO_MODEL),
    rule(FailureClass.KEY_DEAD, "400 401 403", text=r"^(incorrect|invalid) api key\b"),
    rule(FailureClass.BILLING, "400 401 403 404 422 429 500 503", text=_NO_MONEY),
    _by_status(FailureClass.KEY_DEAD, "401"),
    _by_status(FailureClass.KEY_FORBIDDEN_MODEL, "403", cooldown=300.0),
    rule(FailureClass.OVERLOAD, "429 503", "serveroverloaded"),  # Ark
    rule(FailureClass.RATE, "429", "rate_limit_exceeded rate_limit_error throttling throttling.* too_many_requests"),
    rule(FailureClass.RATE, "429"),
    rule(
        FailureClass.OVERLOAD,
        "503 529",
        "server_is_overloaded slow_down engine_overloaded_error service_unavailable_error",
    ),
    rule(FailureClass.OVERLOAD, "498 503 529"),
    rule(
        FailureClass.CLIENT,
        "400 404 405 406 409 410 411 413 414 415 416 417 422 424 428 431 451",
        "invalid_request_error badrequesterror invalid_prompt context_length_exceeded string_above_max_length "
        "invalidparameter* invalid_parameter* invalid_argument missingparameter",
    ),
    rule(FailureClass.CLIENT, "400 404 405 406 410 411 413 414 415 416 417 422 424 428 431 451"),
)
