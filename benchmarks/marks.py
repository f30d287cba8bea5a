"""What marking and signing a picture cost: milliseconds and bytes, by format, on one thread.

python -m benchmarks.marks [--side 64] [--runs 200] [--certificate chain.pem --key key.pem]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from service.credentials import Credentials, open_credentials
from service.marks import Mark, Source
from service.media import PictureFormat, encode_picture

MARK = Mark(Source.MODEL, "lifespan", "0.5.0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    arguments = parser.parse_args()
    credentials = open_credentials(arguments.certificate, arguments.key)
    face = Image.fromarray(data.astronaut()[16:189, 138:311])
    picture = np.asarray(face.resize((arguments.side, arguments.side)))
    for picture_format in PictureFormat:
        for name, make in ways(picture, picture_format, credentials).items():
            median_ms, size_bytes = cost(make, arguments.runs)
            print(f"{picture_format:5} {name:8} {median_ms:6.2f} ms {size_bytes:8} bytes")


def ways(
    picture: np.ndarray, picture_format: PictureFormat, credentials: Credentials | None
) -> dict[str, Callable[[], bytes]]:
    """A picture as it was before marks, as it is, and as an operator's certificate makes it."""

    def marked() -> bytes:
        return encode_picture(picture, picture_format, MARK)

    found = {"unmarked": lambda: encode_picture(picture, picture_format, None), "marked": marked}
    if credentials is not None:
        found["signed"] = lambda: credentials.signed(marked(), picture_format.media_type, MARK)
    return found


def cost(make: Callable[[], bytes], runs: int) -> tuple[float, int]:
    times_ms = []
    size_bytes = len(make())
    for _ in range(runs):
        started = time.perf_counter()
        make()
        times_ms.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times_ms), size_bytes


if __name__ == "__main__":
    main()
