"""Times at the end of all time are refused before anything asks a database for them."""

from __future__ import annotations

import pytest

from accounts.models import User
from relay.models import ModelPrice
from tests.manage.scripts import Script, make_key, world
from tests.support.pages.filled import filled
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "1999-12-31T23:59:59Z"])
def test_over_the_api(people: People, at: str) -> None:
    ids = world(people.staff)
    script = Script(make_key(people.staff))
    for method, path, body in (
        ("PATCH", f"/prices/{ids['prices']}", {}),
        ("POST", "/prices", {"model": ids["models"], "input": "1", "output": "1"}),
    ):
        answer = script(method, path, {**body, "valid_from": at})
        assert answer.status_code == 422 and "2000 and 3000" in answer.json()["error"]["message"]


def test_on_a_page_east_of_greenwich(people: People) -> None:
    world(people.staff)
    User.objects.filter(pk=people.staff.pk).update(time_zone="Pacific/Kiritimati")
    browser, url = signed_in(people.staff), "/admin/relay/modelprice/add/"
    model = str(ModelPrice.objects.values_list("model", flat=True)[0])
    form = filled(
        browser.get(url).content.decode(), model=model, input="1", output="1", valid_from_0="0001-01-01",
        valid_from_1="00:00:00",
    )  # fmt: skip
    page = browser.post(url, form)
    assert page.status_code == 200 and "2000 and 3000" in page.content.decode()
