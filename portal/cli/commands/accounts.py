"""`airelays accounts`: the upstreams, and whether they can be signed in to."""

from __future__ import annotations

from portal.cli import options, output, startup


@options.command("accounts")
@options.json_option
def command(as_json: bool) -> None:
    """List upstreams, their keys, and whether they serve."""
    with startup.database(), output.progress("Reading the database"):
        from django.conf import settings

        from portal.cli.upstreams import accounts, sign_ins

        listed, signed_in = accounts(), sign_ins()
    balance = settings.CONFIG.routing_strategy.value
    if as_json:
        output.as_json({"accounts": listed, "sign_ins": signed_in, "balance": balance})
        return
    output.title("Accounts")
    for one in listed:
        output.section(f"{one['position']}. {one['name']}")
        output.field("Provider", one["provider"])
        output.field("Status", one["status"])
        none = "none needed" if one["authenticated"] else "none"
        output.field("Keys", f"{one['keys_in_service']} of {one['keys']} in service" if one["keys"] else none)
    if not listed:
        output.section("No upstream yet")
    for one in signed_in:
        output.section(f"ChatGPT: {one['email'] or one['account_id'] or one['user']}")
        output.field("Plan", one["plan_type"])
        output.field("Status", "ready" if one["ready_for_requests"] else str(one["state"]).replace("_", " "))
        output.field("Store", one["storage_mode"])
        output.field("Serves", f"{one['user']} alone")
    output.section("Balancing")
    output.field("Strategy", balance)
