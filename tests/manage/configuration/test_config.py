"""Configurations in text: what is exported, what a plan says, that apply makes exactly that, by whom, or nothing."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.http import HttpRequest

from accounts.models import AuditEvent, User
from portal.cli.errors import Refusal
from portal.cli.people import user_named
from relay.manage.configuration.apply import NotApplied, apply
from relay.manage.configuration.document import BadDocument, NoSecret, read, secret_of, write
from relay.manage.configuration.export import export
from relay.manage.configuration.plan import make_plan
from relay.manage.requests.problems import Forbidden
from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPermission, ModelPrice, Pool
from tests.manage.scripts import request_of
from tests.support.portal import People

pytestmark = pytest.mark.shared

WHOLE = """
[[pools]]
name = "official"
strategy = "round_robin"

[[groups]]
name = "team"
price_multiplier = "0.8"
max_rpm = 60

[[models]]
name = "chat"
is_open = true
context_window = 128000
further_names = ["chat-latest"]

[[models]]
name = "draw"

[[channels]]
name = "OpenAI"
provider = "openai"
priority = 5
pool = "official"
groups = ["team"]
models = ["chat = gpt-4o", "draw"]
cost_multiplier = "0.9"

[[channels.keys]]
label = "main"
secret = "env:THE_KEY"
weight = 3

[[prices]]
model = "chat"
input = "2.5"
output = "10"

[[prices]]
model = "chat"
purpose = "cost"
channel = "OpenAI"
input = "2"
output = "8"

