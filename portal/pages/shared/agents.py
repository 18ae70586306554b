"""Settings of coding agents, as `manage.py connect` writes them, and links with which CC Switch takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from django.utils.translation import gettext as _

from portal.clients.app import CannotEdit, ClientApp
from portal.clients.apps import APPS
from portal.clients.cc_switch import import_link
from portal.clients.offered import chat_models
from portal.clients.target import OfferedModel, Target
from portal.pages.shared.snippets import Snippet
from relay.catalog.offers import Offer

_HOME: Final = Path("~")
_MOST_MODELS: Final = 20  # in a file to copy: some agents are told each model


def agent_target(address: str, token: str, model: str, offers: Iterable[Offer]) -> Target:
    """What the agents of a user are connected to. `model`: that they begin with."""
    models = chat_models(offers) or [OfferedModel(model)]
    return Target(address, token, models, model)


def agent_snippets(target: Target) -> list[Snippet]:
    """The files of each agent, as they are where there are none yet."""
    return [snippet for app in APPS.values() for snippet in _files(app, target)]


def _files(app: ClientApp, target: Target) -> list[Snippet]:
    shown = replace(target, models=_few(target))
    found = []
    for number, file in enumerate(app.files):
        place = file.place({}, _HOME)
        try:
            text = file.edit("", shown)
        except CannotEdit:  # the model's name cannot be written in such a file
            return []
        key = f"{app.key}-{number}" if number else app.key
        title = f"{app.label}: {place.name}" if len(app.files) > 1 else app.label
        found.append(Snippet(key, title, text, note=_note(app.key), where=str(place)))
    return found


def _few(target: Target) -> Sequence[OfferedModel]:
    """The model that an agent begins with, those that it would choose by their names, and more of them."""
    wanted = {target.model, *(target.like(word) for word in ("opus", "sonnet", "haiku", "gemini"))}
    first = [one for one in target.models if one.name in wanted]
    return [*first, *(one for one in target.models if one.name not in wanted)][:_MOST_MODELS]


def _note(app: str) -> str:
    if app == "codex":
        return _("For Codex 0.156 and later. Before that, leave out model_catalog_url and [features].")
    if app == "claude":
        return _("Its list of models has those whose names begin with “claude”; others can have such further names.")
    if app == "gemini":
        return _("It reads its files in folders that you trust.")
    return ""


def import_links(target: Target) -> list[tuple[str, str]]:
    """The names of the agents, and the links that set them up in CC Switch. They have the token in them."""
    return [(app.label, link) for app in APPS.values() if (link := import_link(app, target))]
