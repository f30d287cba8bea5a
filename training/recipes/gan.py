"""The GAN itself (Goodfellow et al. 2014): portraits from noise, no age and nobody in particular.

Algorithm 1 with k steps of D for each of G, momentum SGD and dropout in D, as published. Where this
differs: colour portraits instead of digits; the loop's average of G is what is sampled; rates are
fixed settings, not decayed step by step. It is not served: `anchorage-train sample` draws from it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from model.networks.gan import MaxoutDiscriminator, NoiseGenerator
from training.config import ConfigError, FitConfig
from training.data import Batch
from training.draws import Draws
from training.health import vital_signs
from training.losses import adversarial_loss, discriminator_loss, minimax_loss
from training.recipes import Exportable, Loss, Recipe

SHEET = 64
"""Portraits on a sample sheet"""


@dataclass(frozen=True)
class GanConfig(FitConfig):
    """Settings of the method; `width` and Adam's have no meaning here."""

    method: str = "gan"
    groups: tuple[str, ...] = ("all",)
    batch: int = 100
    learning_rate: float = 0.1
    discriminator_rate: float = 0.1
    momentum: float = 0.5
    noise: int = 100
    """Numbers that a portrait is made from, even in [-1, 1]."""
    hidden: int = 1200
    """Units of G's layers."""
    units: int = 240
    pieces: int = 5
    """Units of D's layers, and the linear pieces that each is the largest of."""
    kept_inputs: float = 0.8
    kept_units: float = 0.5
    """Shares of D's inputs and of its units that dropout leaves."""
    generator_loss: Literal["non_saturating", "minimax"] = "non_saturating"
    """What G lowers: -log D, or log(1 - D) as in the value function itself."""
    shaping: ClassVar[tuple[str, ...]] = ("method", "resolution", "noise", "hidden")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("noise", "hidden", "units", "pieces")
        for name in ("kept_inputs", "kept_units"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name}: must be above 0 and at most 1")
        for name in ("augment", "augment_target"):
            if getattr(self, name):
                raise ConfigError(f"{name}: gan shows D the images as they are")


class GanRecipe(Recipe[GanConfig, NoiseGenerator, MaxoutDiscriminator]):
    """Networks, optimisers and the step of the GAN; see `Recipe` for the contract."""

    settings = GanConfig
    ages = False

    def __init__(self, config: GanConfig) -> None:
        self.config = config
        self.generator = NoiseGenerator(config.resolution, config.hidden, config.noise)
        self.discriminator = MaxoutDiscriminator(config.resolution, config.units, config.pieces)

    def optimisers(self) -> Mapping[str, Optimizer]:
        config = self.config
        rates = {"generator": config.learning_rate, "discriminator": config.discriminator_rate}
        return {
            name: SGD(getattr(self, name).parameters(), rate, config.momentum, fused=True)
            for name, rate in rates.items()
        }

    def _judged(self, image: Tensor, draws: Draws) -> Tensor:
        """D's logits (N,) under dropout; what is left is scaled up to make up for it."""
        kept = (self.config.kept_inputs, self.config.kept_units, self.config.kept_units)
        masks = [
            (draws.uniform(size) < share).float() / share
            for size, share in zip(self.discriminator.sizes, kept, strict=True)
        ]
        return self.discriminator(image, masks).float()

    def step(self, batch: Batch, images_seen: int, steps: int, draws: Draws) -> Iterator[Loss]:
        config = self.config
        noise = draws.uniform(config.noise) * 2 - 1
        with torch.no_grad():
            fake = self.generator(noise)
        real_logits, fake_logits = self._judged(batch.real, draws), self._judged(fake, draws)
        loss = discriminator_loss(real_logits, fake_logits)
        signs = vital_signs(batch.real, fake)
        signs.pop("likeness", None)  # there is no portrait that a picture should be like
        logged = {"real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()} | signs
        yield Loss("discriminator", loss, logged | {"discriminator": loss})
        if (steps + 1) % config.discriminator_steps == 0:
            again = self._judged(self.generator(draws.uniform(config.noise) * 2 - 1), draws)
            minimax = config.generator_loss == "minimax"
            loss = minimax_loss(again) if minimax else adversarial_loss(again)
            yield Loss("generator", loss, {"adversarial": loss})

    @torch.no_grad()
    def held_out(self, batch: Batch, draws: Draws) -> Mapping[str, Tensor]:
        return {"held_out_logit": self._judged(batch.real, draws).mean()}

    @torch.no_grad()
    def sample(self, generator: nn.Module, count: int, seed: int) -> Tensor:
        device = next(generator.parameters()).device
        noise = torch.rand(count, self.config.noise, generator=torch.Generator().manual_seed(seed))
        return generator((noise * 2 - 1).to(device))

    def sheet(self, generator: nn.Module, portraits: Tensor, clusters: Tensor) -> Tensor:
        """The same draws every time, so that sheets of one run can be compared."""
        return self.sample(generator, SHEET, self.config.seed).unflatten(0, (8, -1))

    def anchors(self, generator: nn.Module, image: Tensor, group: int) -> Tensor:
        raise ConfigError("method: gan draws portraits from noise and ages nobody")

    def exportable(self, generator: nn.Module) -> Exportable:
        raise ConfigError("method: gan ages nobody and is not served; use anchorage-train sample")