[[permissions]]
model = "draw"
group = "team"
"""
SECRET = "sk-proj-0123456789abcdefghij"


@pytest.fixture
def boss(people: People, monkeypatch: pytest.MonkeyPatch) -> HttpRequest:
    monkeypatch.setenv("THE_KEY", SECRET)
    return request_of(people.staff)


def lines(request: HttpRequest, text: str, **options: Any) -> list[str]:
    return [line for change in make_plan(request, read(text), **options).changes for line in change.lines()]


def test_a_whole_configuration_is_made_and_then_nothing_is_left_to_do(boss: HttpRequest) -> None:
    planned = lines(boss, WHOLE)
    assert "+ channel “OpenAI”" in planned and "    + model chat = gpt-4o" in planned and "    + key “main”" in planned
    assert not Channel.objects.exists(), "a plan changes nothing"
    apply(boss, read(WHOLE))
    channel = Channel.objects.get(name="OpenAI")
    assert (channel.priority, str(channel.pool), channel.groups_limited) == (5, "official", True)
    assert [group.name for group in channel.groups.all()] == ["team"] and channel.cost_multiplier == Decimal("0.9")
    assert {(one.model.name, one.upstream_name) for one in channel.served.all()} == {("chat", "gpt-4o"), ("draw", "")}
    key = channel.keys.get()
    assert (key.label, key.weight, key.secret_for(channel)) == ("main", 3, SECRET)
    assert Group.objects.get(name="team").settings.price_multiplier == Decimal("0.8")
    assert {(one.input, one.purpose) for one in ModelPrice.objects.all()} == {
        (Decimal("2.5"), "sale"),
        (Decimal(2), "cost"),
    }
    assert ModelPermission.objects.get().model.name == "draw"
    assert Model.objects.get(name="chat").aliases.get().name == "chat-latest"
    assert lines(boss, WHOLE) == []
    before = AuditEvent.objects.count()
    assert apply(boss, read(WHOLE)).changes == [] and AuditEvent.objects.count() == before


def test_what_is_exported_is_read_again_as_it_is_and_has_no_secret(boss: HttpRequest) -> None:
    apply(boss, read(WHOLE))
    Channel.objects.create(
        name='Odd "name" # = ü', provider="deepseek", notes="two\nlines", parameters={"seed": "drop"}
    )
    text = write(export(boss))
    assert SECRET not in text and "sk-proj" not in text
    found = tomllib.loads(text)
    assert {one["name"] for one in found["channels"]} == {"OpenAI", 'Odd "name" # = ü'}
    odd = next(one for one in found["channels"] if one["name"] != "OpenAI")
    assert not {"priority", "cost_multiplier"} & set(odd), "defaults are left out"
    assert make_plan(boss, read(text), prune=True).changes == []
    assert write(export(boss)) == text


def test_what_a_file_does_not_name_stays(boss: HttpRequest) -> None:
    apply(boss, read(WHOLE))
    plan = apply(boss, read('[[channels]]\nname = "OpenAI"\nweight = 7\n'))
    (change,) = plan.changes
    assert [*change.lines()] == ["~ channel “OpenAI”", "    weight: 1 → 7"]
    channel = Channel.objects.get(name="OpenAI")
    assert (channel.weight, channel.priority, channel.served.count(), channel.keys.count()) == (7, 5, 2, 1)
    assert channel.groups.count() == 1 and plan.left == ["key “main” of channel “OpenAI”"]


def test_lists_are_whole_and_may_be_emptied(boss: HttpRequest) -> None:
    apply(boss, read(WHOLE))
    text = '[[channels]]\nname = "OpenAI"\nmodels = ["chat = gpt-4.1"]\ngroups = []\n'
    assert lines(boss, text) == [
        "~ channel “OpenAI”",
        '    groups: ["team"] → nothing',
        "    ~ model chat = gpt-4.1",
        "    - model draw",
    ]
    apply(boss, read(text))
    channel = Channel.objects.get(name="OpenAI")
    assert [(one.model.name, one.upstream_name) for one in channel.served.all()] == [("chat", "gpt-4.1")]
    assert channel.groups_limited, "a channel whose groups are gone is for nobody"
    apply(boss, read('[[channels]]\nname = "OpenAI"\ngroups_limited = false\n'))
    assert not Channel.objects.get(name="OpenAI").groups_limited


def test_a_refused_address_is_told_with_what_a_superuser_adds(boss: HttpRequest) -> None:
    """Not with a member of the management API, which no file has."""
    with pytest.raises(NotApplied, match=r"The entry that is missing there: “10\.0\.0\.5:80”") as refused:
        apply(boss, read('[[channels]]\nname = "L"\nprovider = "openai"\nbase_url = "http://10.0.0.5/v1"\n'))
    assert "allow_address" not in refused.value.message


def test_rows_that_only_stay_are_told_in_short(boss: HttpRequest, capsys: pytest.CaptureFixture[str]) -> None:
    Model.objects.bulk_create(Model(name=f"m{number:03}") for number in range(500))
    plan = make_plan(boss, read('[[models]]\nname = "new"\nis_open = true\n'))
    import_module("portal.cli.commands.config")._tell("Plan", plan, False)
    said = capsys.readouterr().out
    assert "is_open: true" in said and "“m000”, “m001”, “m002” and 497 more" in said and "m100" not in said


def test_of_several_superusers_one_is_named_with_an_option(boss: HttpRequest) -> None:
    User.objects.create_superuser("another")
    with pytest.raises(Refusal, match="Name one of them with --user: "):
        user_named(None)
    with pytest.raises(Refusal, match="Name one of them: "):
        user_named(None, "")


def test_prune_deletes_what_is_missing_of_the_sections_that_a_file_has(boss: HttpRequest) -> None:
    apply(boss, read(WHOLE))
    Channel.objects.create(name="Old", provider="openai")
    ApiKey.objects.create(channel=Channel.objects.get(name="OpenAI"), label="old", sealed="x")
    Pool.objects.create(name="other")
    text = '[[channels]]\nname = "OpenAI"\n\n[[channels.keys]]\nlabel = "main"\n'
    assert make_plan(boss, read(text)).changes == []
    plan = apply(boss, read(text), prune=True)
    assert [line for one in plan.changes for line in one.lines()] == [
        "~ channel “OpenAI”",
        "    - key “old”",
        "- channel “Old”",
    ]
    assert Channel.objects.count() == 1 and Pool.objects.count() == 2 and ApiKey.objects.get().label == "main"


def test_another_price_takes_the_place_of_the_last_one_and_history_stays(boss: HttpRequest) -> None:
    apply(boss, read(WHOLE))
    text = '[[prices]]\nmodel = "chat"\ninput = "3"\n'
    assert lines(boss, text) == ["~ price “chat, sale”", "    input: 2.5 → 3"]
    apply(boss, read(text))
    rows = ModelPrice.objects.filter(purpose="sale").order_by("valid_from", "pk")
    assert [(one.input, one.output) for one in rows] == [(Decimal("2.5"), Decimal(10)), (Decimal(3), Decimal(10))]
    assert lines(boss, text) == []
    assert make_plan(boss, read(text), prune=True).changes == [], "prices are never deleted"


def test_secrets_are_references_that_must_name_something_when_they_are_applied(
    boss: HttpRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    apply(boss, read(WHOLE))
    monkeypatch.delenv("THE_KEY")
    plan = make_plan(boss, read(WHOLE))
    assert plan.changes == [] and "env:THE_KEY" in plan.notes[0]
    with pytest.raises(NoSecret):
        apply(boss, read(WHOLE))
    path = tmp_path / "key"
    path.write_text("sk-proj-another-0123456789\n")
    text = WHOLE.replace("env:THE_KEY", f"file:{path}")
    assert lines(boss, text) == ["~ channel “OpenAI”", "    ~ key “main” (secret)"]
    apply(boss, read(text))
    channel = Channel.objects.get(name="OpenAI")
    assert channel.keys.get().secret_for(channel) == "sk-proj-another-0123456789"
    assert "another" not in str(list(AuditEvent.objects.values_list("detail", flat=True)))
    for reference in ("file:/no/such/file", f"file:{tmp_path}", "env:"):
        with pytest.raises(NoSecret):
            secret_of(reference)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "not TOML"),
        ("[[tokens]]\nname = 'a'", "no section “tokens”"),
        ("channels = 5", "[[channels]]"),
        ("[[channels]]\nprovider = 'openai'", "has no name"),
        ("[[channels]]\nname = 'a'\nprovder = 'openai'", "no member “provder”"),
        ("[[channels]]\nname = 'a'\n[[channels]]\nname = 'a'", "there twice"),
        ("[[channels]]\nname = 'a'\nkeys = [{label = 'x', secret = 'sk-123'}]", "does not stand in the file"),
        ("[[channels]]\nname = 'a'\nkeys = [{secret = 'env:A'}]", "by its label"),
        ("[[channels]]\nname = 'a'\nkeys = ['x']", "a key has the members"),
        ("[[channels]]\nname = 'a'\nmodels = ['gone']", "no entry “gone” of models"),
        ("[[channels]]\nname = 'a'\npool = 'gone'", "no entry “gone” of pools"),
        ("[[permissions]]\nmodel = 'gone'\ngroup = 'g'", "no entry “gone” of models"),
        ("[[channels]]\nname = 'a'\nmodels = 5", "list of texts"),
        ("[[channels]]\nname = 'a'\nkeys = [{label = 'x'}]", "Give it a secret"),
    ],
)
def test_a_file_that_cannot_be_is_told_with_the_place(boss: HttpRequest, text: str, said: str) -> None:
    with pytest.raises(BadDocument) as caught:
        make_plan(boss, read(text))
    assert said in caught.value.message and "sk-123" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[channels]]\nname = 'b'\nprovider = 'no-such'", "channel “b”"),
        ("[[channels]]\nname = 'b'\nprovider = 'openai'\nbase_url = 'http://169.254.169.254/v1'", "base_url"),
        ("[[channels]]\nname = 'b'\nprovider = 'openai'\nweight = 0", "weight"),
        ("[[models]]\nname = 'm'\ncontext_window = -1", "model “m”"),
        ("[[prices]]\nmodel = 'pool-model'\ninput = '-1'\noutput = '1'", "price “pool-model"),
    ],
)
def test_what_the_pages_refuse_is_refused_and_nothing_is_changed(boss: HttpRequest, text: str, said: str) -> None:
    Model.objects.create(name="pool-model")
    with pytest.raises(NotApplied) as caught:
        apply(boss, read(f"[[pools]]\nname = 'first'\n\n{text}"))
    assert said in caught.value.message
    assert not Pool.objects.exists() and not Channel.objects.exists()


def test_rights_are_those_of_the_person(people: People, boss: HttpRequest) -> None:
    apply(boss, read(WHOLE))
    clerk = User.objects.create_user("clerk", is_staff=True)
    for user in (people.owner, people.other, clerk):
        with pytest.raises(Forbidden):
            export(request_of(user))
        with pytest.raises(Forbidden):
            apply(request_of(user), read('[[pools]]\nname = "mine"\n'))
    see = ("view_pool", "view_group", "view_model", "view_channel", "view_modelprice", "view_modelpermission")
    clerk.user_permissions.set(Permission.objects.filter(codename__in=see))
    reader = request_of(User.objects.get(pk=clerk.pk))
    text = write(export(reader))
    assert "[[prices]]" in text and 'purpose = "cost"' not in text, "what upstreams charge is not seen"
    with pytest.raises(NotApplied):
        apply(reader, read('[[pools]]\nname = "mine"\n'))
    assert Pool.objects.count() == 1


def test_ten_thousand_models_take_a_few_queries(boss: HttpRequest, django_assert_max_num_queries: Any) -> None:
    channel = Channel.objects.create(name="Many", provider="openai")
    made = Model.objects.bulk_create([Model(name=f"model-{number}") for number in range(2000)])
    ChannelModel.objects.bulk_create([ChannelModel(channel=channel, model=model) for model in made])
    with django_assert_max_num_queries(60):
        text = write(export(boss))
    with django_assert_max_num_queries(120):
        assert make_plan(boss, read(text)).changes == []
