"""A request is found by what people paste: its id, with whatever was copied along, or its end as lists show it."""

from __future__ import annotations

import pytest

from portal.lib import clock
from relay.models import RefusedRequest, UsageRecord
from relay.usage import search
from tests.support.portal import People
from tests.support.sessions import signed_in
from tests.usage.records import record

pytestmark = pytest.mark.shared
ID = "req_019abcdef0123456789000008e56ddb4"
PASTED = (
    ID,
    f"  {ID}\n",
    f"x-request-id: {ID}",
    f"< X-Request-ID: {ID.upper()}\r",
    f'"{ID}"',
    f"“{ID}”",
    f'{{"request_id": "{ID}"}}',
    f"https://ai.example.org/usage/{ID}/",
    ID.removeprefix("req_"),
    "…8e56ddb4",
    "...8e56ddb4",
    " 8e56ddb4 ",
    "“…8e56ddb4”",
)
NOTHING = ("", "req_", "8e56ddb", "08e56ddb4", "…8e56ddb40", "gpt-5", ID[:-1], "\0", "%", "x" * 100_000)


@pytest.mark.parametrize("refused", [False, True])
def test_both_pages_find_what_is_pasted(people: People, refused: bool) -> None:
    record(1, people.owner)
    if refused:
        RefusedRequest.objects.create(
            request_id=ID, started_at=clock.now(), user=people.owner, endpoint="GET /v1/nothing", status=404
        )
        admin_page = f"/admin/refused/{ID}/"
    else:
        admin_page = f"/admin/relay/usagerecord/{record(2, people.owner, request_id=ID).pk}/change/"
    owner, other, staff = (signed_in(one) for one in (people.owner, people.other, people.staff))
    for pasted in PASTED:
        answer = owner.get("/usage/", {"q": pasted})
        assert (answer.status_code, answer.headers.get("Location")) == (302, f"/usage/{ID}/"), pasted
        answer = staff.get("/admin/relay/usagerecord/", {"q": pasted})
        assert answer.status_code == 302 and answer.headers["Location"].endswith(admin_page.strip("/") + "/"), pasted
    for pasted in PASTED[:1] + PASTED[-1:]:
        page = other.get("/usage/", {"q": pasted})
        assert page.status_code == 200 and "There is no request" in page.content.decode(), "of somebody else"
    for pasted in NOTHING[1:7]:
        page = owner.get("/usage/", {"q": pasted})
        assert page.status_code == 200 and "There is no request" in page.content.decode(), pasted
    assert "There is no request" not in owner.get("/usage/").content.decode()


def test_other_texts_find_nothing(people: People) -> None:
    record(1, people.owner, request_id=ID)
    for pasted in NOTHING:
        assert (
            search.find_request(pasted, UsageRecord.objects.filter(user=people.owner), RefusedRequest.objects.all())
            is None
        ), pasted


def test_the_end_of_an_id_is_looked_for_in_the_newest(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """No index knows the ends of ids, so that the search must be bounded."""
    monkeypatch.setattr(search, "SCANNED", 2)
    rows = UsageRecord.objects.filter(user=people.owner)
    record(1, people.owner, request_id=ID)
    assert search.find_request("…8e56ddb4", rows, RefusedRequest.objects.none()) is not None
    record(2, people.owner), record(3, people.owner)
    assert search.find_request("…8e56ddb4", rows, RefusedRequest.objects.none()) is None
    assert search.find_request(ID, rows, RefusedRequest.objects.none()) is not None, "by its index"
