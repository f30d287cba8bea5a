"""A training run: its networks, its place in the data, and what it writes to come back to it."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from model.runtime import available_threads
from training.checkpoints import BEST, GOOD, keep_checkpoint, load_checkpoint, save_checkpoint
from training.config import ConfigError, FitConfig, config_of
from training.data import Batch, PortraitSet, PreparedSet, split_rows
from training.draws import Draws
from training.ema import Averaged
from training.health import WINDOW, Monitor, overfitting
from training.judge import BUNDLED, Judge
from training.means import Means
from training.processes import Processes
from training.recipes import recipe_of
from training.recording import Passed, Recorder
from training.selection import Score, Selection

CONFIG = "config.json"
LOG = "log.jsonl"
EXTENDABLE = (
    "images",
    "log_every",
    "sample_every",
    "checkpoint_every",
    "select_every",
    "threads",
    "halve_at",
    "decay_from",
    "on_collapse",
    "record",
)
"""Settings that may change when a run goes on."""
HELD_OUT_INTERVAL = 8
"""Steps between looks at what D says of portraits that it does not learn from."""
AGREEMENT_INTERVAL = 16
"""Steps between the moments at which several processes may stop together."""


def device_of(name: str = "auto") -> torch.device:
    """`auto` is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic: GPUs since 2020, CPUs with its instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported())


def _parameters(optimiser: Optimizer) -> list[nn.Parameter]:
    return [p for group in optimiser.param_groups for p in group["params"]]


