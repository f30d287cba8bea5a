"""Portraits a second that threads read: from a JPEG to the masked portrait, without the parser.

NASA's portrait of Eileen Collins, 512 px, is read as a portrait already cut. `all at once` opens
the gate that lets few threads through to the array operations; rounds are interleaved.

python -m benchmarks.reading [--threads 1 2 16] [--rounds 3]
"""

import argparse
import io
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from skimage import data

from model.portraits import gate
from model.portraits.align import Alignment
from model.portraits.classes import REMOVED
from model.portraits.parse import Parser, mask_portrait
from model.portraits.portrait import cut_portrait
from service.settings import Settings
from training.machine import processors

PORTRAITS = 300


def reader() -> Callable[[], object]:
    """Reads the portrait once; the parser answers at once what it said the first time."""
    photo, buffer = Image.fromarray(data.astronaut()), io.BytesIO()
    photo.save(buffer, "JPEG", quality=90)
    alignment = Alignment.of_aligned(*photo.size, 128)
    parser = Parser.open(Settings.load({}).parser, 1)
    size = (parser.resolution, parser.resolution)
    said = parser.run(np.asarray(photo.resize(size))[None])
    answering = Parser(lambda _: said, parser.resolution)

    def read() -> object:
        pixels = np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
        portrait = cut_portrait(pixels, alignment, answering, REMOVED)
        return mask_portrait(portrait.pixels, portrait.levels)

    return read


def per_s(read: Callable[[], object], threads: int) -> float:
    """Portraits a second of so many threads."""
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(lambda _: read(), range(PORTRAITS)))
        return PORTRAITS / (time.perf_counter() - started)


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    read = reader()
    read()
    gates = {
        f"{gate.WIDTH} let through": threading.BoundedSemaphore(gate.WIDTH),
        "all at once": threading.BoundedSemaphore(max(options.threads)),
    }
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for threads in options.threads:
            for name, opened in gates.items():
                gate._gate = opened
                found.setdefault((name, threads), []).append(per_s(read, threads))
    print(f"{processors()}; portraits a second, medians of {options.rounds} rounds")
    print(f"| threads | {' | '.join(gates)} |\n|{' --- |' * (len(gates) + 1)}")
    for threads in options.threads:
        cells = [f"{statistics.median(found[name, threads]):.0f}" for name in gates]
        print(f"| {threads} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
