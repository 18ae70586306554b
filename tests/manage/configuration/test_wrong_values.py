"""Values in a file that are of the wrong kind: each is told with its place, and none is taken for something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.http import HttpRequest

from relay.manage.configuration.apply import NotApplied, apply
from relay.manage.configuration.document import read
from relay.manage.configuration.export import export
from relay.manage.configuration.plan import make_plan
from relay.manage.requests.problems import Problem
from relay.models import ApiKey, Channel, Model
from tests.manage.scripts import request_of
from tests.support.portal import People

pytestmark = pytest.mark.shared


@pytest.fixture
def boss(people: People) -> HttpRequest:
    Channel.objects.create(name="c", provider="openai", base_url="https://upstream.example.org/v1", enabled=False)
    Model.objects.create(name="m", display_name="4.1")
    return request_of(people.staff)


MODEL, CHANNEL = '[[models]]\nname = "m"\n', '[[channels]]\nname = "c"\n'


@pytest.mark.parametrize(
    "text",
    [
        MODEL + 'is_open = "no"',
        MODEL + "is_open = 0",
        MODEL + "retires_on = 20261231",
        MODEL + "retires_on = 07:30:00",
        MODEL + "context_window = 1.5",
        MODEL + "context_window = 1979-05-27T07:32:00Z",
        MODEL + f"context_window = {10**30}",
        MODEL + "display_name = 5",
        MODEL + "display_name = ['x']",
        MODEL + "display_name = 'a\\u0000b'".replace("'", '"'),
        MODEL + "further_names = 'x'",
        MODEL + "further_names = [5]",
        MODEL + "abilities = 'chat'",
        CHANNEL + 'enabled = "off"',
        CHANNEL + "keys = 5",
        CHANNEL + "keys = 'main'",
        CHANNEL + "[[channels.keys]]\nlabel = 5\nsecret = 'env:X'",
        CHANNEL + "[[channels.keys]]\nlabel = 'x'\nenabled = 'no'\nsecret = 'env:X'",
        CHANNEL + "[[channels.keys]]\nlabel = 'x'\nweight = 'much'\nsecret = 'env:X'",
        CHANNEL + "[[channels.keys]]\nlabel = 'x'\nsecret = 'env:X'\n[[channels.keys]]\nlabel = 'x'\nsecret = 'env:Y'",
        CHANNEL + "groups = [['x']]",
        CHANNEL + "groups = 'x'",
        CHANNEL + "pool = ['x']",
        CHANNEL + "pool = 5",
        CHANNEL + "weight = nan",
        CHANNEL + "models = 'm'",
        CHANNEL + "models = ['two words']",
        CHANNEL + "parameters = 1979-05-27",
        "[[prices]]\nmodel = 'm'\nchannel = ['c']\ninput = '1'\noutput = '1'",
        "[[prices]]\nmodel = 'm'\nabove_tokens = {}\ninput = '1'\noutput = '1'",
        "[[prices]]\nmodel = 'm'\ninput = nan\noutput = '1'",
        "[[prices]]\nmodel = 'm'\ninput = true\noutput = '1'",
        "[[prices]]\nmodel = 'm'\ninput = 'cheap'\noutput = '1'",
        "[[permissions]]\nmodel = 'm'\nuser = ['alice']",
        "[[permissions]]\nmodel = 'm'\nuser = 5",
        "[[permissions]]\nmodel = 'm'\nuser = 'alice'\nexpires_at = 07:30:00",
        "[[groups]]\nname = 'g'\nprice_multiplier = inf",
        "[[groups]]\nname = 'g'\nis_default = 'false'",
    ],
)
def test_a_value_of_another_kind_is_refused_before_anything_is_done(boss: HttpRequest, text: str) -> None:
    with pytest.raises(Problem) as told:
        make_plan(boss, read(text))
    assert any(word in str(told.value) for word in ("“m”", "“c”", "“g”", "channels.keys", "entry of"))


def test_texts_that_look_like_numbers_are_texts(boss: HttpRequest) -> None:
    apply(boss, read(MODEL + "display_name = '4.10'"))
    assert Model.objects.get(name="m").display_name == "4.10"


def test_keys_of_the_same_label_are_told_apart_by_their_ends(boss: HttpRequest, tmp_path: Path) -> None:
    channel = Channel.objects.get(name="c")
    for secret in ("sk-proj-0123456789aaaa", "sk-proj-0123456789bbbb"):
        key = ApiKey(channel=channel, label="main")
        key.set_secret(secret)
        key.save()
    keys = export(boss)["channels"][0]["keys"]
    assert [sorted(one) for one in keys] == [["hint"], ["hint"]]
    named = f"[[channels.keys]]\nhint = '{keys[0]['hint']}'\nweight = 7"
    apply(boss, read(CHANNEL + named))
    assert sorted(channel.keys.values_list("weight", flat=True)) == [1, 7]
    with pytest.raises(Problem, match="several"):
        make_plan(boss, read(CHANNEL + "[[channels.keys]]\nlabel = 'main'\nweight = 9"))


def test_a_labelled_key_may_be_named_by_its_ends(boss: HttpRequest) -> None:
    key = ApiKey(channel=Channel.objects.get(name="c"), label="main")
    key.set_secret("sk-proj-0123456789aaaa")
    key.save()
    named = f"[[channels.keys]]\nhint = '{key.hint}'\nweight = 7"
    plan = apply(boss, read(CHANNEL + named), prune=True)
    key.refresh_from_db()
    assert key.weight == 7 and not any(part.action == "delete" for change in plan.changes for part in change.parts)


def test_what_is_applied_is_what_was_agreed_to(boss: HttpRequest) -> None:
    document = read(MODEL + "display_name = 'new'")
    shown = make_plan(boss, document)
    Model.objects.filter(name="m").update(display_name="of somebody else")
    with pytest.raises(NotApplied, match="meanwhile"):
        apply(boss, document, agreed=shown)
    assert Model.objects.get(name="m").display_name == "of somebody else"
    apply(boss, document, agreed=make_plan(boss, document))
    assert Model.objects.get(name="m").display_name == "new"
