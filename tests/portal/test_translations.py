"""Every text is translated."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from django.test import Client
from django.utils import translation

from portal.lib.money import NANO
from relay.billing.redemption import create_codes
from tests.support.portal import People
from tests.support.server import ROOT
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def test_texts_are_all_translated_and_their_compiled_form_is_current() -> None:
    import polib

    languages = [folder.parent for folder in (ROOT / "portal" / "locale").glob("*/LC_MESSAGES")]
    assert [folder.name for folder in languages] == ["zh_Hans"]
    for language in languages:
        folder = language / "LC_MESSAGES"
        source, compiled = polib.pofile(str(folder / "django.po")), polib.mofile(str(folder / "django.mo"))
        assert [entry.msgid for entry in source if not entry.translated()] == []
        assert {entry.msgid: entry.msgstr for entry in source if not entry.msgid_plural} == {
            entry.msgid: entry.msgstr for entry in compiled if not entry.msgid_plural
        }
        for entry in source:
            if not entry.msgid_plural:
                names = re.findall(r"%\(\w+\)[sd]", entry.msgid)
                assert sorted(names) == sorted(re.findall(r"%\(\w+\)[sd]", entry.msgstr)), entry.msgid
                assert not names or not re.search(r"%(?!\()", entry.msgstr.replace("%%", "")), entry.msgid


ROOMS = (
    "accounts",
    "portal",
    "relay/admin",
    "relay/billing",
    "relay/catalog",
    "relay/channels",
    "relay/models",
    "relay/providers/parameters.py",
    "relay/tokens",
)
TRANSLATING = {"_", "gettext", "gettext_lazy", "gettext_noop", "ngettext", "ngettext_lazy", "pgettext", "pgettext_lazy"}
# Calls whose texts people read on pages, with how many arguments in front say something else.
SHOWN = {
    "ValidationError": 0,
    "add_error": 1,
    "message_user": 1,
    "AddressRefused": 0,
    "NotPublic": 0,
    "BadAddress": 0,
    "BadPolicy": 0,
    "NotRedeemable": 0,
    "NotEnough": 0,
    "ProbeResult": 1,
    "ModelList": 1,
    "PermissionDenied": 0,
    "Http404": 0,
    "JsonResponse": 0,
}
LEVELS = {"success", "info", "warning", "error"}  # of `messages`
WRITTEN_ON_PAGES = {"label", "help_text", "description", "empty_label", "verbose_name", "verbose_name_plural"}


def plain_texts(node: ast.AST | None) -> Iterator[str]:
    """Texts of an expression that no call translates.

    Keys, conditions and the values that are filled in do not count.
    """
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in TRANSLATING:
            return
        case ast.Constant(value=str(text)) if re.search(r"[A-Za-z]{2}", text):
            yield text
        case ast.JoinedStr() if any(
            isinstance(part, ast.Constant) and re.search("[A-Za-z]{2}", str(part.value)) for part in node.values
        ):
            yield ast.unparse(node)
        case ast.BinOp(op=ast.Mod()):
            yield from plain_texts(node.left)
        case ast.BinOp():
            yield from (text for side in (node.left, node.right) for text in plain_texts(side))
        case ast.Dict():
            yield from (text for value in node.values for text in plain_texts(value))
        case ast.List() | ast.Tuple():
            yield from (text for element in node.elts for text in plain_texts(element))
        case ast.IfExp():
            yield from (text for branch in (node.body, node.orelse) for text in plain_texts(branch))
        case ast.Subscript():
            yield from plain_texts(node.value)


def untranslated(source: str, models: bool = False) -> list[str]:
    """Texts that people read and that are in English for everybody.

    `models`: what these call their fields is translated elsewhere.
    """
    found: list[str] = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        first = SHOWN.get(name)
        if (
            isinstance(call.func, ast.Attribute)
            and isinstance(call.func.value, ast.Name)
            and call.func.value.id == "messages"
            and name in LEVELS
        ):
            first = 1
        if first is not None:
            found += [text for argument in call.args[first:] for text in plain_texts(argument)]
        if not models:  # a dict is of styles by value, not a text
            written = [
                keyword.value
                for keyword in call.keywords
                if keyword.arg in WRITTEN_ON_PAGES and not isinstance(keyword.value, ast.Dict)
            ]
            found += [text for value in written for text in plain_texts(value)]
    return found


@pytest.mark.parametrize(
    "source",
    [
        'raise forms.ValidationError("No spaces.")', (
            'ValidationError({"name": '
            'f"“{name}” is taken."})'
        ), 'form.add_error("name", "Taken.")',
        'messages.error(request, "It failed: %s" % error)', (
            'self.message_user(request, _("Done.") if done '
            'else "Failed.", messages.ERROR)'
        ),
        'raise NotRedeemable({"expired": "It has expired."}[state])', 'Field(label="Name")', (
            'AddressRefused("no '
            'host")'
        ), 'ProbeResult(False, "No key.")',
    ],
)  # fmt: skip
def test_a_plain_text_for_people_is_found(source: str) -> None:
    assert len(untranslated(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        'raise forms.ValidationError(_("No spaces."))', (
            'form.add_error("name", '
            'str(reason))'
        ), 'logger.error("the database is away")',
        'messages.error(request, _("%(name)s failed.") % {"name": "it" if x else "that"})', (
            'ValidationError({"name": '
            '_("Taken.")})'
        ),
        'raise AddressRefused(gettext_noop("no %(part)s"), part="host")', (
            'JsonResponse({"error": error}, '
            'status=404)'
        ), 'Http404',
    ],
)  # fmt: skip
def test_what_is_translated_or_for_machines_is_not_found(source: str) -> None:
    assert untranslated(source) == []


_FOR_TERMINALS: Final = ("portal/config.py", "portal/installation/open_relay.py", "portal/installation/settings/")


@pytest.mark.parametrize("room", ROOMS)
def test_no_text_for_people_is_in_plain_english(room: str) -> None:
    sources = [ROOT / room] if room.endswith(".py") else sorted((ROOT / room).rglob("*.py"))
    found = {}
    for path in sources:
        where = path.relative_to(ROOT)
        if {"migrations", "management", "serving"} & set(where.parts) or str(where).startswith(_FOR_TERMINALS):
            continue  # for terminals and machines
        if texts := untranslated(path.read_text(encoding="utf-8"), models="models" in where.parts):
            found[str(where)] = texts
    assert found == {}


@pytest.fixture
def own_language() -> Iterator[None]:
    """What a page activates ends with the test."""
    with translation.override(translation.get_language()):
        yield


def test_errors_of_forms_are_in_the_readers_language(people: People, own_language: None, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"upstream_allow": []})
    people.staff.language = people.owner.language = "zh-hans"
    for user in (people.staff, people.owner):
        user.save(update_fields=["language"])
    staff, owner = signed_in(people.staff), signed_in(people.owner)

    def page(client: Client, path: str, **form: str) -> str:
        return html.unescape(client.post(path, form).content.decode())

    address = "“nonsense” 既不是 IP 地址，也不是 10.0.0.0/8 这样的网络"
    assert address in page(owner, "/tokens/new/", name="x", allowed_ips="nonsense")
    assert address in page(
        staff, "/admin/relay/token/add/", name="x", user=str(people.owner.pk), allowed_ips="nonsense"
    )
    assert "“a b” 不是地址、网络或主机名" in page(staff, "/admin/relay/allowedupstream/add/", address="a b")
    url = page(owner, "/balance/notices/", webhook_url="http://10.0.0.1/")
    assert "10.0.0.1 不是公网地址。 Webhook 只能访问公网地址。" in url
    assert "URL 必须以 https:// 或 http:// 开头。" in page(owner, "/balance/notices/", webhook_url="ftp://example.org")
    assert "模型名称不能包含空格。" in page(staff, "/admin/relay/model/add/", name="a b")
    channel = {"name": "x", "provider": "openai", "parameters": '{"seed": "eat"}', "new_models": "a b"}
    shown = page(staff, "/admin/relay/channel/add/", **channel)
    assert "“eat” 不是可用的操作" in shown and "“a b” 不是模型名称。每行写一个。" in shown
    _batch, codes = create_codes("x", 5 * NANO, 1, actor=None)
    for _ in range(2):
        redeemed = page(owner, "/balance/", code=codes[0])
    assert "此兑换码已被兑换。" in redeemed
    path = f"/admin/accounts/user/{people.owner.pk}/deduct/"
    assert "最多只能扣除 $5.00" in page(staff, path, amount="9", reason="x")


@pytest.mark.django_db
@pytest.mark.parametrize(("accepted", "said"), [("en", "en"), ("zh-CN", "zh-hans")])
def test_an_error_page_says_which_language_it_is_in(accepted: str, said: str) -> None:
    answer = Client(HTTP_ACCEPT_LANGUAGE=accepted).get("/nothing-here/")
    assert answer.status_code == 404
    assert f'<html lang="{said}">' in answer.content.decode()
