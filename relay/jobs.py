"""Scheduled jobs: proofs of the ledger, tests of disabled keys, regular channel tests, balances and model lists.

Run by servers or by `manage.py jobs`, one runner at a time: the one that holds the lease. It is renewed before each
job, so a runner that dies loses it after two and a half minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from django.conf import settings
from django.db import connection
from django.db.models import F, Q
from django.utils.translation import gettext as _

from portal.lib import clock
from portal.lib.redaction.redact import redact
from relay.billing.ledger import proofs
from relay.channels import health_checks
from relay.channels.bills import reports
from relay.channels.chatgpt_accounts.sign_in import refresh_models as refresh_plan_models
from relay.channels.keys import notify_staff, postpone
from relay.channels.upstream_prices import refresh_prices
from relay.models import ApiKey, BillingKey, Channel, ChatGPTAccount, JobFault, Lease
from relay.models.notice import NoticeKind
from relay.providers.vendors import BUILT_IN
from relay.usage.caches.drops import Drop, drops, is_due

logger: Final = logging.getLogger(__name__)
JOBS_LEASE: Final = "jobs"
JOBS_LEASE_SECONDS: Final = 150.0  # longer than one test may take


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """A job that is due."""

    name: str
    subject: str
    run: Callable[[], str]  # returns the outcome as a text


@dataclass(frozen=True, slots=True)
class JobResult:
    """A job that has been run."""

    name: str
    subject: str
    outcome: str
    seconds: float


def run_once(stopping: Callable[[], bool] = lambda: False) -> None:
    """Run the due jobs unless another runner does, and close the database connection."""
    try:
        run_due_jobs(stopping)
    finally:
        connection.close()


def run_due_jobs(stopping: Callable[[], bool] = lambda: False) -> list[JobResult] | None:
    """Run the due jobs; returns None when another runner holds the lease."""
    if not acquire_lease():
        return None
    done = []
    for job in due_jobs():
        if stopping() or not acquire_lease():
            break
        began = time.monotonic()
        try:
            outcome = job.run()
        except Exception as error:  # a failing channel must not prevent the jobs of the others
            logger.exception("%s of %s failed", job.name, job.subject)
            outcome = f"failed: {type(error).__name__}"
            _failed(job, error)
        else:
            JobFault.objects.filter(name=job.name, subject=job.subject[:120]).delete()
        done.append(JobResult(job.name, job.subject, outcome, round(time.monotonic() - began, 2)))
    return done


def _failed(job: ScheduledJob, error: Exception) -> None:
    """Record a failed job. The admin's front page shows it until the job succeeds."""
    text = redact(f"{type(error).__name__}: {error}")[:300]
    try:
        fault, made = JobFault.objects.get_or_create(name=job.name, subject=job.subject[:120], defaults={"text": text})
        if not made:
            fault.text, fault.times = text, fault.times + 1
            fault.save()
    except Exception:  # an upstream's text may contain what the database refuses; the other jobs continue
        logger.exception("the failure of %s of %s could not be saved", job.name, job.subject)


def acquire_lease() -> bool:
    """Acquire or renew the lease; returns False when another runner holds it."""
    return Lease.hold(JOBS_LEASE, JOBS_LEASE_SECONDS)


def release_lease() -> None:
    """Release the lease, so that another runner can begin at once."""
    Lease.release(JOBS_LEASE)


