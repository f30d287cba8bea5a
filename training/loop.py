"""The training loop: steps, logging, sheets, checkpoints, and what follows a collapse."""

import json
import time
from collections.abc import Mapping
from contextlib import closing

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from training.health import CollapseError
from training.means import Means
from training.run import LOG, Run
from training.selection import Score
from training.sheets import save_sheet
from training.signals import stop_requests

SETBACKS = 3
"""Times that a run goes back to a good checkpoint before it is given up."""


def _due(before: int, now: int, every: int) -> bool:
    return before // every != now // every


class _Log:
    """What the first process tells: progress, `log.jsonl`, TensorBoard."""

    def __init__(self, run: Run) -> None:
        self.run = run
        total = run.config.images
        silent = None if run.processes.first else True
        self.bar = tqdm(total=total, initial=run.images_seen, unit="image", disable=silent)
        self.writer = (
            SummaryWriter(str(run.folder / "tensorboard")) if run.processes.first else None
        )
        self.clock, self.images = time.monotonic(), run.images_seen

    def write(self, means: Mapping[str, float]) -> None:
        """A line of means, with the speed since the last one."""
        if self.writer is None:
            return
        now = self.run.images_seen
        speed = (now - self.images) / (time.monotonic() - self.clock)
        self.clock, self.images = time.monotonic(), now
        line = {name: round(value, 5) for name, value in means.items()}
        self.append(line | {"images_per_s": round(speed, 2)})
        for name, value in means.items():
            self.writer.add_scalar(name, value, now)
        shown = " ".join(f"{name} {value:.3g}" for name, value in means.items())
        self.say(f"{now}/{self.run.config.images} images  {shown} images_per_s {speed:.3g}")

    def select(self, score: Score | None) -> None:
        """A line for a selection score, and what to do where the data has none."""
        if score is None:
            self.say("no selection score: the data holds too few portraits of some cluster")
            return
        self.append({name: round(value, 4) for name, value in score.logged().items()})
        if self.writer is not None:
            for name, value in score.logged().items():
                self.writer.add_scalar(f"selection/{name}", value, self.run.images_seen)
        best = self.run.best
        shown = " ".join(f"{name} {value:.3f}" for name, value in score.logged().items())
        self.say(f"selection: {shown}; best {best['score']:.3f} after {best['images']} images")

    def say(self, message: str) -> None:
        if self.run.processes.first:
            tqdm.write(message)

    def append(self, entries: Mapping[str, float | str]) -> None:
        if self.run.processes.first:
            with (self.run.folder / LOG).open("a") as file:
                file.write(json.dumps({"images": self.run.images_seen} | dict(entries)) + "\n")

    def close(self) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()


def fit(run: Run) -> bool:
    """Trains until `config.images` were seen; False when a signal stopped it before.

    The same call resumes. Log lines go to `log.jsonl` and TensorBoard, sheets to `samples/`. Raises
    CollapseError when the run has failed and is not, or no longer, to be rolled back.
    """
    config, log, means = run.config, _Log(run), Means()
    run.begin()
    with stop_requests() as stop, closing(log):
        while run.images_seen < config.images and not run.stopped(stop):
            before = run.images_seen
            logged = run.step()
            for each in (means, run.window):
                each.add(logged)
            now = run.images_seen
            log.bar.update(now - before)
            finding = run.look() if run.steps % run.window_steps == 0 else None
            if finding is not None:
                _answer(run, finding, log)
                means = Means()
                continue
            if _due(before, now, config.log_every):
                log.write(run.report(means))
                means = Means()
            if run.processes.first and _due(before, now, config.sample_every):
                save_sheet(run.folder / "samples" / f"{now:09d}.png", run.sheet())
            if (
                config.select_every
                and run.recipe.ages
                and (now >= config.images or _due(before, now, config.select_every))
            ):
                log.select(run.select())
            if _due(before, now, config.checkpoint_every):
                run.save()
        run.save()
    return run.images_seen >= config.images


def _answer(run: Run, finding: str, log: _Log) -> None:
    """Rolls the run back, or raises CollapseError at its last good checkpoint."""
    failed_at = run.images_seen
    if run.config.on_collapse == "stop" or run.setbacks >= SETBACKS:
        run.return_to_good()
        log.append({"finding": finding, "failed_at": failed_at})
        again = f"; {run.setbacks} times rolled back before" if run.setbacks else ""
        raise CollapseError(
            f"{finding} (after {failed_at} images{again}). The run is back at {run.images_seen} "
            "images. Begin anew with a lower learning_rate, or go on with on_collapse=roll_back"
        )
    run.roll_back()
    answer = f"back to {run.images_seen} images, {run.rate_scale:g} of the rates"
    log.append({"finding": finding, "failed_at": failed_at, "answer": answer})
    log.say(f"{finding} (after {failed_at} images): {answer}")
    log.bar.n, log.images = run.images_seen, run.images_seen
