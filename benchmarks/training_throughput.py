"""Training speed and memory: a preset's step against a plain loop of the published recipe.

All train the same networks on the same batches; `benchmarks.plain` is the plain loop, `plain` with
the framework's operations alone, `layers` with the derivatives that this package has written for
some layers. Every measurement is a process of its own, the three in turn.

python -m benchmarks.training_throughput [--preset lifespan-64] [--steps 40] [--rounds 3]
"""

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.plain import PlainLoop
from model.ages import LIFESPAN_CLUSTERS
from training.config import load_config
from training.data import PortraitSet, PreparedSet, open_prepared
from training.machine import processors
from training.recipes.lifespan import LifespanConfig
from training.run import Run, device_of

NAMES = ("plain", "layers", "ours")
START = [
    "reconstruction_images=0",
    "discriminator_images=0",
    "flow_images=0",
    "polish_images=0",
    "decay_from=0",
]
"""The full loss from the first step: that is what is timed."""


def noise_set(folder: Path, side: int) -> PreparedSet:
    """A prepared set of noise, sixteen pictures for each cluster and gender."""
    rows = [
        [i, f"{i}.png", cluster.low_years, gender, "noise", "train"]
        for i, (_, cluster, gender) in enumerate(
            (n, cluster, gender)
            for n in range(16)
            for cluster in LIFESPAN_CLUSTERS
            for gender in ("female", "male")
        )
    ]
    random = np.random.default_rng(0)
    shape = (len(rows), side, side)
    np.save(folder / "portraits.npy", random.integers(0, 256, (*shape, 3), np.uint8))
    np.save(folder / "kept.npy", np.full(shape, 255, np.uint8))
    landmarks = random.uniform(0.3, 0.7, (len(rows), 68, 2)).astype(np.float32)
    landmarks[:, [36, 45, 30]] = (0.35, 0.45), (0.65, 0.45), (0.5, 0.6)
    np.save(folder / "landmarks.npy", landmarks)
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "file", "age", "gender", "source", "split", "glasses"])
        writer.writerows((*row, 0) for row in rows)
    (folder / "data.json").write_text(json.dumps({"schema_version": 1}))
    return open_prepared(folder)


def measured(name: str, config: LifespanConfig, steps: int) -> dict[str, float]:
    """Images a second and peak memory of one of the two, in this process."""
    device = device_of()
    with tempfile.TemporaryDirectory() as folder:
        data = noise_set(Path(folder), config.resolution)
        before = max(4, config.consistency_interval)
        if name != "ours":
            portraits = PortraitSet(data, config, data.rows, device)
            loop = PlainLoop(config, portraits, device, own_layers=name == "layers")

            def step() -> None:
                loop.step()
        else:
            run = Run(config, data, Path(folder) / "run")
            if run.recorder is not None:
                before = 4 * max(config.r1_interval, config.consistency_interval)

            def step() -> None:
                run.window.add(run.step())

        def finished() -> float:
            if device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter()

        for _ in range(before):
            step()
        started = finished()
        for _ in range(steps):
            step()
        seconds = finished() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    return {"images_per_s": steps * config.batch / seconds, "peak_mb": peak / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="lifespan-64")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=NAMES, help="one measurement, as JSON")
    arguments = parser.parse_args()
    config = load_config(arguments.preset, [*START, *arguments.set])
    if not isinstance(config, LifespanConfig):
        parser.error(f"the plain loop knows Lifespan alone, not {config.method}")
    if arguments.only:
        print(json.dumps(measured(arguments.only, config, arguments.steps)))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    for _ in range(arguments.rounds):
        for name, found in results.items():
            command = [sys.executable, "-m", "benchmarks.training_throughput", "--only", name]
            command += ["--preset", arguments.preset, "--steps", str(arguments.steps)]
            command += [f"--set={override}" for override in arguments.set]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found.append(json.loads(output.splitlines()[-1]))
            print(name, output.splitlines()[-1], file=sys.stderr, flush=True)
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else processors()
    print(f"{machine}, torch {torch.__version__}, {arguments.preset}, batch {config.batch}")
    for name, found in results.items():
        speeds = [each["images_per_s"] for each in found]
        peak = max(each["peak_mb"] for each in found)
        print(f"{name:6}{statistics.median(speeds):8.1f} images/s, peak {peak:.0f} MB")
    for name in NAMES[:-1]:
        pairs = zip(results["ours"], results[name], strict=True)
        ratios = [ours["images_per_s"] / plain["images_per_s"] for ours, plain in pairs]
        said = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"ours / {name}: {said}")


if __name__ == "__main__":
    main()
