"""Two people at one form: every form that saves over stored values merges what both have changed, or tells."""

from __future__ import annotations

import html
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, Final

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db.models import Model
from django.forms import BaseForm
from django.test import Client, RequestFactory

import accounts
import portal
import relay
from accounts.merging import FIELD, Merging, MergingFormSet
from accounts.models import GroupSettings, User
from relay.models import Channel
from relay.models import Model as RelayModel
from tests.support.pages.filled import filled
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared
# Forms that save nothing over what another person may have changed meanwhile, with the reason.
HARMLESS: Final = {
    "accounts.sign_in.forms.ChangeEmailForm": "proposes an address, which is proved afterwards",
    "accounts.sign_in.forms.ConfirmEmailForm": "proves an address",
    "accounts.sign_in.forms._OffersToEndKeys": "is part of the next two",
    "accounts.sign_in.forms.ChangePasswordForm": "changes a password, against the one before",
    "accounts.sign_in.forms.SetPasswordForm": "sets a first password",
    "accounts.sign_in.forms.ResetPasswordKeyForm": "sets a password, by a link that holds once",
    "accounts.sign_in.forms.LoginForm": "signs in",
    "accounts.sign_in.forms.SignupForm": "makes an account",
    "portal.pages.shared.forms.OwnTokenForm": "makes a token",
    "relay.admin.channels.guide.people.SetupUserForm": "makes an account",
    "relay.admin.channels.model.GptForm": "makes models",
    "relay.admin.channels.guide.channel.SetupChannelForm": "makes a channel",
    "relay.admin.people.user.AmountForm": "books an amount, once",
}


def forms_of(base: type[BaseForm]) -> Iterator[type[BaseForm]]:
    for form in base.__subclasses__():
        yield form
        yield from forms_of(form)


def rows_shown(client: Client) -> Iterator[tuple[Any, Model]]:
    """The pages of all models that somebody may change, with a row."""
    for model, page in site._registry.items():
        row = model._default_manager.first()
        if row is not None:
            yield page, row


def merges(formset: Any) -> bool:
    return issubclass(formset, MergingFormSet) and issubclass(formset.form, Merging)


@pytest.fixture
def seeded(db: None) -> User:
    call_command("seed", users=2, tokens=4, requests=10, days=1)
    return User.objects.create_superuser("page-admin", password="a long password")


def test_every_form_of_the_admin_knows_what_it_showed(seeded: User) -> None:
    client = signed_in(seeded)
    looked, wrong = 0, []
    for page, row in rows_shown(client):
        meta = page.model._meta
        answer = client.get(f"/admin/{meta.app_label}/{meta.model_name}/{row.pk}/change/")
        if answer.status_code != 200 or "adminform" not in (answer.context or {}):
            continue
        sent, context = filled(answer.content.decode()), answer.context
        form = context["adminform"].form
        if context["has_change_permission"] and form.fields:
            looked += 1
            wrong += [] if isinstance(form, Merging) and sent.get(FIELD) else [f"{meta.label}: the form"]
        for inline in context["inline_admin_formsets"]:
            formset = inline.formset
            if inline.has_change_permission:
                looked += 1
                told = merges(type(formset))
                wrong += [] if told and sent.get(f"{formset.prefix}-{FIELD}") else [f"{meta.label}: {inline.opts}"]
    assert not wrong and looked > 12, (looked, wrong)


def test_every_list_and_inline_of_the_admin_knows_what_it_showed(seeded: User) -> None:
    request = RequestFactory().get("/")
    request.user = seeded
    looked, wrong = 0, []
    for model, page in site._registry.items():
        if page.has_change_permission(request):
            looked += 1
            wrong += (
                []
                if issubclass(page.get_form(request, model._default_manager.first(), change=True), Merging)
                else [str(page)]
            )
        if page.list_editable:
            looked += 1
            formset = page.get_changelist_formset(request)
            wrong += [] if merges(formset) else [str(page)]
        for inline in page.get_inline_instances(request):
            looked += 1
            formset = inline.get_formset(request)
            wrong += [] if merges(formset) else [str(inline)]
    assert not wrong and looked > 20, (looked, wrong)


