import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.accept import choose
from service.errors import NotAcceptable

OFFERS = ("image/webp", "image/gif", "video/mp4", "application/json")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "image/webp"),
        ("", "image/webp"),
        ("*/*", "image/webp"),
        ("image/gif", "image/gif"),
        ("IMAGE/GIF", "image/gif"),
        ("application/*", "application/json"),
        ("image/gif;q=0.5, video/mp4;q=0.9", "video/mp4"),
        ("*/*, image/gif", "image/gif"),
        ("image/*;q=0.9, application/json;q=0.8", "image/webp"),
        ("image/webp;q=0, image/*", "image/gif"),
        ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "image/webp"),
    ],
)
def test_the_best_match_is_chosen(accept: str | None, chosen: str):
    assert choose(accept, OFFERS) == chosen


@pytest.mark.parametrize("accept", ["text/html", "image/webp;q=0", "*/*;q=0", "image/gif;q=high"])
def test_nothing_acceptable_lists_what_there_is(accept: str):
    with pytest.raises(NotAcceptable) as caught:
        choose(accept, OFFERS)
    assert caught.value.members["offers"] == OFFERS


@given(st.text(max_size=60))
def test_any_header_gives_an_offer_or_a_refusal(accept: str):
    with contextlib.suppress(NotAcceptable):
        assert choose(accept, OFFERS) in OFFERS
