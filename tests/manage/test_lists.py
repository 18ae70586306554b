"""Lists: pages that hold while rows come and go, filters, and as many queries for many rows as for a few."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from portal.lib import clock
from portal.lib.money import NANO
from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPermission, ModelPrice, Token
from tests.manage.scripts import Script, give, make_key, world
from tests.support.money import record
from tests.support.portal import People

pytestmark = pytest.mark.shared
MANY = 1000  # five times what a page may have


@pytest.fixture
def script(people: People) -> Script:
    return Script(make_key(people.staff))


def pages(script: Script, path: str) -> Iterator[list[int]]:
    joint = "&" if "?" in path else "?"
    answer = script.ok("GET", path)
    while True:
        yield [row["id"] for row in answer["data"]]
        if answer["next_cursor"] is None:
            return
        answer = script.ok("GET", f"{path}{joint}cursor={answer['next_cursor']}")


def test_pages_hold_while_rows_come_and_go(script: Script) -> None:
    made = [Group.objects.create(name=f"g{number:02}").pk for number in range(10)]
    seen: list[int] = []
    for number, page in enumerate(pages(script, "/groups?limit=3&search=g")):
        seen += page
        Group.objects.create(name=f"g-later-{number}")
        Group.objects.filter(pk=made[9]).delete()
    assert seen == made[::-1]


def test_a_cursor_is_of_its_list_alone(script: Script) -> None:
    for number in range(3):
        Group.objects.create(name=f"g{number}")
        Model.objects.create(name=f"m{number}")
    cursor = script.ok("GET", "/groups?limit=1")["next_cursor"]
    body, _, mark = cursor.rpartition(":")
    for path in (
        f"/models?limit=1&cursor={cursor}",
        f"/groups?limit=1&search=g&cursor={cursor}",
        f"/groups?cursor={body}:{mark[::-1]}",
        f"/groups?cursor=x{cursor}",
        "/groups?cursor=1",
        f"/movements?user=1&cursor={cursor}",
        f"/usage?cursor={cursor}",
    ):
        answer = script("GET", path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_cursor"), path
    assert script.ok("GET", f"/groups?limit=2&cursor={cursor}")["data"]


def test_filters_narrow_and_slips_are_told(script: Script, people: People) -> None:
    ids = world(people.staff)
    for path, found in (
        ("/channels?name=first", True),
        ("/channels?name=second", False),
        ("/channels?enabled=false", False),
        (f"/keys?channel={ids['channels']}", True),
        (f"/keys?channel={10**12}", False),
        (f"/permissions?user={ids['users']}", True),
        ("/users?username=ulla", True),
        ("/users?search=ULLA", True),
        ("/tokens?search=hers", True),
        ("/prices?purpose=cost", False),
        (f"/budgets?user={ids['users']}&period=day", True),
        ("/cooldowns?kind=rate_limited", True),
    ):
        assert bool(script.ok("GET", path)["data"]) is found, path
    for path, status in (
        ("/channels?nmae=x", 400),
        ("/channels?enabled=perhaps", 422),
        ("/channels?limit=201", 422),
        ("/keys?channel=x", 422),
        ("/usage?by=user", 400),
        ("/movements", 422),
    ):
        assert script("GET", path).status_code == status, path


def _fill() -> None:
    """Many rows of all that there may be many of."""
    channel = Channel.objects.create(name="c", provider="openai")
    Channel.objects.bulk_create([Channel(name=f"c{number}", provider="openai") for number in range(300)])
    ApiKey.objects.bulk_create(
        [ApiKey(channel=channel, hint="sk-…", sealed="x", given_for="vendor openai") for _ in range(MANY)]
    )
    Model.objects.bulk_create([Model(name=f"m{number}") for number in range(MANY)])
    models = list(Model.objects.filter(name__startswith="m"))
    ChannelModel.objects.bulk_create([ChannelModel(channel=channel, model=model) for model in models])
    ModelPrice.objects.bulk_create([ModelPrice(model=model, input=1, output=1) for model in models])
    User.objects.bulk_create([User(username=f"u{number}", password="!") for number in range(MANY)])
    users = list(User.objects.filter(username__startswith="u"))
    group = Group.objects.create(name="g")
    User.groups.through.objects.bulk_create([User.groups.through(user=user, group=group) for user in users])
    Token.objects.bulk_create([Token(user=user, name="t", digest=f"d{user.pk}") for user in users])
    ModelPermission.objects.bulk_create([ModelPermission(model=models[0], user=user) for user in users])


@pytest.mark.timeout(300)
def test_many_rows_take_as_many_queries_as_a_few(script: Script, people: People) -> None:
    ids = world(people.staff)
    paths = [path for path in ids if path not in ("other", "redemption-codes", "cooldowns")]
    one = ["user/", "token/", "channel/", "redemption/", "log/", "models"]

    def counted() -> dict[str, int]:
        found: dict[str, int] = {}
        for root, names in (("/api/v1", [f"/{path}?limit=200" for path in paths]), ("/api", [f"/{x}" for x in one])):
            asking = Script(script.secret, root)
            for name in names:
                with CaptureQueriesContext(connection) as queries:
                    asking.ok("GET", name)
                found[root + name] = len(queries)
        return found

    few = counted()
    _fill()
    many = counted()
    assert {path: (few[path], many[path]) for path in few if many[path] > few[path]} == {}
    assert max(few.values()) <= 12, few


def test_usage_its_sums_and_receipts(script: Script, people: People) -> None:
    ids = world(people.staff)
    user, token = User.objects.get(pk=ids["users"]), Token.objects.get(pk=ids["tokens"])
    first = record(user, token=token, model="m-1", cost=5 * NANO, upstream_cost=NANO, status=200)
    others = [record(people.other, model="m-2", cost=NANO) for _ in range(3)]
    found = script.ok("GET", f"/usage?user={user.pk}")["data"]
    assert [one["request_id"] for one in found] == [first.request_id]
    assert (found[0]["cost_usd"], found[0]["upstream_cost_usd"], found[0]["margin_usd"]) == ("5", "1", "4")
    assert sum(len(page) for page in pages(script, "/usage?limit=2&model=m-2")) == len(others)
    sums = script.ok("GET", "/usage/sums?by=user")
    assert {line["key"]: line["charged_usd"] for line in sums["data"]} == {user.pk: "5", people.other.pk: "3"}
    assert sums["total"]["charged_usd"] == "8" and sums["total"]["requests"] == 4
    assert script.ok("GET", f"/receipts/{first.request_id}")["charged_usd"] == "5"
    clerk = give(User.objects.create_user("clerk", is_staff=True), "relay.view_usagerecord")
    poor = Script(make_key(clerk))
    assert "cost_usd" not in poor.ok("GET", "/usage")["data"][0]
    assert "charged_usd" not in poor.ok("GET", f"/receipts/{first.request_id}")
    assert poor("GET", "/usage/sums").status_code == 403
    one = Script(script.secret, "/api")
    logged = one.ok("GET", "/log/?username=ulla&model_name=m-1&token_name=hers")["data"]
    assert [(row["quota"], row["username"], row["token_name"]) for row in logged] == [(2_500_000, "ulla", "hers")]
    assert one.ok("GET", "/log/stat?username=ulla")["data"] == {"quota": 2_500_000}
    since = int((clock.now() - timedelta(days=2)).timestamp())
    assert one.ok("GET", f"/log/stat?start_timestamp={since}&token_name=hers")["data"] == {"quota": 2_500_000}
    assert one.ok("GET", "/log/self")["data"] == []
    assert Script(poor.secret, "/api").ok("GET", "/log/")["data"][0]["quota"] == 0


def test_movements_are_listed_in_pages(script: Script, people: People) -> None:
    ids = world(people.staff)
    for number in range(4):
        script.ok("POST", f"/users/{ids['users']}/top-up", {"usd": 1, "reason": f"r{number}"})
    found: list[Any] = []
    path = f"/movements?user={ids['users']}&limit=2"
    for page in pages(script, path):
        found += page
    assert len(found) == 5 == len(set(found))


@pytest.mark.parametrize("slip", ["session=nonsense", "since=1999-12-31", "until=0001-01-01", "until=9999-12-31"])
def test_a_filter_that_makes_no_sense_does_not_select_everything(people: People, slip: str) -> None:
    record(people.owner)
    script = Script(make_key(people.staff))
    assert len(script.ok("GET", "/usage")["data"]) == 1
    for path in ("/usage", "/usage/sums"):
        answer = script("GET", f"{path}?{slip}")
        if path == "/usage" or not slip.startswith("session"):
            assert answer.status_code == 422 and slip.split("=")[0] in answer.json()["error"]["fields"]
        else:
            assert answer.status_code == 400
    assert script.ok("GET", "/usage?session=0123456789abcdef&until=2000-01-01")["data"] == []