def due_jobs() -> Iterator[ScheduledJob]:
    """The jobs that are due, the most urgent first. Read one by one: each may take a minute."""
    now = clock.now()
    if proofs.is_proof_due():
        yield ScheduledJob("proof of the books", "the ledger", _start_proof)
    if is_due():
        yield ScheduledJob("cache hit shares", "channels and models", _tell_drops)
    for key in ApiKey.objects.filter(enabled=True, channel__enabled=True, next_test_at__lte=now).select_related(
        "channel"
    ):
        what = "out of service" if key.auto_disabled else "under suspicion"
        yield ScheduledJob(f"test of a key that is {what}", f"{key.channel}: {key}", _retest(key))
    for channel in (
        Channel.objects.filter(enabled=True).exclude(test_every=0).order_by(F("tested_at").asc(nulls_first=True))
    ):
        minutes = channel.test_every if channel.test_every is not None else settings.CONFIG.probe_minutes
        if minutes and (channel.tested_at is None or channel.tested_at <= now - timedelta(minutes=minutes)):
            yield ScheduledJob("test", str(channel), _test(channel))
    if settings.CONFIG.refresh_hours:
        before = now - timedelta(hours=settings.CONFIG.refresh_hours)
        for channel in Channel.objects.filter(Q(listed_at=None) | Q(listed_at__lte=before), enabled=True).exclude(
            provider__in=BUILT_IN
        ):
            yield ScheduledJob("model list and balance", str(channel), _refresh(channel))
        due = Q(listed_at=None) | Q(listed_at__lte=before)
        for account in ChatGPTAccount.objects.filter(due, state="signed_in", enabled_at__isnull=False):
            yield ScheduledJob("models of a ChatGPT plan", f"sign-in {account.pk}", _refresh_plan(account))

        for billing in BillingKey.objects.filter(Q(asked_at=None) | Q(asked_at__lte=before), channel__enabled=True):
            yield ScheduledJob("bills of an upstream", str(billing.channel), partial(reports.compare, billing))


def _refresh_plan(account: ChatGPTAccount) -> Callable[[], str]:
    return lambda: "models listed" if refresh_plan_models(account) else "no model list"


def _start_proof() -> str:
    return f"proof {proofs.start_proof().pk} begun"


def _tell_drops() -> str:
    """Tell staff of what has fallen, once a day for each channel and model."""
    found = drops()
    for one in found:
        key = f"cache:{one.kind}:{one.key}"[:80]
        notify_staff(NoticeKind.CACHE_SHARE, f"{key}:{one.day}", partial(_drop_text, one), _drop_data(one))
    return f"{len(found)} fallen"


def _drop_text(drop: Drop) -> tuple[str, str]:
    values = {"name": drop.name, "now": drop.today.text, "before": drop.week.text}
    if drop.kind == "channel":
        subject = _("Less comes from the prompt caches of the channel “%(name)s”") % values
        text = _(
            "%(now)s of the tokens of prompts at the channel “%(name)s” came from caches today, %(before)s before."
        )
    else:
        subject = _("Less comes from the prompt caches of the model “%(name)s”") % values
        text = _("%(now)s of the tokens of prompts of the model “%(name)s” came from caches today, %(before)s before.")
    advice = _(
        "“Before” is the seven days until yesterday. The page Caches says which conversations left a warm cache, and "
        "why; otherwise apps may have changed the beginning of their prompts."
    )
    return subject, f"{text % values} {advice}"


def _drop_data(drop: Drop) -> dict[str, object]:
    percents = {"today_percent": drop.today.percent, "week_percent": drop.week.percent}
    return {drop.kind: drop.name, **{name: round(value or 0.0, 1) for name, value in percents.items()}}


def _retest(key: ApiKey) -> Callable[[], str]:
    def retest() -> str:
        model = health_checks.model_for_tests(key.channel)
        if model is None:
            if key.auto_disabled:
                postpone(key)
            else:
                ApiKey._base_manager.filter(pk=key.pk, auto_disabled="").update(next_test_at=None)
            return "the channel serves no model to test with"
        result = health_checks.test_key(key.channel, key, model)
        return "passed, in service" if result.ok else result.message

    return retest


def _test(channel: Channel) -> Callable[[], str]:
    return lambda: health_checks.test_channel(channel, None).message


def _refresh(channel: Channel) -> Callable[[], str]:
    def refresh() -> str:
        listed = health_checks.refresh_models(channel)
        balances = health_checks.refresh_balances(channel)
        prices = refresh_prices(channel)
        priced = f", {prices} price(s) changed" if prices else ""
        return f"{'models listed' if listed else 'no model list'}, {balances} balance(s){priced}"

    return refresh
