"""Runs the checks of an installation for a command, prints what they found, and exits with 1 if anything failed."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import click

from portal.cli import output
from portal.cli.startup import django_ready, follow_running
from portal.config import load
from portal.installation.command import here
from portal.installation.sources import ConfigError
from portal.services.database_errors import one_line_is_enough

_COLOURS: Final = {"pass": "green", "warn": "yellow", "fail": "red", "skip": "white"}
_SUMMARY: Final = (("passed", "Passed"), ("warnings", "Warnings"), ("failed", "Failed"), ("skipped", "Skipped"))


def show(title: str, as_json: bool, **wish: bool) -> None:
    """Check, print and exit. `wish`: the members of `portal.doctor.run.Wish`."""
    report = _without_settings() or _report(wish)
    if as_json:
        output.as_json(report)
    else:
        _print(title, report)
    sys.exit(0 if report["ok"] else 1)


def _without_settings() -> dict[str, Any] | None:
    """The report where there is nothing to check but the settings; None where Django can be set up."""
    try:
        config = load()
    except ConfigError as error:
        return _only("config", str(error), "Correct the setting; docs/configure.md lists every one.")
    folder = config.data_dir
    if not folder.is_dir():
        return _only(
            "data_dir", f"There is no data folder {_short(str(folder))} yet.", f"Run: {here('init', data_dir=folder)}"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        text = f"The data folder {_short(str(folder))} cannot be written."
        return _only("data_dir", text, "Give it to the user that runs the portal, or set AIRELAYS_DATA_DIR.")
    follow_running(config)
    one_line_is_enough()
    return None


def _only(name: str, message: str, step: str) -> dict[str, Any]:
    return {
        "ok": False,
        "summary": {"passed": 0, "warnings": 0, "failed": 1, "skipped": 0},
        "checks": [{"name": name, "status": "fail", "message": message, "next_steps": [step]}],
        "next_steps": [step],
    }


def _short(path: str) -> str:
    home = os.path.expanduser("~")  # noqa: PTH111  # stays as it is without a home folder
    return path.replace(home, "~") if len(home) > 1 else path


def _report(wish: dict[str, bool]) -> dict[str, Any]:
    """The report of all checks. On a terminal, stderr says what is being checked."""
    try:
        django_ready()
    except SystemExit:  # a key file is empty, or can be read by everybody; stderr has said so
        return _only("data_dir", "The keys in the data folder cannot be used.", "Do what the line above says.")
    from django.conf import settings

    from portal.doctor.run import Wish, run, silent

    told = _Line() if sys.stderr.isatty() else silent
    try:
        return run(settings.CONFIG, Wish(**wish), told).as_json()
    finally:
        if isinstance(told, _Line):
            told.clear()


class _Line:
    """One line on a terminal that says what is being checked."""

    def __init__(self) -> None:
        self._width = 0

    def __call__(self, stage: str, done: int) -> None:
        text = f"Checking: {stage} …"
        click.echo(f"\r{text:<{self._width}}", nl=False, err=True)
        self._width = len(text)

    def clear(self) -> None:
        click.echo(f"\r{' ' * self._width}\r", nl=False, err=True)


def _print(title: str, report: dict[str, Any]) -> None:
    output.title(title)
    output.section("Summary")
    for key, label in _SUMMARY:
        output.field(label, report["summary"][key])
    output.section("Checks")
    for check in report["checks"]:
        status = output.styled(f"{check['status']:<4}", fg=_COLOURS[check["status"]], bold=check["status"] == "fail")
        output.line(f"{status}  {check['name']}: {check['message']}")
    output.next_steps(report["next_steps"])
