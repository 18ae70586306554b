"""Runs the checks of an installation, one subject after the other. Synchronous; takes a minute or two at most."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from portal.config import Config
from portal.doctor import clock, configuration, data_folder, database, port, records, response, upstreams
from portal.doctor.deployment import address, machine, proxy
from portal.doctor.report import Check, Report, told

logger: Final = logging.getLogger(__name__)
Tell = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a run."""

    response: bool = True  # make one real request, which may cost something
    with_costs: bool = True  # say what upstreams charge
    upstreams: bool = True  # reach them
    deployment: bool = False  # look at the machine, and come in by the public address


def silent(stage: str, done: int) -> None:
    """Tell nobody how far a run is."""


def run(config: Config, wish: Wish, tell: Tell = silent) -> Report:
    """All checks. A failing one keeps no other from being made; what needs a database is skipped without one.

    `tell` is called with what is checked now and how many results there are.
    """
    report, found, began = Report(), upstreams.Found(), clock.Beginning()

    def add(name: str, stage: str, checks: Callable[[], Iterable[Check]]) -> bool:
        """Make the checks of one subject. Returns whether none failed."""
        tell(_(stage), len(report.checks))
        before = len(report.checks)
        try:
            for check in checks():
                report.checks.append(check)
                tell(_(stage), len(report.checks))
        except Exception as error:  # an oddity in one place must not hide what is wrong in the others
            logger.exception("the check %s failed", name)
            text = _("This could not be checked: %(why)s.") % {"why": told(error)}
            report.checks.append(Check(name, "fail", text, (_("Send this report to support."),)))
        return not any(check.status == "fail" for check in report.checks[before:])

    add("config", gettext_noop("Settings"), lambda: configuration.configuration(config))
    add("environment", gettext_noop("Settings"), lambda: configuration.environment(config))
    add("data_dir", gettext_noop("Data folder"), lambda: data_folder.data_folder(config))
    add("port", gettext_noop("Port"), lambda: port.port(config))
    if wish.deployment:
        add("machine", gettext_noop("Machine"), lambda: machine.machine(config))
    usable = add("database", gettext_noop("Database"), lambda: database.database(config))
    add("redis", "Redis", lambda: database.shared_state(config))
    if wish.deployment:
        _deployment(config, add)
    if not usable:
        text = _("Not checked: the database cannot be used.")
        left = ("relay_token", "books", "upstream_auth", "response")[: 4 if wish.upstreams else 2]
        report.checks += [Check(name, "skip", text) for name in left]
        return report
    reaching = gettext_noop("Upstreams")
    add("workers", gettext_noop("Processes"), lambda: records.workers(config))
    add("relay_token", gettext_noop("Tokens"), lambda: records.tokens(config))
    add("books", gettext_noop("Books"), lambda: records.books(config))
    if not wish.upstreams:
        return report
    add("upstream_auth", reaching, partial(upstreams.upstreams, config, found, lambda s: tell(s, len(report.checks))))
    add("plan_sign_ins", reaching, lambda: records.plans(config))
    add("clock", gettext_noop("Clock"), lambda: clock.clock(began, found.skews))
    asked = partial(response.response, found.working, wish.response, wish.with_costs)
    add("response", gettext_noop("One request"), asked)
    return report


def _deployment(config: Config, add: Callable[[str, str, Callable[[], Iterable[Check]]], bool]) -> None:
    """The servers beside the portal, and the way by which users come in."""
    add("servers", gettext_noop("Database"), lambda: machine.servers(config))
    if not config.public_url:  # the check of the settings warns of that, where others reach the portal
        add("public_address", gettext_noop("Public address"), lambda: [address.not_set()])
        return
    public = address.Public(config.public_url)
    add("public_address", gettext_noop("Public address"), lambda: address.public_address(config, public))
    add("proxy", gettext_noop("Proxy"), lambda: proxy.proxy(config, public))
