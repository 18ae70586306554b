"""Further names of models in the administration."""

from __future__ import annotations

import html

import pytest
from django.test import Client

from accounts.models import AuditEvent
from relay.models import Channel, ChannelModel, Model, ModelAlias
from tests.support.pages.filled import filled
from tests.support.portal import People
from tests.support.sessions import clerk, signed_in

pytestmark = pytest.mark.shared


@pytest.fixture
def model(db: None) -> Model:
    return Model.objects.create(name="gpt-5")


def save(client: Client, model: Model, names: str, **more: str) -> str:
    """What the page says when these names are saved, empty when it goes on to the list."""
    path = f"/admin/relay/model/{model.pk}/change/"
    page = client.get(path).content.decode()
    answer = client.post(path, filled(page, form_key=None, further_names=names, _save="Save", **more))
    return "" if answer.status_code == 302 else html.unescape(answer.content.decode())


def names_of(model: Model) -> list[str]:
    return list(model.aliases.values_list("name", flat=True))


def test_they_are_given_and_taken_and_audited(staff: Client, model: Model) -> None:
    assert save(staff, model, "claude-gpt-5\n\n claude-five \nclaude-five") == ""
    assert names_of(model) == ["claude-five", "claude-gpt-5"]
    page = staff.get(f"/admin/relay/model/{model.pk}/change/").content.decode()
    assert filled(page)["further_names"] == ["claude-five\nclaude-gpt-5"]
    assert save(staff, model, "claude-gpt-5") == "" and names_of(model) == ["claude-gpt-5"]
    added, removed = AuditEvent.objects.filter(action="model.change").order_by("pk").values_list("detail", flat=True)
    assert [(one["did"], one["row"]) for one in added["rows"]] == [("add", "claude-five"), ("add", "claude-gpt-5")]
    assert [(one["did"], one["row"]) for one in removed["rows"]] == [("delete", "claude-five")]
    listed = staff.get("/admin/relay/model/?q=claude-gpt").content.decode()
    assert ">gpt-5<" in listed and "claude-gpt-5" in listed
    assert ">gpt-5<" not in staff.get("/admin/relay/model/?q=claude-five").content.decode()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("two words", "“two words” is not a model name"),
        ("x" * 121, "is not a model name"),
        ("claude-*", "names end in a star"),
        ("gpt-5", "the model's own name already"),
        ("other", "already stands for the model “other”, which it would hide"),
        ("openai/other", "already stands for the model “other”"),
        ("family-one", "already stands for the model “family-*”"),
        ("g-2fkFE8rbu", "already stands for the model “gpt-4-gizmo-*”"),
        ("of-other", "“of-other” is a further name of the model “other”"),
        ("\n".join(f"name-{number}" for number in range(51)), "at most 50 further names"),
    ],
)
def test_names_that_stand_for_something_else_are_refused(staff: Client, model: Model, names: str, said: str) -> None:
    other = Model.objects.create(name="other", enabled=False)
    ModelAlias.objects.create(model=other, name="of-other")
    Model.objects.create(name="family-*")
    Model.objects.create(name="gpt-4-gizmo-*")
    assert said in save(staff, model, f"good-one\n{names}") and names_of(model) == []
    assert save(staff, model, "good-one") == ""


def test_a_model_cannot_take_a_further_name_of_another(staff: Client, model: Model) -> None:
    ModelAlias.objects.create(model=model, name="claude-gpt-5")
    page = staff.get("/admin/relay/model/add/").content.decode()
    answer = staff.post("/admin/relay/model/add/", filled(page, form_key=None, name="claude-gpt-5", _save="Save"))
    assert "is a further name of the model “gpt-5”" in html.unescape(answer.content.decode())
    assert not Model.objects.filter(name="claude-gpt-5").exists()
    assert save(staff, model, "gpt-5", name="claude-gpt-5") == "", "the two may be exchanged"
    model.refresh_from_db()
    assert (model.name, names_of(model)) == ("claude-gpt-5", ["gpt-5"])


def test_channels_add_no_model_of_such_a_name(staff: Client, model: Model) -> None:
    ModelAlias.objects.create(model=model, name="claude-gpt-5")
    channel = Channel.objects.create(name="one", provider="openai")
    path = f"/admin/relay/channel/{channel.pk}/change/"

    def add(typed: str) -> str:
        values = filled(staff.get(path).content.decode(), form_key=None, new_models=typed, _save="Save")
        return html.unescape(staff.post(path, values).content.decode())

    assert "is a further name of the model “gpt-5”" in add("good\nclaude-gpt-5")
    assert not ChannelModel.objects.exists()
    add("good\nreal = claude-gpt-5")
    assert set(channel.served.values_list("model__name", "upstream_name")) == {("good", ""), ("real", "claude-gpt-5")}
    setup = staff.post(f"/admin/setup/models/?channel={channel.pk}", {"channel": channel.pk, "typed": "claude-gpt-5"})
    assert "is a further name of the model “gpt-5”" in html.unescape(setup.content.decode())
    assert not Model.objects.filter(name="claude-gpt-5").exists()


def test_two_people_add_different_names(staff: Client, model: Model) -> None:
    """The second is told, and saving again keeps what they typed."""
    path = f"/admin/relay/model/{model.pk}/change/"
    page = staff.get(path).content.decode()
    ModelAlias.objects.create(model=model, name="theirs")
    description = filled(page, form_key=None, description="mine", _save="Save")
    assert staff.post(path, description).status_code == 302 and names_of(model) == ["theirs"]
    answer = staff.post(path, filled(page, form_key=None, further_names="mine", _save="Save"))
    assert "Somebody has changed this to “theirs”" in html.unescape(answer.content.decode())
    assert names_of(model) == ["theirs"]


def test_who_may_only_look_at_models_changes_no_name(people: People, model: Model) -> None:
    ModelAlias.objects.create(model=model, name="claude-gpt-5")
    viewer = clerk("view_model")
    path = f"/admin/relay/model/{model.pk}/change/"
    page = viewer.get(path).content.decode()
    assert "claude-gpt-5" in page and 'name="further_names"' not in page
    assert viewer.post(path, {"name": "gpt-5", "further_names": "mine"}).status_code == 403
    assert signed_in(people.owner).get(path).status_code in {302, 403, 404}
    assert names_of(model) == ["claude-gpt-5"]
