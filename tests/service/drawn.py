"""What schemathesis sends as images and names: it reads this module as its hooks.

Mostly a portrait that is accepted, and no names that nothing has, so that the answers behind them
are reached.
"""

import io
import zlib
from typing import Any

import numpy as np
import schemathesis
from hypothesis import strategies
from PIL import Image
from skimage import data


def _portrait() -> bytes:
    buffer = io.BytesIO()
    pixels = np.ascontiguousarray(data.astronaut()[16:189, 138:311])
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PORTRAIT = _portrait()

schemathesis.openapi.format(
    "binary",
    strategies.one_of(
        strategies.just(PORTRAIT),
        strategies.just(PORTRAIT),
        strategies.sampled_from([b"", PORTRAIT[:2000], b"\xff\xd8\xff", b"GIF89a"]),
        strategies.binary(max_size=200),
    ),
)


NAMES = ("model", "group", "start", "stop")
CHOICES = ("target", "age", "weights")


def _rarely_named(fields: Any, names: tuple[str, ...]) -> Any:
    """Three of four made-up names are left out; those that the document forbids are sent."""
    if not isinstance(fields, dict):
        return fields

    def is_sent(name: str, value: Any) -> bool:
        allowed = isinstance(value, list) or (isinstance(value, str) and len(value) <= 64)
        return name not in names or not allowed or zlib.crc32(repr(value).encode()) % 4 == 0

    return {name: value for name, value in fields.items() if is_sent(name, value)}


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    return _rarely_named(query, NAMES)


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    by_image = isinstance(body, dict) and "image" in body
    return _rarely_named(body, (*NAMES, *CHOICES, *(["face"] if by_image else [])))
