"""Fuzzes the reading of photographs: `python -m benchmarks.fuzz_photo --seconds 180`.

atheris changes real JPEG, PNG, WebP and GIF files, guided by the code that they reach, and
`read_photo` must give a photo or raise one of its own errors. What fails is left in the working
directory as crash-*; give its name as the last argument to see it again. Needs atheris from PyPI.
"""

import argparse
import importlib
import io
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from model.portraits.errors import PortraitError

MAX_PIXELS = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("crash", nargs="?", type=Path)
    asked = parser.parse_args()
    atheris: Any = importlib.import_module("atheris")
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["PIL", "model.portraits.photo"]):
        from model.portraits.photo import read_photo

    def one(data: bytes) -> None:
        try:
            photo = read_photo(data, MAX_PIXELS)
        except PortraitError:
            return
        height, width, channels = photo.pixels.shape
        assert channels == 3
        assert photo.pixels.dtype == np.uint8
        assert 0 < height * width <= MAX_PIXELS

    with tempfile.TemporaryDirectory() as seeds:
        for number, file in enumerate(_seeds()):
            (Path(seeds) / str(number)).write_bytes(file)
        flags = [f"-max_total_time={asked.seconds}", "-max_len=8192", "-timeout=10"]
        found = [str(asked.crash)] if asked.crash else [seeds]
        atheris.Setup([sys.argv[0], *flags, "-rss_limit_mb=2048", *found], one)
        atheris.Fuzz()


def _seeds() -> list[bytes]:
    """Small files of each format, in many modes, with notes and profiles."""
    from PIL import Image, ImageCms

    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x8825] = {1: "N"}
    notes = {
        "exif": exif,
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    }
    moving = {"save_all": True, "append_images": [picture.rotate(90)]}
    made = []
    for image_format, modes in {
        "JPEG": ("RGB", "L", "CMYK"),
        "PNG": ("RGB", "L", "LA", "P", "RGBA", "1", "I;16"),
        "WEBP": ("RGB", "RGBA"),
        "GIF": ("P", "L"),
    }.items():
        for mode in modes:
            image = picture.convert("L" if mode == "I;16" else mode)
            if mode == "I;16":
                image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
            for options in ({}, notes, moving, {"progressive": True}, {"lossless": True}):
                if options is moving and (image_format == "JPEG" or mode == "I;16"):
                    continue
                if image_format == "GIF" and options is notes:
                    continue
                buffer = io.BytesIO()
                image.save(buffer, image_format, **options)
                made.append(buffer.getvalue())
    return made


if __name__ == "__main__":
    main()
