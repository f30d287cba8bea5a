"""Images, and minutes, to the same selection score: a preset against the published recipe.

Both train a network of the same size on the same portraits and are scored in the same way
(`training.selection`): ours by its averaged weights, the published recipe, whose average forgets a
thousandth a step and is slow at first, by the better of its averaged and its present ones. It keeps
its own losses (`benchmarks.plain`), and its own styles, start and noise unless `--same-network`
asks for ours. Minutes are of one processor, without scoring.
Results are appended to `FOLDER/NAME.jsonl` as they come; without `--only` the two run side by side.

python -m benchmarks.images_to_score --data DATA -o FOLDER [--set NAME=VALUE]
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from benchmarks.plain import PlainLoop
from training.config import config_of, load_config
from training.data import PortraitSet, open_prepared, split_rows
from training.judge import Judge
from training.machine import processors
from training.recipes.lifespan import LifespanConfig
from training.run import Run, device_of
from training.selection import Score, Selection

SMALL = [
    "resolution=32",
    "width=8",
    "discriminator_width=12",
    "batch=16",
    "threads=1",
    "images=110_000",
    "reconstruction_images=16_000",
    "discriminator_images=6_000",
    "polish_images=0",
    "halve_at=[70_000, 100_000]",
]
"""The preset at the smallest size, with a schedule for it, on top of which `--set` comes."""
PUBLISHED: dict[str, Any] = {
    "style_gain": 1.0,
    "style_norm": True,
    "decoder_start": "random",
    "code_noise": 0.2,
    "coarse_share": 0.0,
}
LEVELS = np.arange(0.20, 0.90, 0.02)


def trained(
    name: str, config: LifespanConfig, arguments: argparse.Namespace
) -> tuple[Callable[[], int], list[nn.Module], Selection]:
    """What trains one step and returns the images seen, what may be scored, and its scorer."""
    data = open_prepared(arguments.data)
    device = device_of()
    if name.startswith("plain"):
        changes = {"coarse_share": 0.0} if arguments.same_network else PUBLISHED
        published = cast(LifespanConfig, config_of({**config.to_dict(), **changes}))
        train, selection, _ = split_rows(data, config.held_out)
        loop = PlainLoop(
            published, PortraitSet(data, config, train, device), device, arguments.plain_rate
        )
        held_out = PortraitSet(data, config, selection, device, balanced=False)

        def plain_step() -> int:
            loop.step()
            return loop.images_seen

        return (
            plain_step,
            [loop.averaged, loop.generator],
            Selection(loop.recipe, held_out, Judge()),
        )
    run = Run(config, data, arguments.output / name, processes=None)

    def step() -> int:
        run.window.add(run.step())
        finding = run.look() if run.steps % run.window_steps == 0 else None
        if finding is not None:
            raise SystemExit(f"{name} collapsed after {run.images_seen} images: {finding}")
        return run.images_seen

    return step, [run.averaged.network], Selection(run.recipe, run.selection, Judge())


def measure(name: str, config: LifespanConfig, arguments: argparse.Namespace) -> None:
    """Trains, and writes a line for each score."""
    torch.set_num_threads(config.threads)
    step, networks, selection = trained(name, config, arguments)
    seconds, images = 0.0, 0
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.output / f"{name}.jsonl").open("w") as file:
        while images < config.images:
            started = time.process_time()
            due = images + arguments.every
            while images < min(due, config.images):
                images = step()
            seconds += time.process_time() - started
            scores = (selection.score(network) for network in networks)
            score: Score = max(scores, key=lambda one: one.value)
            line = {"images": images, "minutes": round(seconds / 60, 2)}
            line |= {part: round(value, 4) for part, value in score.logged().items()}
            print(json.dumps(line), file=file, flush=True)


def reached(lines: list[dict[str, float]], level: float) -> dict[str, float] | None:
    """The first line whose score is at least `level`."""
    return next((line for line in lines if line["score"] >= level), None)


def report(folder: Path, names: list[str]) -> None:
    """Prints what each needed for every level that one of them reached."""
    results = {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in names
    }
    print(f"{processors()}, torch {torch.__version__}")
    for level in LEVELS:
        found = [reached(lines, level) for lines in results.values()]
        if not any(found):
            break
        cells = [
            f"{one['images']:8.0f} images {one['minutes']:6.1f} min" if one else "    not reached"
            for one in found
        ]
        print(f"score {level:.2f}  " + "  ".join(map("{}: {}".format, results, cells)))
    for name, lines in results.items():
        best = max(lines, key=lambda line: line["score"])
        print(f"{name}: highest {best} of {lines[-1]['images']:.0f} images")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="what prepare wrote")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--preset", default="lifespan-64")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--every", type=int, default=4000, help="images between scores")
    parser.add_argument("--plain-rate", type=float, default=1e-3, help="of the published recipe")
    parser.add_argument(
        "--same-network", action="store_true", help="the published recipe on our styles and start"
    )
    parser.add_argument("--only", metavar="NAME", help="plain, or a name for ours: no report")
    parser.add_argument("--report", nargs="+", metavar="NAME", help="only report what lies there")
    arguments = parser.parse_args()
    if arguments.report:
        report(arguments.output, arguments.report)
        return
    config = load_config(arguments.preset, [*SMALL, *arguments.set])
    if not isinstance(config, LifespanConfig):
        parser.error(f"the published recipe is Lifespan's, not {config.method}'s")
    if arguments.only:
        measure(arguments.only, config, arguments)
        return
    names = ["ours", "plain"]
    command = [sys.executable, "-m", "benchmarks.images_to_score", *sys.argv[1:], "--only"]
    processes = [subprocess.Popen([*command, name]) for name in names]
    for process in processes:
        if process.wait():
            raise SystemExit(process.returncode)
    report(arguments.output, names)


if __name__ == "__main__":
    main()
