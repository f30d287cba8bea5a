"""Time and size of the face parser: milliseconds for one portrait on the CPU.

python -m benchmarks.parser [--threads 2] [--runs 100]
"""

import argparse
import statistics
import time
from pathlib import Path

from skimage import data

from model.portraits.align import Alignment, crop
from model.portraits.parse import Parser
from service.settings import BUNDLES

PARSER = BUNDLES / "parser" / "parser.onnx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", type=Path, default=PARSER)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    network = Parser.open(arguments.graph, arguments.threads)
    portrait = crop(data.astronaut(), Alignment.of_aligned(512, 512, network.resolution))
    times_ms = []
    for _ in range(arguments.runs):
        started = time.perf_counter()
        network.parse(portrait).kept(("background",))
        times_ms.append((time.perf_counter() - started) * 1e3)
    print(f"{arguments.graph.stat().st_size / 1e6:.2f} MB, {arguments.threads} threads")
    print(f"median {statistics.median(times_ms):.1f} ms, slowest {max(times_ms):.1f} ms")


if __name__ == "__main__":
    main()