class Run:
    """A training run in a folder: made new, or taken up where its checkpoint left it.

    Under torchrun the processes share every batch; the first one writes what is written. `judge` is
    the age judge's graph for selection scores.
    """

    def __init__(
        self,
        config: FitConfig,
        data: PreparedSet,
        folder: Path,
        device: str = "auto",
        processes: Processes | None = None,
        judge: Path = BUNDLED,
    ) -> None:
        self.config, self.folder, self.judge = config, folder, judge
        self.processes = processes or Processes()
        self.parts = self.processes.count * config.accumulate
        if config.batch % self.parts:
            raise ConfigError(f"batch: {config.batch} does not divide into {self.parts} parts")
        self.device = torch.device(self.processes.device(str(device_of(device))))
        torch.set_num_threads(config.threads or available_threads())
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        train, selection, _ = split_rows(data, config.held_out)
        self.portraits = PortraitSet(data, config, train, self.device)
        self.selection = PortraitSet(data, config, selection, self.device, balanced=False)
        self.recipe = recipe_of(config).to(str(self.device))
        self.recipe.study(self.portraits)
        self.optimisers = self.recipe.optimisers()
        self.averaged = Averaged(self.recipe.generator, config.average_half_life)
        self.images_seen, self.steps = 0, 0
        self.rate_scale, self.setbacks = 1.0, 0
        self.monitor, self.window = Monitor(), Means()
        self._unproven = False
        self.best: dict[str, float] = {}
        """The highest selection score so far, and after how many images"""
        wanted = config.precision == "bfloat16"
        if config.precision == "auto":
            wanted = computes_bfloat16(self.device)
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)
        self.recorder = Recorder(self.device) if self._repeats else None
        state = None
        if self.processes.first:
            folder.mkdir(parents=True, exist_ok=True)
            state = load_checkpoint(folder)
        state = self.processes.from_first(state)
        self.resumed = state is not None
        if state is not None:
            self._check(state)
            self.restore(state)
        if self.processes.first:
            _forget_after(folder / LOG, self.images_seen)
            (folder / CONFIG).write_text(json.dumps(config.to_dict(), indent=2) + "\n")

    @property
    def _repeats(self) -> bool:
        """Whether steps are alike, in one piece, and on a device that can repeat them."""
        if self.device.type != "cuda" or self.parts > 1 or not self.config.record:
            return False
        kind = self.recipe.kind(0, 0, Draws(0, 0, 1))
        # What a share of views does is decided by its number.
        return kind is not None and self.config.augment_target == 0

    def state(self) -> dict[str, Any]:
        """Everything that decides the steps to come."""
        return {
            "config": self.config.to_dict(),
            "images_seen": self.images_seen,
            "steps": self.steps,
            "generator": self.recipe.generator.state_dict(),
            "discriminator": self.recipe.discriminator.state_dict(),
            "averaged": self.averaged.network.state_dict(),
            "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
            "random": {"draws": self.generator.get_state()},
            "rate_scale": self.rate_scale,
            "setbacks": self.setbacks,
            "augment_share": self.recipe.augment_share,
            "monitor": self.monitor.state(),
            "window": self.window.state(self.processes),
            "best": self.best,
        }

    def _check(self, state: dict[str, Any]) -> None:
        before, now = config_of(state["config"]).to_dict(), self.config.to_dict()
        changed = [key for key in now if now[key] != before[key] and key not in EXTENDABLE]
        if changed:
            raise ConfigError(
                f"{self.folder} holds a run with other settings: {', '.join(changed)}; "
                "choose another folder, or repeat its settings to go on"
            )

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to where a checkpoint was; one that an earlier release wrote lacks some entries."""
        self.recipe.generator.load_state_dict(state["generator"])
        self.recipe.discriminator.load_state_dict(state["discriminator"])
        self.averaged.network.load_state_dict(state["averaged"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.generator.set_state(state["random"]["draws"])
        self.images_seen, self.steps = state["images_seen"], state["steps"]
        self.rate_scale = state.get("rate_scale", 1.0)
        self.setbacks = state.get("setbacks", 0)
        self.recipe.augment_share = state.get("augment_share", self.config.augment_share)
        self.monitor = Monitor(**state.get("monitor", {}))
        self.window = Means(state.get("window", {}))
        self.best = state.get("best", {})
        self._unproven = True

    def warm_start(self, weights: dict[str, Any]) -> None:
        """Begins from the averaged generator and the discriminator of an earlier run.

        A discriminator of another size is drawn anew instead, with a warning. Raises ConfigError
        when the run has begun, or when a setting that shapes the generator differs.
        """
        if self.resumed:
            raise ConfigError(f"{self.folder} has begun already; a warm start needs a new folder")
        before = config_of(weights["config"])
        for name in self.config.shaping:
            if getattr(before, name, None) != getattr(self.config, name):
                raise ConfigError(
                    f"{name}: the warm start was made with {getattr(before, name, None)}, "
                    f"not {getattr(self.config, name)}"
                )
        generator = {name: tensor.float() for name, tensor in weights["generator"].items()}
        generator = self.recipe.warm_generator(generator, before)
        self.recipe.generator.load_state_dict(generator)
        self.averaged.network.load_state_dict(generator)
        judge = {name: tensor.float() for name, tensor in weights["discriminator"].items()}
        judge = self.recipe.warm_discriminator(judge)
        mine = self.recipe.discriminator.state_dict()
        if {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in judge.items()}:
            self.recipe.discriminator.load_state_dict(judge)
        else:
            warnings.warn(
                "the warm start's discriminator has another size: drawn anew", stacklevel=2
            )
        self.images_seen = int(weights["images_seen"])

    def _rate_factor(self) -> float:
        halvings = sum(self.images_seen >= bound for bound in self.config.halve_at)
        factor = self.rate_scale * 0.5**halvings
        if self.config.decay_from:
            left = self.config.images - self.images_seen
            factor *= min(1.0, left / max(self.config.images - self.config.decay_from, 1))
        return factor

    def _draws(self, part: int) -> Draws:
        config = self.config
        part += self.processes.rank * config.accumulate
        generator = self.recorder.generator if self.recorder else None
        return Draws(
            config.seed, self.steps, config.batch, self.device, part, self.parts, generator
        )

    def _losses(self, batch: Batch) -> Iterator[Passed]:
        """The step's losses, each over all parts of this process, with their gradients left."""
        first = self.processes.rank * self.config.accumulate
        going = [
            self.recipe.step(
                batch.part(first + part, self.parts),
                self.images_seen,
                self.steps,
                self._draws(part),
            )
            for part in range(self.config.accumulate)
        ]
        while True:
            passed = []
            for part in going:
                with self.autocast:
                    loss = next(part, None)
                if loss is None:
                    return
                parameters = _parameters(self.optimisers[loss.optimiser])
                if not passed:
                    self.optimisers[loss.optimiser].zero_grad(set_to_none=True)
                (loss.value / len(going)).backward(inputs=parameters)
                logged = {name: value.detach() for name, value in loss.logged.items()}
                passed.append((loss.optimiser, logged))
            optimiser, logged = passed[0]
            if len(passed) > 1:
                logged = {
                    name: torch.stack([scalars[name] for _, scalars in passed]).mean()
                    for name in logged
                }
            yield optimiser, logged

    def _passes(self, batch: Batch) -> Iterator[Passed]:
        """The same, recorded where that is possible."""
        if self.recorder is None:
            return self._losses(batch)
        kind = self.recipe.kind(self.images_seen, self.steps, self._draws(0))
        return self.recorder.passes(
            kind, batch, self._losses, lambda name: _parameters(self.optimisers[name])
        )

    def _move(self, optimiser: Optimizer) -> None:
        gradients = [p.grad for p in _parameters(optimiser) if p.grad is not None]
        self.processes.average(gradients)
        factor = self._rate_factor()
        for group in optimiser.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor
        optimiser.step()

    def step(self) -> dict[str, Tensor]:
        """One step of the recipe and of the average; returns this process's scalars."""
        with self.recorder.at_work() if self.recorder else nullcontext():
            return self._step()

    def _step(self) -> dict[str, Tensor]:
        config = self.config
        logged: dict[str, Tensor] = {}
        batch = self.recipe.draw(self.portraits, self.generator, self.images_seen, self.steps)
        for optimiser, scalars in self._passes(batch):
            self._move(self.optimisers[optimiser])
            logged |= scalars
        if "fake_logit" in logged and self.steps % HELD_OUT_INTERVAL == 0:
            logged |= self._held_out()
        self.images_seen += config.batch
        self.steps += 1
        self.averaged.update(self.recipe.generator, config.batch, self.images_seen)
        return logged

    def _held_out(self) -> Mapping[str, Tensor]:
        """D's logit of portraits that it does not learn from, where every cell holds some."""
        if not self.selection.complete:
            return {}
        config = self.config
        batch = self.selection.draw(config.batch, torch.Generator().manual_seed(self.steps))
        draws = Draws(config.seed + 1, self.steps, config.batch, self.device)
        with self.autocast:
            return self.recipe.held_out(batch, draws)

    @property
    def window_steps(self) -> int:
        """Steps between looks: what G makes of portraits changes only where G moves."""
        return WINDOW * self.config.discriminator_steps

    def look(self) -> str | None:
        """After each window: adapts the share of views, and returns what has gone wrong, if so."""
        means = self.window.of(self.processes)
        self.window = Means()
        finding = self.monitor.observe(means)
        if finding is None and self.monitor.calm and self._unproven:
            self._keep_good()
        surplus = overfitting(means)
        if surplus is not None and self.config.augment_target > 0:
            move = self.window_steps * self.config.batch / self.config.augment_ramp
            move = move if surplus > self.config.augment_target else -move
            self.recipe.augment_share = min(max(self.recipe.augment_share + move, 0.0), 1.0)
        return finding

    def report(self, means: Means) -> dict[str, float]:
        """What a log line says of the steps since the last."""
        said = means.of(self.processes)
        surplus = overfitting(said)
        if surplus is not None:
            said |= {"overfitting": surplus, "augment_share": self.recipe.augment_share}
        return said

    def stopped(self, requests: list[int]) -> bool:
        """Whether any process was asked to stop; several agree on it only now and then."""
        if self.processes.count > 1 and self.steps % AGREEMENT_INTERVAL:
            return False
        return self.processes.any(bool(requests), self.device)

    def return_to_good(self) -> None:
        """Goes back to the last good checkpoint, on disk too; rates, setbacks and best stay."""
        setbacks, scale, best = self.setbacks, self.rate_scale, self.best
        state = load_checkpoint(self.folder, GOOD) if self.processes.first else None
        self.restore(self.processes.from_first(state))
        self.setbacks, self.rate_scale, self.best = setbacks, scale, best
        if self.processes.first:
            _forget_after(self.folder / LOG, self.images_seen)
        self.monitor, self.window = Monitor(), Means()
        self.save()

    def roll_back(self) -> None:
        """The same, with half the rates from there on."""
        self.setbacks, self.rate_scale = self.setbacks + 1, self.rate_scale / 2
        self.return_to_good()

    def save(self) -> None:
        """Writes the checkpoint. It is a good one once the window it falls in has proved well."""
        state = self.state()
        if self.processes.first:
            save_checkpoint(self.folder, state)
        self._unproven = True

    def begin(self) -> None:
        """Makes sure of a checkpoint to come back to: the one at hand where none is proved."""
        if not self.resumed:
            self.save()
        if self.processes.first and not (self.folder / GOOD).exists():
            keep_checkpoint(self.folder, GOOD)
        self._keep_best()  # a kill may have come between the two files

    @cached_property
    def _scorer(self) -> Selection:
        return Selection(self.recipe, self.selection, Judge(self.judge))

    def select(self) -> Score | None:
        """Scores the average, and keeps the checkpoint when no earlier one scored as high.

        None where the method knows no ages, or the data holds too few portraits for a score.
        """
        if not self.recipe.ages or not Selection.possible(self.selection):
            return None
        score = self._scorer.score(self.averaged.network) if self.processes.first else None
        score = self.processes.from_first(score)
        if score.value > self.best.get("score", -1.0):
            self.best = {"score": score.value, "images": self.images_seen}
            self.save()
            self._keep_best()
        return score

    def _keep_best(self) -> None:
        if self.processes.first and self.best.get("images") == self.images_seen:
            keep_checkpoint(self.folder, BEST)

    def _keep_good(self) -> None:
        self._unproven = False
        if self.processes.first:
            keep_checkpoint(self.folder, GOOD)

    def sheet(self) -> Tensor:
        """The recipe's sheet of selection portraits, two of every cluster where there are."""
        picked = [
            int(i)
            for cluster in range(len(self.config.clusters))
            for i in torch.nonzero(self.selection.clusters == cluster).flatten()[:2]
        ]
        rows = torch.tensor(picked)
        return self.recipe.sheet(
            self.averaged.network,
            self.selection.portraits(rows),
            self.selection.clusters[rows].to(self.device),
        )


def _forget_after(log: Path, images: int) -> None:
    """Drops the lines that a killed run wrote after the checkpoint it is taken up from."""
    if log.exists():
        lines = [
            line for line in log.read_text().splitlines() if json.loads(line)["images"] <= images
        ]
        log.write_text("".join(f"{line}\n" for line in lines))