def test_every_other_form_merges_or_saves_over_nothing(db: None) -> None:
    """Forms of the admin are made to merge by their pages."""
    for package in (accounts, portal, relay):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            left_out = ("portal.management.commands", "portal.services.mysql")  # whose driver may not be there
            if ".migrations" not in module.name and not module.name.startswith(left_out):
                importlib.import_module(module.name)
    wrong = []
    for form in set(forms_of(BaseForm)):
        name = f"{form.__module__}.{form.__qualname__}"
        if form.__module__.partition(".")[0] not in {"accounts", "portal", "relay"} or issubclass(form, Merging):
            continue
        # What the pages of the admin show is looked at above.
        if name not in HARMLESS and not form.__module__.startswith(("accounts.admin", "relay.admin")):
            wrong.append(name)
    assert not wrong, f"{wrong}: take Merging as a base, or say in HARMLESS what they do"


def test_settings_of_a_group(seeded: User) -> None:
    client, group = signed_in(seeded), Group.objects.create(name="office")
    url = f"/admin/auth/group/{group.pk}/change/"
    empty = client.get(url).content.decode()
    assert client.post(url, filled(empty, form_key=None, **{"settings-0-price_multiplier": "3"})).status_code == 302
    answer = client.post(url, filled(empty, form_key=None, **{"settings-0-member_rpm": "5"}))
    assert answer.status_code == 302, "opened before there was a row"
    settings = GroupSettings.objects.get(group=group)
    assert settings.price_multiplier == 3 and settings.member_rpm == 5
    older = client.get(url).content.decode()
    newer = filled(older, form_key=None, **{"settings-0-price_multiplier": "2", "settings-0-member_concurrency": "8"})
    assert client.post(url, newer).status_code == 302
    assert (
        client.post(url, filled(older, form_key=None, **{"settings-0-description": "people upstairs"})).status_code
        == 302
    )
    settings.refresh_from_db()
    assert settings.price_multiplier == 2 and settings.member_concurrency == 8
    assert settings.description == "people upstairs"
    told = client.post(url, filled(older, form_key=None, **{"settings-0-price_multiplier": "4"}))
    text = html.unescape(told.content.decode())
    assert told.status_code == 200 and "changed this to “2” since" in text and "you changed it to “4”" in text
    settings.refresh_from_db()
    assert settings.price_multiplier == 2
    assert client.post(url, filled(text, form_key=None)).status_code == 302
    settings.refresh_from_db()
    assert settings.price_multiplier == 4


def test_the_second_of_two_who_add_the_same_row_is_told(seeded: User) -> None:
    """Of each inline whose rows are unique within what they belong to."""
    client, user = signed_in(seeded), User.objects.create_user("shared")
    model = RelayModel.objects.create(name="closed-model")
    channel = Channel.objects.first()
    assert channel is not None
    served = RelayModel.objects.create(name="served-model")
    for url, prefix, new in (
        (f"/admin/accounts/user/{user.pk}/change/", "budgets", {"period": "week", "limit": "3"}),
        (f"/admin/accounts/user/{user.pk}/change/", "model_permissions", {"model": model.pk}),
        (f"/admin/relay/channel/{channel.pk}/change/", "served", {"model": served.pk, "enabled": "on"}),
    ):
        empty = client.get(url).content.decode()
        count = int(filled(empty)[f"{prefix}-TOTAL_FORMS"][0])
        row = {f"{prefix}-TOTAL_FORMS": str(count + 1), f"{prefix}-{count}-id": ""}
        row |= {f"{prefix}-{count}-{name}": str(value) for name, value in new.items()}
        assert client.post(url, filled(empty, form_key=None, **row)).status_code == 302, prefix
        told = client.post(url, filled(empty, form_key=None, **row))
        assert told.status_code == 200 and "already" in told.content.decode(), prefix
