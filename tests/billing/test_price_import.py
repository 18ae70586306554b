"""`manage.py prices import` and the admin's way to the same."""

from __future__ import annotations

from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from relay.billing.list_prices import ListedPrice, Listing
from relay.billing.price_import import add_list_prices, listings_for, propose_changes
from relay.models import Channel, ChannelModel, Model, ModelPrice

pytestmark = pytest.mark.shared


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("prices", "import", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def models(db: None) -> list[Model]:
    Model.objects.all().delete()
    return [Model.objects.create(name=name) for name in ("gpt-4o", "gpt-5.4", "my-own-model")]


def test_shows_the_difference_and_changes_nothing_before_it_is_told(models: list[Model]) -> None:
    said = run("--dry-run")
    assert "gpt-4o  (openai gpt-4o)  new" in said and "input: — → $2.5" in said and "cached input: — → $1.25" in said
    assert "above 272,000 tokens" in said and "Without a list price: my-own-model" in said
    with pytest.raises(CommandError, match="--yes"):
        run()
    assert not ModelPrice.objects.exists()


def test_applies_tiers_and_is_quiet_the_second_time(models: list[Model]) -> None:
    assert "2 model(s) priced" in run("--yes")
    rows = {row.above_tokens: row for row in ModelPrice.objects.filter(model__name="gpt-5.4")}
    assert (rows[0].input, rows[0].output, rows[272_000].input, rows[272_000].output) == (
        Decimal("2.5"),
        Decimal(15),
        Decimal(5),
        Decimal("22.5"),
    )
    assert rows[0].source.startswith("genai-prices")
    assert "in force already" in run("--yes")
    assert ModelPrice.objects.count() == 3


def test_a_changed_price_becomes_a_new_version(models: list[Model]) -> None:
    old = ModelPrice.objects.create(model=models[0], input=3, output=12)
    assert "input: $3 → $2.5" in run("gpt-4o", "--dry-run")
    assert "priced" not in run("--new", "gpt-4o")
    run("--yes", "gpt-4o")
    assert ModelPrice.objects.filter(model=models[0]).count() == 2
    old.refresh_from_db()
    assert old.input == 3, "what receipts name is left as it was"
    with pytest.raises(CommandError, match="no model gpt-9"):
        run("gpt-9")


def test_the_channels_vendor_comes_first_and_upstream_names_count(models: list[Model]) -> None:
    channel = Channel.objects.create(name="Groq", provider="groq", base_url="https://api.groq.com/openai/v1")
    model = Model.objects.create(name="fast")
    ChannelModel.objects.create(channel=channel, model=model, upstream_name="llama-3.3-70b-versatile")
    found, _ = propose_changes([model])
    assert [proposal.listing.vendor for proposal in found] == ["groq"]
    listings = listings_for("openai", [("fast", "gpt-4o")])
    assert listings["fast"].vendor == "groq", "what it is called where it is served already"
    assert add_list_prices([model], listings) == 1 and add_list_prices([model], listings) == 0
    assert listings_for("openai", [("fast", "gpt-4o")]) == {}, "it has a price"
    assert listings_for("openai", [("new", "gpt-4o"), ("strange", "")]).keys() == {"new"}


def test_models_of_embeddings_are_priced_without_being_asked_about(db: None) -> None:
    """Their lists have no price of output, which they have not. One of another model would be free there."""
    found = listings_for("openai", [("text-embedding-3-small", ""), ("gpt-6-luna", ""), ("gpt-4o", "")])
    assert "text-embedding-3-small" in found and "gpt-4o" in found
    assert found["text-embedding-3-small"].tiers[0].classes["output"] == 0
    assert listings_for("voyage", [("voyage-4", "")])["voyage-4"].complete
    one_sided = Listing("openai-decisions", "gpt-6-luna", (ListedPrice(0, {}, frozenset(("output",))),))
    assert not one_sided.complete
    assert not Listing("x", "text-embedding-9", (ListedPrice(0, {}, frozenset(("input",))),)).complete
