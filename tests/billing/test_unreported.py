"""Usage whose report lacks what has a price."""

from __future__ import annotations

import pytest

from relay.billing.prices import Price, cost
from relay.billing.unreported import may_lack, with_unreported
from relay.protocols.usage import Usage

MEASURED = Usage(
    100, audio_input=80, image_input=10, output=50, audio_output=40, images=2, milliseconds=9000, characters=7
)
TOKENS = Price(input=1, output=2)


@pytest.mark.parametrize(
    ("price", "reported", "used", "complete"),
    [
        (TOKENS, Usage(5, output=6), Usage(5, output=6), True),
        (TOKENS, Usage(5), Usage(5, output=50), False),
        (TOKENS, Usage(output=6), Usage(100, output=6), False),
        (Price(input=1), Usage(5), Usage(5), True),
        (Price(second=1), Usage(milliseconds=3), Usage(milliseconds=3), True),
        (Price(second=1), Usage(5, output=6), Usage(5, output=6, milliseconds=9000), False),
        (Price(input=1, output=2, second=1), Usage(milliseconds=3), Usage(100, output=50, milliseconds=3), False),
        (Price(input=1, audio_input=4, output=2), Usage(50, output=6), Usage(50, output=6, audio_input=40), False),
        (Price(input=1, audio_input=4, output=2), Usage(50, output=6, audio_input=1), None, True),
        (Price(input=1, image_input=4, output=2), Usage(50, output=6), Usage(50, output=6, image_input=5), False),
        (Price(audio_output=4), Usage(50, output=5), Usage(50, output=5, audio_output=4), False),
        (Price(audio_output=4), Usage(50), Usage(50, output=50, audio_output=40), False),
        (Price(image=1), Usage(images=1), Usage(images=1), True),
        (Price(image=1), Usage(5), Usage(5, images=2), True),
        (Price(character=1), Usage(5), Usage(5, characters=7), True),
        (Price(), Usage(), Usage(), True),
    ],
)
def test_what_has_a_price_and_is_not_reported_is_as_it_was_measured(
    price: Price, reported: Usage, used: Usage | None, complete: bool
) -> None:
    found, whole = with_unreported(price, reported, MEASURED)
    names = ("input", "output", "audio_input", "image_input", "audio_output")
    expected = used if used is not None else reported
    assert [getattr(found, name) for name in names] == [getattr(expected, name) for name in names]
    assert whole is complete and cost(price, found) == cost(price, expected)
    assert complete or may_lack(price, reported)


def test_nothing_is_made_up() -> None:
    dear = Price(input=1, output=2, audio_input=3, image_input=4, audio_output=5, image=6, second=7, character=8)
    assert with_unreported(dear, Usage(5, output=6), Usage()) == (Usage(5, output=6), True)


def test_the_usual_report_is_not_looked_at() -> None:
    assert not may_lack(TOKENS, Usage(5, output=6))
