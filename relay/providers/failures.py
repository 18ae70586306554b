"""Classes of upstream failures with their consequences, and rules that tell which failure is of which class. Pure data.

The first rule that fits counts: the administrator's own come first, then the vendor's (`relay.providers.vendors`), then
the generic ones below, which end with one for every status. Source of these: the errors that vendors and their SDKs
have in common, read in November 2026.
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
    # Found in the message; None: any message.
    text: re.Pattern[str] | None = None
    # Seconds, in place of the class's.
    cooldown: float | None = None
    # When a quota comes back if the upstream does not say: `midnight:<zone>` or `month`.
    resets: str = ""
    # False for rules that go by a bare status: one such failure takes no key out of service for good.
    certain: bool = True

    def fits(self, provider: str, status: int, words: frozenset[str], message: str) -> bool:
        """Whether a failure is of the rule's class. `words` in lower case."""
        if (self.provider and self.provider != provider) or (self.status and status not in self.status):
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
) -> Rule:
    """A rule as vendors' files write it.

    `status` and `words` are separated by spaces; `text` is a regular expression, without regard to case.
    """
    return Rule(
        kind,
        status=frozenset(int(part) for part in status.split()),
        words=frozenset(words.lower().split()),
        text=re.compile(text, re.I) if text else None,
        cooldown=cooldown,
        resets=resets,
    )


def _by_status(kind: FailureClass, status: str, cooldown: float | None = None) -> Rule:
    """A rule that goes by the bare status, and so is a guess."""
    return replace(rule(kind, status, cooldown=cooldown), certain=False)


# Other relays pass on whatever their upstreams say. These words are unmistakable enough to be read wherever they come
# from.
GENERIC: Final = (
    rule(
        FailureClass.CONTENT,
        "400 403 422",
        "content_policy_violation content_filter responsibleaipolicyviolation moderation_blocked "  # OpenAI, Azure
        "data_inspection_failed",  # DashScope
    ),
    _by_status(FailureClass.BILLING, "402"),
    rule(
        FailureClass.BILLING,
        "400 403 429",
        "insufficient_quota billing_hard_limit_reached credit_balance_exhausted exceeded_current_quota_error "
        "insufficient_user_quota pre_consume_token_quota_failed arrearage insufficient_balance",
    ),
    rule(
        FailureClass.KEY_DEAD,
        "401 403",
        "invalid_api_key account_deactivated invalidapikey token_disabled token_expired",
    ),
    rule(FailureClass.KEY_FORBIDDEN_MODEL, "403 404", "model_not_found model_not_allowed"),
    rule(FailureClass.CONFIG, "301 302 303 307 308"),
    rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", text=r"\bmodel\b.*\b(not found|not exist|no access)"),
    _by_status(FailureClass.KEY_DEAD, "401"),
    _by_status(FailureClass.KEY_FORBIDDEN_MODEL, "403", cooldown=300.0),
    rule(FailureClass.RATE, "429"),
    rule(FailureClass.OVERLOAD, "498 503 529"),
    rule(FailureClass.CLIENT, "400 404 405 406 410 411 413 414 415 416 417 422 424 428 431 451"),
)
