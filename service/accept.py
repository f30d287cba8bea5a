"""The Accept header: which of the media types on offer a caller wants."""

from collections.abc import Sequence

from service.errors import NotAcceptable


def choose(accept: str | None, offers: Sequence[str]) -> str:
    """The offer with the highest weight (RFC 9110, section 12.5.1). Raises NotAcceptable.

    Of equal ones the one that the header names most exactly, then the first on offer, which is
    also the answer where there is no header.
    """
    ranges = _ranges(accept or "*/*")
    best: tuple[float, int, int] | None = None
    chosen = ""
    for place, offer in enumerate(offers):
        matches = [
            (exactness, weight)
            for name, weight in ranges
            if (exactness := _exactness(name, offer)) >= 0
        ]
        if not matches:
            continue
        exactness, weight = max(matches)
        rank = (weight, exactness, -place)
        if weight > 0 and (best is None or rank > best):
            best, chosen = rank, offer
    if best is None:
        raise NotAcceptable(tuple(offers))
    return chosen


def _ranges(accept: str) -> list[tuple[str, float]]:
    """Media ranges with their weights; what cannot be read weighs nothing."""
    found = []
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = min(1.0, max(0.0, float(value)))
                except ValueError:
                    weight = 0.0
        if name:
            found.append((name, weight))
    return found


def _exactness(name: str, offer: str) -> int:
    """2 for the type itself, 1 for type/*, 0 for */*, -1 where the range does not hold it."""
    if name == offer:
        return 2
    if name == "*/*":
        return 0
    return 1 if name == f"{offer.partition('/')[0]}/*" else -1
