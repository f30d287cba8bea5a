"""How many pictures a second `anchorage-train prepare` takes in, by number of processes.

    python -m benchmarks.prepare SOURCE [--aligned] [--count 400] [--processes 1 2] [--rounds 2]

Each round prepares the same pictures once with every number of processes, each time from nothing
into a folder that is deleted again; the best round counts. The start of the processes is included,
so small counts flatter few processes.
"""

import argparse
import shlex
import sys
import tempfile
import time
from pathlib import Path

from model.runtime import available_threads
from training.__main__ import PARSER
from training.machine import processors
from training.prepare import PrepareConfig, prepare


def seconds(source: Path, config: PrepareConfig, processes: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        prepare(source, Path(folder), PARSER, config, processes=processes)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path)
    parser.add_argument("--aligned", action="store_true")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, available_threads()])
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    config = PrepareConfig(arguments.resolution, arguments.aligned, limit=arguments.count)
    best = dict.fromkeys(arguments.processes, float("inf"))
    for _ in range(arguments.rounds):
        for processes in best:
            best[processes] = min(best[processes], seconds(arguments.source, config, processes))
    print(f"python -m benchmarks.prepare {shlex.join(sys.argv[1:])}\n{processors()}")
    alone = best[arguments.processes[0]]
    for processes, best_s in best.items():
        print(
            f"{processes:3} processes {arguments.count / best_s:8.1f} pictures/s, "
            f"{alone / best_s:.2f} x {arguments.processes[0]}"
        )


if __name__ == "__main__":
    main()
