"""What schemathesis sends as images: it reads this module as its hooks.

Mostly a portrait that is accepted, so that the answers behind it are reached; else what is none.
"""

import io

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
