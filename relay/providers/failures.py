"""What upstreams' failures mean: classes with their consequences, and the rules that tell which failure is of which class. Pure data.

Source of the rules: each vendor's error reference and the errors that their SDKs know, read in November 2026. The first rule that fits
counts: the administrator's own come first, then the vendor's, then the generic ones, which end with one for every status.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
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
    """A class of upstream failures.

    `word`: its name in records, rules and pages. `retry`: another key or channel may succeed. `scope`: what cools down. `cooldown`, `longest`:
    seconds without a hint from the upstream, doubled each time in a row up to the longest. `counted`: it takes several to open the circuit.
    """

    CLIENT = ("client", "the request is at fault", False, CooldownScope.NOTHING)
    CONTENT = ("content", "refused by a content filter", False, CooldownScope.NOTHING)  # asking elsewhere would go around somebody's policy
    TOO_LARGE = ("too_large", "too large for the limits of this key", True, CooldownScope.NOTHING)
    KEY_DEAD = ("key_dead", "the key is not accepted", True, CooldownScope.KEY, 30.0, 300.0)
    KEY_FORBIDDEN_MODEL = ("key_forbidden_model", "the key may not use this model", True, CooldownScope.PAIR, 3600.0, 3600.0)
    BILLING = ("billing", "the account behind the key has no money", True, CooldownScope.KEY, 60.0, 600.0)
    RATE = ("rate", "rate limit", True, CooldownScope.PAIR, 5.0, 300.0)
    QUOTA_WINDOW = ("quota_window", "quota of a day, week or month used up", True, CooldownScope.PAIR, 3600.0, 3600.0)
    OVERLOAD = ("overload", "overloaded", True, CooldownScope.CHANNEL_MODEL, 10.0, 60.0)
    TRANSIENT = ("transient", "failed", True, CooldownScope.PAIR, 2.0, 120.0, True)
    UNANSWERED = ("unanswered", "the connection broke before an answer", True, CooldownScope.PAIR, 2.0, 120.0, True)  # it may have been billed
    TIMEOUT = ("timeout", "no answer in time", False, CooldownScope.PAIR, 2.0, 120.0, True)  # it may have been billed
    STREAM_BROKEN = ("stream_broken", "the answer broke off", False, CooldownScope.PAIR, 2.0, 120.0, True)
    CONFIG = ("config", "the channel's address or settings are wrong", True, CooldownScope.CHANNEL, 30.0, 300.0)
    NO_API = ("no_api", "the upstream does not have this API", True, CooldownScope.NOTHING)
    FULL = ("full", "at a limit set here", True, CooldownScope.NOTHING)
    ENDED = ("ended", "ended by the portal or its time limit", False, CooldownScope.NOTHING)

    def __init__(self, word: str, text: str, retry: bool, scope: CooldownScope, cooldown: float = 0.0, longest: float = 0.0, counted: bool = False) -> None:
        self.word, self.text, self.retry, self.scope = word, text, retry, scope
        self.cooldown, self.longest, self.counted = cooldown, longest, counted


BY_WORD: Final = {kind.word: kind for kind in FailureClass}
RULE_CLASSES: Final = [
    kind for kind in FailureClass if kind.word not in {"full", "ended", "no_api", "timeout", "unanswered", "stream_broken"}
]  # what a rule about an answer can say


@dataclass(frozen=True, slots=True)
class Rule:
    """`status` empty: any. `words`: the error's code, type, status or reason, in lower case; one that ends with * is a beginning. `text`: found in the message.

    All that is given must fit. `cooldown`: seconds, in place of the class's. `resets`: when a quota comes back if the upstream does not say:
    `midnight:<zone>` or `month`. `certain`: False for rules that go by a bare status; one such failure takes no key out of service for good.
    """

    kind: FailureClass
    provider: str = ""
    status: frozenset[int] = frozenset()
    words: frozenset[str] = frozenset()
    text: re.Pattern[str] | None = field(default=None)
    cooldown: float | None = None
    resets: str = ""
    certain: bool = True

    def fits(self, provider: str, status: int, words: frozenset[str], message: str) -> bool:
        if (self.provider and self.provider != provider) or (self.status and status not in self.status):
            return False
        if self.words and not any(_fits(wanted, words) for wanted in self.words):
            return False
        return self.text is None or self.text.search(message) is not None


def _fits(wanted: str, words: frozenset[str]) -> bool:
    if wanted.endswith("*"):
        return any(word.startswith(wanted[:-1]) for word in words)
    return wanted in words


def _rule(kind: FailureClass, status: str = "", words: str = "", text: str = "", cooldown: float | None = None, resets: str = "", certain: bool = True) -> Rule:
    return Rule(
        kind,
        status=frozenset(int(part) for part in status.split()),
        words=frozenset(words.lower().split()),
        text=re.compile(text, re.I) if text else None,
        cooldown=cooldown,
        resets=resets,
        certain=certain,
    )


_C = FailureClass
_DAY: Final = 86_400.0

_OPENAI: Final = (
    _rule(_C.CONTENT, "400 403", "content_policy_violation moderation_blocked cyber_policy content_filter"),
    _rule(_C.CONTENT, "400", "invalid_prompt", r"policy|safety"),
    _rule(_C.CONFIG, "401 403", "unsupported_country_region_territory ip_not_authorized"),
    _rule(_C.CONFIG, "401 403", text=r"IP (address )?(is )?not authori[sz]ed|country, region,? or territory not supported|insufficient permissions|missing scopes"),
    _rule(_C.KEY_DEAD, "401 403", "invalid_api_key account_deactivated"),
    _rule(_C.KEY_DEAD, "401", text=r"incorrect api key|must be a member of an organi[sz]ation|account .*deactivated"),
    _rule(_C.KEY_FORBIDDEN_MODEL, "403 404", "model_not_found"),
    _rule(_C.KEY_FORBIDDEN_MODEL, "403 404", text=r"does not have access to model|model .*does not exist"),
    _rule(
        _C.BILLING,
        "400 402 403 429",
        "insufficient_quota billing_hard_limit_reached billing_not_active credit_balance_exhausted organization_spend_limit_exceeded "
        "project_spend_limit_exceeded organization_usage_limit_exceeded",
    ),
    _rule(_C.TOO_LARGE, "429", text=r"^request too large for"),
    _rule(_C.OVERLOAD, "503", "server_is_overloaded slow_down"),
    _rule(_C.RATE, "429 503", "rate_limit_exceeded slow_down requests tokens"),
)
_AZURE: Final = (
    _rule(_C.CONTENT, "400", "content_filter responsibleaipolicyviolation content_policy_violation"),
    _rule(_C.BILLING, "403", text=r"exceeded call volume|out of call volume quota"),
    _rule(_C.CONFIG, "403", text=r"virtual network|firewall|public access is disabled"),
    _rule(_C.KEY_DEAD, "401", text=r"invalid subscription key|wrong api endpoint|token (is )?expired|access denied"),
    _rule(_C.KEY_FORBIDDEN_MODEL, "404", "deploymentnotfound"),
    _rule(_C.CONFIG, "404", text=r"resource not found"),
    _rule(_C.OVERLOAD, "429", "nocapacity"),
    _rule(_C.RATE, "429", "ratelimitreached 429 too_many_requests"),
)
_ANTHROPIC: Final = (
    _rule(_C.KEY_DEAD, "400 403", "organization_on_hold"),
    _rule(_C.KEY_DEAD, "400 403", text=r"organi[sz]ation (has been disabled|is on hold)"),
    _rule(_C.BILLING, "400", text=r"credit balance is too low"),
    _rule(_C.BILLING, "400", text=r"reached your specified (workspace )?api usage limits", resets="month"),
    _rule(_C.BILLING, "402", "billing_error"),
    _rule(_C.BILLING, "429", "enforced_spend_limit_reached contract_spend_limit_reached", resets="month"),
    _rule(_C.CLIENT, "400 413", "request_too_large"),
    _rule(_C.KEY_DEAD, "401", "authentication_error"),
    _rule(_C.KEY_FORBIDDEN_MODEL, "403", "permission_error"),
    _rule(_C.KEY_FORBIDDEN_MODEL, "404", "not_found_error"),
    _rule(_C.OVERLOAD, "529 503 500 200", "overloaded_error", cooldown=15.0),
    _rule(_C.RATE, "429", "rate_limit_error ramp_limit_exceeded"),
    _rule(_C.TRANSIENT, "500 504", "api_error timeout_error"),
)
_GEMINI: Final = (
    _rule(_C.KEY_DEAD, "400 403", "api_key_invalid"),
    _rule(_C.KEY_DEAD, "400", text=r"api key (not valid|expired)"),
    _rule(_C.CONFIG, "400", "failed_precondition"),
    _rule(_C.BILLING, "402", "resource_exhausted"),
    _rule(_C.CONFIG, "403", "service_disabled"),
    _rule(_C.KEY_DEAD, "403", "permission_denied", r"leaked|suspended"),
    _rule(_C.KEY_DEAD, "403", "consumer_suspended api_key_service_blocked"),
    _rule(_C.KEY_FORBIDDEN_MODEL, "404", "not_found"),
    _rule(_C.KEY_FORBIDDEN_MODEL, "429", text=r"limit: 0\b", cooldown=_DAY),
    _rule(_C.QUOTA_WINDOW, "429", "quota_per_day", resets="midnight:America/Los_Angeles"),
    _rule(_C.RATE, "429", "resource_exhausted quota_per_minute"),
    _rule(_C.OVERLOAD, "503", "unavailable"),
    _rule(_C.TRANSIENT, "500 504", "internal deadline_exceeded"),
    _rule(_C.CLIENT, "400", "invalid_argument"),
)
_DEEPSEEK: Final = (
    _rule(_C.BILLING, "402"),
    _rule(_C.BILLING, "400 402 403 429", text=r"insufficient balance"),
    _rule(_C.KEY_DEAD, "401", "authentication_error"),
)
_MOONSHOT: Final = (
    _rule(_C.BILLING, "429 403", "exceeded_current_quota_error"),
    _rule(_C.BILLING, "403", text=r"insufficient balance"),
    _rule(_C.OVERLOAD, "429", "engine_overloaded_error", cooldown=10.0),
    _rule(_C.RATE, "429", "rate_limit_reached_error"),
    _rule(_C.CONTENT, "400", "content_filter"),
    _rule(_C.KEY_DEAD, "401", "invalid_authentication_error incorrect_api_key_error"),
    _rule(_C.KEY_FORBIDDEN_MODEL, "403 404", "permission_denied_error resource_not_found_error"),
)
_DASHSCOPE: Final = (
    _rule(_C.BILLING, "400 403 429", "arrearage insufficient_quota allocationquota.freetieronly"),
    _rule(_C.CONTENT, "400", "data_inspection_failed datainspectionfailed"),
    _rule(_C.KEY_DEAD, "401 403", "invalidapikey invalid_api_key"),
    _rule(_C.KEY_FORBIDDEN_MODEL, "403", "accessdenied accessdenied.unpurchased model.accessdenied access_denied"),
    _rule(_C.KEY_FORBIDDEN_MODEL, "400 404", "modelnotfound model_not_found model_not_supported"),
    _rule(_C.RATE, "429", "throttling throttling.ratequota throttling.allocationquota throttling.burstrate limit_requests limit_burst_rate"),
    _rule(_C.OVERLOAD, "500 503", "modelunavailable"),
    _rule(_C.TRANSIENT, "500 503", "internalerror* modelservingerror internal_error"),
)
_ZHIPU: Final = (
    _rule(_C.KEY_DEAD, words="1000 1001 1002 1003 1004 1005 1110 1111 1112 1120 1121"),
    _rule(_C.KEY_DEAD, words="1313", cooldown=_DAY),
    _rule(_C.BILLING, words="1113 1309"),
    _rule(_C.KEY_FORBIDDEN_MODEL, words="1311 1211 1220"),
    _rule(_C.RATE, words="1302 1303"),
    _rule(_C.QUOTA_WINDOW, words="1304 1308 1310", resets="midnight:Asia/Shanghai"),
    _rule(_C.OVERLOAD, words="1305 1312"),
    _rule(_C.CONTENT, words="1301"),
    _rule(_C.CLIENT, words="1210 1212 1213 1214 1215 1261"),
)
_OPENROUTER: Final = (
    _rule(_C.RATE, "402", "openrouter_in_flight_budget"),
    _rule(_C.BILLING, "402"),
    _rule(_C.QUOTA_WINDOW, "403", text=r"(key|budget|spend(ing)?) limit|limit exceeded", resets="midnight:UTC"),
    _rule(_C.CONTENT, "403", text=r"moderation|guardrail|flagged"),
    _rule(_C.KEY_DEAD, "401"),
    _rule(_C.OVERLOAD, "503"),
)
_GROQ: Final = (
    _rule(_C.TOO_LARGE, "413", text=r"tokens per minute|\bTPM\b"),
    _rule(_C.QUOTA_WINDOW, "429", text=r"per day|\b[TR]PD\b", resets="midnight:UTC"),
    _rule(_C.RATE, "429", "rate_limit_exceeded"),
    _rule(_C.OVERLOAD, "498"),
    _rule(_C.TRANSIENT, "400", "tool_use_failed json_validate_failed"),
)
_MISTRAL: Final = (
    _rule(_C.KEY_DEAD, "401"),
    _rule(_C.BILLING, "402"),
    _rule(_C.CLIENT, "422"),
    _rule(_C.OVERLOAD, "503"),
)
_XAI: Final = (
    _rule(_C.KEY_DEAD, "400 401", text=r"incorrect api key|invalid api key"),
    _rule(_C.BILLING, "403 429", text=r"credits|licen[cs]e|spending limit"),
    _rule(_C.CONTENT, "403", text=r"content|safety|usage guidelines"),
)
_VENDORS: Final[dict[str, tuple[Rule, ...]]] = {
    "openai": _OPENAI, "azure": _AZURE + _OPENAI, "anthropic": _ANTHROPIC, "gemini": _GEMINI, "deepseek": _DEEPSEEK, "moonshot": _MOONSHOT, "dashscope": _DASHSCOPE,
    "zhipu": _ZHIPU, "openrouter": _OPENROUTER, "groq": _GROQ, "mistral": _MISTRAL, "xai": _XAI,
}  # fmt: skip
# Other relays pass on whatever their upstreams say; their words are unmistakable enough to be read wherever they come from.
_GENERIC: Final = (
    _rule(_C.CONTENT, "400 403 422", "content_policy_violation content_filter responsibleaipolicyviolation moderation_blocked data_inspection_failed"),
    _rule(_C.BILLING, "402", certain=False),
    _rule(
        _C.BILLING,
        "400 403 429",
        "insufficient_quota billing_hard_limit_reached credit_balance_exhausted exceeded_current_quota_error insufficient_user_quota "
        "pre_consume_token_quota_failed arrearage insufficient_balance",
    ),
    _rule(_C.KEY_DEAD, "401 403", "invalid_api_key account_deactivated invalidapikey token_disabled token_expired"),
    _rule(_C.KEY_FORBIDDEN_MODEL, "403 404", "model_not_found model_not_allowed"),
    _rule(_C.CONFIG, "301 302 303 307 308"),
    _rule(_C.KEY_FORBIDDEN_MODEL, "404", text=r"\bmodel\b.*\b(not found|not exist|no access)"),
    _rule(_C.KEY_DEAD, "401", certain=False),
    _rule(_C.KEY_FORBIDDEN_MODEL, "403", cooldown=300.0, certain=False),
    _rule(_C.RATE, "429"),
    _rule(_C.OVERLOAD, "498 503 529"),
    _rule(_C.CLIENT, "400 404 405 406 410 411 413 414 415 416 417 422 424 428 431 451"),
)


def rules_of(provider: str) -> tuple[Rule, ...]:
    """The rules for a vendor's channel, in order."""
    return _VENDORS.get(provider, ()) + _GENERIC


def vendors() -> dict[str, tuple[Rule, ...]]:
    """The vendors that have rules of their own."""
    return dict(_VENDORS)
