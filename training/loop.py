"""The training loop: precision, averaging, logging, saving and resuming for every method."""

import json
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from model.runtime import available_threads
from training.checkpoints import load_checkpoint, save_checkpoint
from training.config import ConfigError, FitConfig, config_of
from training.data import PortraitSet, PreparedSet, split_rows
from training.ema import Averaged
from training.recipes import recipe_of
from training.sheets import sample_sheet, save_sheet
from training.signals import stop_requests

CONFIG = "config.json"
LOG = "log.jsonl"
EXTENDABLE = ("images", "log_every", "sample_every", "checkpoint_every", "threads", "halve_at")
"""Settings that may change when a run goes on."""
SHAPING = ("method", "width", "elements", "latent", "style_gain", "clusters", "groups")
"""Settings that decide what a generator's weights mean."""
ENTRANCE = "from_coarse_rgb."
"""Weights of a discriminator that only `coarse_share` gives it."""


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


class Run:
    """A training run in a folder: made new, or taken up where its checkpoint left it."""

    def __init__(
        self, config: FitConfig, data: PreparedSet, folder: Path, device: str = "auto"
    ) -> None:
        self.config, self.folder = config, folder
        self.device = device_of(device)
        torch.set_num_threads(config.threads or available_threads())
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        train, selection, _ = split_rows(data, config.held_out)
        self.portraits = PortraitSet(data, config, train, self.device)
        self.selection = PortraitSet(data, config, selection, self.device, balanced=False)
        self.recipe = recipe_of(config).to(str(self.device))
        self.optimisers = self.recipe.optimisers()
        self.averaged = Averaged(self.recipe.generator, config.average_half_life)
        self.images_seen, self.steps = 0, 0
        wanted = config.precision == "bfloat16"
        if config.precision == "auto":
            wanted = computes_bfloat16(self.device)
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)
        folder.mkdir(parents=True, exist_ok=True)
        state = load_checkpoint(folder)
        if state is not None:
            self._restore(state)
            _forget_after(folder / LOG, self.images_seen)
        (folder / CONFIG).write_text(json.dumps(config.to_dict(), indent=2) + "\n")

    @property
    def resumed(self) -> bool:
        return self.images_seen > 0

    def state(self) -> dict[str, Any]:
        """Everything that decides the steps to come."""
        random = {"draws": self.generator.get_state(), "torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "config": self.config.to_dict(),
            "images_seen": self.images_seen,
            "steps": self.steps,
            "generator": self.recipe.generator.state_dict(),
            "discriminator": self.recipe.discriminator.state_dict(),
            "averaged": self.averaged.network.state_dict(),
            "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
            "random": random,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        before, now = config_of(state["config"]).to_dict(), self.config.to_dict()
        changed = [key for key in now if now[key] != before[key] and key not in EXTENDABLE]
        if changed:
            raise ConfigError(
                f"{self.folder} holds a run with other settings: {', '.join(changed)}; "
                "choose another folder, or repeat its settings to go on"
            )
        self.recipe.generator.load_state_dict(state["generator"])
        self.recipe.discriminator.load_state_dict(state["discriminator"])
        self.averaged.network.load_state_dict(state["averaged"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.generator.set_state(state["random"]["draws"])
        torch.set_rng_state(state["random"]["torch"])
        if self.device.type == "cuda" and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
        self.images_seen, self.steps = state["images_seen"], state["steps"]

    def warm_start(self, weights: dict[str, Any]) -> None:
        """Begins from the averaged generator and the discriminator of an earlier run.

        A discriminator of another size is drawn anew instead, with a warning; one that had no
        entrance for coarse images keeps the rest. Raises ConfigError when the run has begun, or
        when a setting that shapes the generator differs.
        """
        if self.resumed:
            raise ConfigError(f"{self.folder} has begun already; a warm start needs a new folder")
        before = config_of(weights["config"])
        for name in SHAPING:
            if getattr(before, name) != getattr(self.config, name):
                raise ConfigError(
                    f"{name}: the warm start was made with {getattr(before, name)}, "
                    f"not {getattr(self.config, name)}"
                )
        generator = {name: tensor.float() for name, tensor in weights["generator"].items()}
        discriminator = {name: tensor.float() for name, tensor in weights["discriminator"].items()}
        self.recipe.generator.load_state_dict(generator)
        self.averaged.network.load_state_dict(generator)
        mine = self.recipe.discriminator.state_dict()
        discriminator = {
            **{name: tensor for name, tensor in mine.items() if name.startswith(ENTRANCE)},
            **{n: t for n, t in discriminator.items() if n in mine or not n.startswith(ENTRANCE)},
        }
        if {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in discriminator.items()}:
            self.recipe.discriminator.load_state_dict(discriminator)
        else:
            warnings.warn(
                "the warm start's discriminator has another size: drawn anew", stacklevel=2
            )
        self.images_seen = int(weights["images_seen"])

    def _rate_factor(self) -> float:
        return 0.5 ** sum(self.images_seen >= bound for bound in self.config.halve_at)

    def _update(self, name: str, loss: Tensor) -> None:
        optimiser = self.optimisers[name]
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        optimiser.zero_grad(set_to_none=True)
        loss.backward(inputs=parameters)
        factor = self._rate_factor()
        for group in optimiser.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor
        optimiser.step()

    def step(self) -> dict[str, Tensor]:
        """One step of the recipe and of the average; returns the step's scalars."""
        batch = self.portraits.draw(self.config.batch, self.generator)
        with self.autocast:
            logged = self.recipe.step(batch, self.images_seen, self.steps, self._update)
        self.images_seen += self.config.batch
        self.steps += 1
        self.averaged.update(self.recipe.generator, self.config.batch, self.images_seen)
        return {name: value.detach() for name, value in logged.items()}

    def save(self) -> None:
        save_checkpoint(self.folder, self.state())

    def sheet(self) -> Tensor:
        """A sheet of selection portraits, two of every cluster where there are, default group."""
        picked = [
            int(i)
            for cluster in range(len(self.config.clusters))
            for i in torch.nonzero(self.selection.clusters == cluster).flatten()[:2]
        ]
        rows = torch.tensor(picked)
        return sample_sheet(
            self.recipe,
            self.averaged.network,
            self.selection.portraits(rows),
            self.selection.clusters[rows].to(self.device),
            len(self.config.bundle_groups) - 1,
        )


def _due(before: int, now: int, every: int) -> bool:
    return before // every != now // every


def fit(run: Run) -> bool:
    """Trains until `config.images` were seen; False when a signal stopped it before.

    The same call resumes. Log lines go to `log.jsonl` and TensorBoard, sheets to `samples/`.
    """
    config = run.config
    sums: dict[str, list[float]] = defaultdict(list)
    clock, clock_images = time.monotonic(), run.images_seen
    writer = SummaryWriter(str(run.folder / "tensorboard"))
    bar = tqdm(total=config.images, initial=run.images_seen, unit="image", disable=None)
    with stop_requests() as stop, bar, writer:
        while run.images_seen < config.images and not stop:
            before = run.images_seen
            for name, value in run.step().items():
                sums[name].append(float(value))
            now = run.images_seen
            bar.update(now - before)
            if _due(before, now, config.log_every):
                means = {name: sum(values) / len(values) for name, values in sums.items()}
                sums.clear()
                means["images_per_s"] = (now - clock_images) / (time.monotonic() - clock)
                clock, clock_images = time.monotonic(), now
                _log(run.folder, writer, now, means)
                line = " ".join(f"{name} {value:.3g}" for name, value in means.items())
                tqdm.write(f"{now}/{config.images} images  {line}")
            if _due(before, now, config.sample_every):
                save_sheet(run.folder / "samples" / f"{now:09d}.png", run.sheet())
            if _due(before, now, config.checkpoint_every):
                run.save()
        run.save()
    return run.images_seen >= config.images


def _forget_after(log: Path, images: int) -> None:
    """Drops the lines that a killed run wrote after the checkpoint it is taken up from."""
    if log.exists():
        lines = [
            line for line in log.read_text().splitlines() if json.loads(line)["images"] <= images
        ]
        log.write_text("".join(f"{line}\n" for line in lines))


def _log(folder: Path, writer: SummaryWriter, images: int, means: dict[str, float]) -> None:
    line = {"images": images} | {name: round(value, 5) for name, value in means.items()}
    with (folder / LOG).open("a") as file:
        file.write(json.dumps(line) + "\n")
    for name, value in means.items():
        writer.add_scalar(name, value, images)
