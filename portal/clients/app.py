"""What is known of one client app: its files of settings, and what they have to say for the portal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from portal.clients.target import Target

Environment = Mapping[str, str]
Edit = Callable[[str, Target], str]  # the text of a file, empty where there is none, with what the portal needs in it


class CannotEdit(Exception):
    """A file cannot be edited without losing what is in it. The text says why."""


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """One file of an app."""

    place: Callable[[Environment, Path], Path]  # from the environment and the person's home folder
    edit: Edit  # raises CannotEdit


@dataclass(frozen=True, slots=True)
class ClientApp:
    """One app. Source of the facts in each file: the app's documentation, as named there."""

    key: str  # on the command line
    label: str
    files: Sequence[SettingsFile]
    # Variables of the environment that stand above its files, so that what is written has no effect.
    overrides: Sequence[str] = ()
    begin: str = ""  # the command that starts it
    # What CC Switch has to know to set the app up beside name and token, by its words; None: it cannot.
    imported: Callable[[Target], Mapping[str, str]] | None = None
