"""`airelays models`: what the relay token can call."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import click

from portal.cli import options, output, startup
from portal.cli.input import values


@options.command("models")
@click.option(
    "--user", "username", type=values.USER, metavar="USER", help="Whose models; otherwise those of the relay token."
)
@options.json_option
def command(username: str | None, as_json: bool) -> None:
    """List the models that clients can call now, with their prices."""
    with startup.database(), output.progress("Reading the database"):
        from portal.cli.people import user_named
        from portal.cli.upstreams import plan_models
        from relay.catalog.offers import usable_offers
        from relay.tokens.relay_token import relay_token

        token = relay_token() if username is None else None
        user = token.user if token is not None else user_named(username)
        found: list[dict[str, Any]] = [
            {
                "id": offer.model.name,
                "object": "model",
                "created": int(offer.model.created_at.timestamp()),
                "owned_by": offer.model.owned_by,
                "display_name": offer.model.display_name or None,
                "abilities": sorted(offer.model.known_abilities),
                "price": offer.words,
            }
            for offer in usable_offers(user, token)
        ]
        own = plan_models(user, token)
        names = {one["id"] for one in own}
        found = [*own, *(one for one in found if one["id"] not in names)]
    if as_json:
        output.as_json({"object": "list", "data": found})
        return
    output.title("Models")
    if not found:
        output.section("No model can be called")
    for owner, models in groupby(sorted(found, key=lambda one: one["owned_by"]), key=lambda one: one["owned_by"]):
        output.section(owner or "Models")
        for one in models:
            output.line(f"{one['id']:<40} {one['price']}")
