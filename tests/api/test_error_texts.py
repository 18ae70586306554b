"""The texts of errors: complete, and written anew by administrators."""

from __future__ import annotations

import pytest

from relay.models import ErrorText
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def test_error_texts_are_written_anew_by_language(people: People) -> None:
    ErrorText.objects.create(code="model_not_found", language="en", meaning="No such model at our house.", remedy="")
    page = signed_in(people.owner).get("/errors/").content.decode()
    assert "No such model at our house." in page and "Copy the name from the list of models." in page
    chinese = signed_in(people.owner).get("/errors/", headers={"accept-language": "zh-hans"}).content.decode()
    assert "No such model at our house." not in chinese and "这里没有叫这个名称的模型。" in chinese
    assert "your text" in signed_in(people.staff).get("/admin/relay/errortext/?language=en").content.decode()


def test_every_error_of_the_api_is_in_the_catalogue() -> None:
    from relay import errors
    from relay.error_texts import CODES

    codes = {
        found.code
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, errors.RelayError) and found.code
    }
    assert codes <= set(CODES)
