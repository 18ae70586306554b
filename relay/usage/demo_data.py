"""Seeds an empty portal with demo data for measuring or showing its pages: users, tokens, channels, models, requests.

Every request that cost something has its entry in the ledger, and wallets are topped up when they are empty, so the
ledger is consistent.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.contrib.auth.hashers import make_password
from django.db import connection, transaction

from accounts.models import User
from portal.lib import clock
from portal.lib.crypto import keyed_digest
from relay.billing.ledger.backfill import LedgerBackfill, insert_rows
from relay.billing.ledger.pending import COLUMNS
from relay.models import ApiKey, Channel, ChannelModel, Incident, Model, ModelPrice, Token, UsageRecord
from relay.models.incident import Severity
from relay.models.token import make_token_secret

_CHUNK: Final = 10_000  # requests of one transaction
_TOP_UP: Final = 25_000_000_000  # nano-USD
USER_PREFIX: Final = "seeded-"
_VENDORS: Final = (
    # name, provider, priority, number of keys
    ("OpenAI main", "openai", 20, 3),
    ("OpenAI spare", "openai", 10, 1),
    ("DeepSeek", "deepseek", 10, 1),
    ("Groq", "groq", 5, 1),
    ("Mistral", "mistral", 5, 1),
    ("OpenRouter", "openrouter", 0, 1),
)
_MODELS: Final = (
    # name, channels, input and output in USD per 1M, context window, abilities, first token in ms, share of the
    # requests
    ("gpt-5", (0, 1, 5), "1.25", "10", 400_000, ("chat", "vision", "tools", "structured_output", "reasoning"), 900, 14),
    (
        "gpt-5-mini",
        (0, 1),
        "0.25",
        "2",
        400_000,
        ("chat", "vision", "tools", "structured_output", "reasoning"),
        520,
        24,
    ),
    ("gpt-4o", (0, 1, 5), "2.5", "10", 128_000, ("chat", "vision", "tools", "structured_output"), 480, 16),
    ("deepseek-chat", (2, 5), "0.28", "0.42", 128_000, ("chat", "tools"), 700, 22),
    ("deepseek-reasoner", (2,), "0.28", "0.42", 128_000, ("chat", "reasoning"), 1400, 6),
    ("llama-3.3-70b", (3, 5), "0.59", "0.79", 131_072, ("chat", "tools"), 180, 9),
    ("mistral-large", (4,), "2", "6", 131_072, ("chat", "tools"), 420, 5),
    ("gpt-image-1", (0,), "5", "40", None, ("image_generation",), 9000, 2),
    ("text-embedding-3-small", (0, 1), "0.02", "0", 8_191, ("embeddings",), 120, 2),
)
_ENDS: Final = (
    # share per mille, end reason, status, code
    (965, "completed", 200, ""),
    (10, "client_gone", 499, ""),
    (8, "upstream_error", 502, "upstream_error"),
    (6, "client_error", 400, "invalid_value"),
    (4, "timeout", 504, "upstream_timeout"),
    (3, "no_channel", 503, "no_available_channel"),
    (3, "client_error", 429, "rate_limit_exceeded"),
    (1, "truncated", 200, "upstream_truncated"),
)
_ID, _USER, _TOKEN, _AT, _COST = (
    COLUMNS.index(name) for name in ("request_id", "user_id", "token_id", "started_at", "cost")
)


_APPS: Final = ("claude-code", "codex", "opencode", "openai-sdk")  # the last names no session
_TURNS: Final = 8  # of a session, on average


class NotEmpty(Exception):
    """The portal has users or requests, so it cannot be seeded."""


@dataclass(frozen=True, slots=True)
class SeedPlan:
    """How much demo data to create."""

    users: int
    tokens: int
    requests: int
    days: int  # that the requests are spread over


def seed(plan: SeedPlan, progress: Callable[[str, int], None] = lambda _what, _n: None, password: str = "") -> None:
    """Create the demo data. Raises NotEmpty. `progress` is called with the kind and number of rows created so far.

    `password` is that of every user; when empty nobody can sign in as one.
    """
    if UsageRecord.objects.exists() or User.objects.filter(is_superuser=False).exists():
        raise NotEmpty(
            "This portal has users or requests. Seed one that is new: set AIRELAYS_DATA_DIR to an empty folder."
        )
    rng = random.Random(20_261_123)  # noqa: S311  # the same data every time
    models = _catalog()
    progress("models", len(models))
    users = _users(plan, password)
    progress("users", len(users))
    tokens = _tokens(plan, users, rng)
    progress("tokens", len(tokens))
    made = 0
    backfill = LedgerBackfill(_TOP_UP)
    unlimited = {user.pk for number, user in enumerate(users) if number % 3 == 2}
    begin = clock.now() - timedelta(days=plan.days)
    for user in users:
        if user.pk not in unlimited:
            backfill.top_up(user.pk, begin)
    for rows in _chunks(plan, tokens, models, rng, unlimited):
        for row in rows:
            if row[_COST]:
                backfill.spend(row[_USER], row[_TOKEN], row[_AT], row[_COST], row[_ID], row[_USER] in unlimited)
        with transaction.atomic():
            insert_rows(UsageRecord._meta.db_table, COLUMNS, rows)
            backfill.write()
        made += len(rows)
        progress("requests", made)
    with transaction.atomic():
        backfill.write()
        backfill.create_accounts([(user.pk, user.pk not in unlimited) for user in users], tokens)
    if connection.vendor in {"sqlite", "postgresql"}:
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


def _catalog() -> list[tuple[Any, list[int], list[int]]]:
    """Create channels and models. Returns the models, each with the ids of its channels and of their first keys."""
    with transaction.atomic():
        channels, keys = [], []
        for name, provider, priority, count in _VENDORS:
            channel = Channel.objects.create(
                name=name,
                provider=provider,
                priority=priority,
                tags="seeded",
                test_ok=True,
                tested_at=clock.now(),
                test_latency_ms=420,
                test_message="It works.",
            )
            for number in range(count):
                key = ApiKey(channel=channel, label=f"key {number + 1}")
                key.set_secret(f"sk-seeded-{channel.pk}-{number}-0123456789abcdef")
                key.save()
            channels.append(channel)
            keys.append(channel.keys.order_by("pk")[0].pk)
        found = []
        for name, served, into, out, context, abilities, _first, _share in _MODELS:
            model = Model.objects.create(
                name=name,
                is_open=True,
                context_window=context,
                max_output_tokens=16_384 if context else None,
                abilities=list(abilities),
            )
            ModelPrice.objects.create(model=model, input=into, output=out, source="seeded")
            for index in served:
                ChannelModel.objects.create(channel=channels[index], model=model)
            found.append((model, [channels[index].pk for index in served], [keys[index] for index in served]))
        now = clock.now()
        Incident.objects.create(
            title="Groq answers slowly",
            severity=Severity.DEGRADED,
            text="Their status page speaks of a fault in one region. Requests go elsewhere where they can.",
            started_at=now - timedelta(hours=3),
        )
        Incident.objects.create(
            title="Move to a new database",
            severity=Severity.MAINTENANCE,
            started_at=now - timedelta(days=9),
            resolved_at=now - timedelta(days=9, minutes=-12),
        )
    return found


def _users(plan: SeedPlan, password: str) -> list[User]:
    """Create the users."""
    secret = make_password(password or None)
    users = [
        User(username=f"{USER_PREFIX}{number:05}", email=f"user{number}@example.org", password=secret)
        for number in range(plan.users)
    ]
    with transaction.atomic():
        User.objects.bulk_create(users, batch_size=1000)
    return users


def _tokens(plan: SeedPlan, users: list[User], rng: random.Random) -> list[tuple[int, int]]:
    """Create the tokens. Returns (token id, user id) pairs. As in a real portal, a few users have many tokens."""
    tokens = []
    for number in range(plan.tokens):
        user = users[number] if number < len(users) else users[int(len(users) * rng.random() ** 2)]
        token = Token(
            user=user,
            name=rng.choice(("laptop", "server", "editor", "bot", "phone")) + f" {number}",
            digest=keyed_digest(b"seed", str(number).encode()),
            hint=f"sk-seed…{number % 10_000:04}",
        )
        if number == 0:  # one that can be revealed
            token.set_secret(make_token_secret())
        tokens.append(token)
    with transaction.atomic():
        Token.objects.bulk_create(tokens, batch_size=1000)
    return [(token.pk, token.user_id) for token in tokens]


def _chunks(
    plan: SeedPlan,
    tokens: list[tuple[int, int]],
    models: list[tuple[Any, list[int], list[int]]],
    rng: random.Random,
    unlimited: set[int],
) -> Iterator[list[tuple[Any, ...]]]:
    """Yield chunks of usage records in the order of `COLUMNS`, oldest first. Recent days have more requests."""
    weights = [entry[7] for entry in _MODELS]
    ends = [end for end in _ENDS for _ in range(end[0])]
    now = clock.now()
    begin = now - timedelta(days=plan.days)
    prices = [(float(entry[2]), float(entry[3])) for entry in _MODELS]
    rows: list[tuple[Any, ...]] = []
    for number in range(plan.requests):
        place = (number / plan.requests) ** 0.8
        at = begin + timedelta(seconds=place * plan.days * 86_400 - rng.random() * 60)
        token, user = tokens[int(len(tokens) * rng.random() ** 3)]
        index = rng.choices(range(len(models)), weights)[0]
        model, channels, keys = models[index]
        route = 0 if len(channels) == 1 or rng.random() < 0.85 else rng.randrange(1, len(channels))
        _share, reason, status, code = rng.choice(ends)
        completed = reason == "completed"
        into = int(rng.lognormvariate(6.6, 1.1)) + 10
        cached = int(into * rng.random()) if rng.random() < 0.35 else 0
        out = int(rng.lognormvariate(5.2, 0.9)) if completed else 0
        cost = int((into * prices[index][0] + out * prices[index][1]) * 1000) if completed else 0
        first = int(_MODELS[index][6] * rng.lognormvariate(0, 0.45)) if completed else None
        rows.append(
            (
                f"req_{number:032x}",
                "",
                at,
                user,
                token,
                None if reason == "no_channel" else channels[route],
                None if reason == "no_channel" else keys[route],
                model.name,
                model.name,
                "chat.completions",
                rng.random() < 0.8,
                status,
                reason,
                code,
                "A made-up failure." if code else "",
                into if completed else 0,
                cached if completed else 0,
                0,
                out,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                "reported" if completed else "none",
                (first or 300) + out * 8,
                first,
                1,
                "[]",
                "203.0.113.7",
                None,
                1_000_000,
                cost,
                0,
                int(cost * 0.7),
                cost,
                ("house" if user in unlimited else "wallet") if cost else "",
                "usage" if completed else "nothing",
                0,
                0,
                *_session(token, number, len(tokens)),
                None,
                0,
            )
        )
        if len(rows) == _CHUNK:
            yield rows
            rows = []
    if rows:
        yield rows


def _session(token: int, number: int, tokens: int) -> tuple[int | None, int | None, int | None, str]:
    """The session, agent, its parent and the app of a request."""
    app = _APPS[token % len(_APPS)]
    if app == _APPS[-1]:
        return None, None, None, app
    session = token * 1_000_000 + number // (_TURNS * tokens) + 1
    agent = number % 3 if number % 2 else 0  # the second is of the first
    first = session * 10 + 1
    return session, session * 10 + agent if agent else None, first if agent == 2 else None, app
