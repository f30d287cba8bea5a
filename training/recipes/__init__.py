"""One file per method; the loop, the export and the evaluation know them through `Recipe` alone.

A method is a network in `model/networks/`, a recipe here and a line in `METHODS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from model.ages import AgeCluster
from training.config import ConfigError, FitConfig
from training.data import Batch, PortraitSet
from training.draws import Draws

C = TypeVar("C", bound=FitConfig)
G = TypeVar("G", bound=nn.Module)
D = TypeVar("D", bound=nn.Module)

METHODS = {
    "lifespan": "LifespanRecipe",
    "gan": "GanRecipe",
    "stargan": "StarganRecipe",
    "s2gan": "S2ganRecipe",
    "cyclegan": "CycleganRecipe",
    "discogan": "DiscoganRecipe",
}
"""Recipes by method: the class in the module of that name."""


@dataclass(frozen=True)
class Loss:
    """What one optimiser shall lower, the mean over a batch or a part of it."""

    optimiser: str
    value: Tensor
    logged: Mapping[str, Tensor]
    """Scalars of the same mean, to log"""


@dataclass(frozen=True)
class Exportable:
    """A generator in the parts that a bundle is made of."""

    encoder: nn.Module | None
    """Image (M, 3, R, R) in [-1, 1] -> identity (M, ...); None where nothing can be encoded, and
    decoders take the image itself"""
    decoders: tuple[nn.Module, ...]
    """Identity or image (N, ...), latent (N, K) -> image (N, 3, R, R) in [-1, 1]; one for all
    anchors, or one each"""
    latents: NDArray[np.float32]
    """(groups, anchors, K)"""
    clusters: tuple[AgeCluster, ...]
    """The anchors that it answers for"""
    groups: tuple[str, ...]
    interpolation_space: str | None
    """Where ages between anchors are mixed; None where the method knows none"""


class Recipe(ABC, Generic[C, G, D]):
    """A method as the rest of the package sees it; a recipe inherits what it does not change."""

    settings: ClassVar[type[FitConfig]]
    """What configures it"""
    config: C
    generator: G
    """What is averaged, sampled and exported"""
    discriminator: D
    """What only training needs"""
    ages: ClassVar[bool] = True
    """Whether it renders portraits at anchors; otherwise it draws them from noise"""
    augment_share: float = 1.0
    """Share of the images that D sees in a random view"""
    pictures_in_state: ClassVar[tuple[str, ...]] = ()
    """How entries of the discriminator's state begin that are pictures: a warm start, which may be
    given away, is written without them"""

    def to(self, device: str) -> Self:
        """Moves networks and tables; channels come last where that was measured to be faster."""
        last = torch.device(device).type == "cpu"
        layout = torch.channels_last if last else torch.contiguous_format
        for network in (self.generator, self.discriminator):
            network.to(device, memory_format=layout)  # pyright: ignore[reportCallIssue]
        return self

    def study(self, portraits: PortraitSet) -> None:
        """Learns of a run's training portraits what its steps will need. Raises DataError."""

    def optimisers(self) -> Mapping[str, Optimizer]:
        """Fresh optimisers by the names that `step` uses: Adam for G and for D unless changed."""
        return self.adam()

    def adam(self, weight_decay: float = 0.0) -> Mapping[str, Optimizer]:
        """Adam for G and for D. It leaves alone what a step gives no gradient."""
        config = self.config
        settings = {
            "generator": (self.generator, config.learning_rate, config.generator_betas),
            "discriminator": (
                self.discriminator,
                config.discriminator_rate,
                config.discriminator_betas,
            ),
        }
        return {
            name: Adam(
                network.parameters(), rate, betas=betas, weight_decay=weight_decay, fused=True
            )
            for name, (network, rate, betas) in settings.items()
        }

    def draw(
        self, portraits: PortraitSet, generator: torch.Generator, images_seen: int, steps: int
    ) -> Batch:
        """The batch of a step; all randomness comes from `generator`."""
        return portraits.draw(self.config.batch, generator)

    def kind(self, images_seen: int, steps: int, draws: Draws) -> Hashable | None:
        """All that decides what `step` does, but for numbers in tensors.

        Steps of one kind can be recorded and repeated on an accelerator. None where no two steps
        are known to be alike.
        """
        return None

    @abstractmethod
    def step(self, batch: Batch, images_seen: int, steps: int, draws: Draws) -> Iterator[Loss]:
        """The losses of a training step over a part of its batch, one after the other.

        The loop moves a loss's optimiser, over all parts, before it asks for the next. Between
        losses little is kept when `accumulate` is above 1. All randomness comes from `draws`.
        """

    def held_out(self, batch: Batch, draws: Draws) -> Mapping[str, Tensor]:
        """`held_out_logit`: D's mean logit of portraits that it does not learn from, if it has one.

        Asked for only by recipes that log `real_logit` and `fake_logit`.
        """
        return {}

    def warm_generator(
        self, weights: Mapping[str, Tensor], config: FitConfig
    ) -> Mapping[str, Tensor]:
        """The weights that a generator trained under `config` means for this one.

        Raises ConfigError where they mean nothing here.
        """
        return weights

    def warm_discriminator(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The weights that a warm start's discriminator means for this one."""
        return weights

    @abstractmethod
    def anchors(self, generator: nn.Module, image: Tensor, group: int) -> Tensor:
        """Images (N, 3, R, R) at every anchor of `group`: (N, anchors, 3, R, R)."""

    def reconstruction(self, generator: nn.Module, image: Tensor, cluster: Tensor) -> Tensor:
        """Images (N, 3, R, R) rendered at their own clusters (N,), default group."""
        aged = self.anchors(generator, image, len(self.config.bundle_groups) - 1)
        return aged[torch.arange(len(aged), device=aged.device), cluster]

    @torch.no_grad()
    def sheet(self, generator: nn.Module, portraits: Tensor, clusters: Tensor) -> Tensor:
        """What a sample sheet shows, as rows of pictures (rows, columns, 3, R, R) in [-1, 1].

        Of each portrait: itself, its reconstruction, and it at every anchor of the default group.
        """
        rebuilt = self.reconstruction(generator, portraits, clusters)
        aged = self.anchors(generator, portraits, len(self.config.bundle_groups) - 1)
        return torch.cat([portraits.unsqueeze(1), rebuilt.unsqueeze(1), aged], dim=1)

    def sample(self, generator: nn.Module, count: int, seed: int) -> Tensor:
        """Portraits (count, 3, R, R) from noise. Raises ConfigError where there is no noise."""
        raise ConfigError(f"method: {self.config.method} renders portraits and draws none")

    @abstractmethod
    def exportable(self, generator: nn.Module) -> Exportable:
        """The parts of a bundle, in evaluation mode. Raises ConfigError where there is none."""


AnyRecipe = Recipe[Any, Any, Any]


def recipe_class(method: str) -> type[AnyRecipe]:
    """The recipe of a method. Raises ConfigError for one that does not exist."""
    if method not in METHODS:
        raise ConfigError(f"method: unknown {method!r}; known: {', '.join(METHODS)}")
    return getattr(import_module(f"training.recipes.{method}"), METHODS[method])


def recipe_of(config: FitConfig) -> AnyRecipe:
    """The recipe that `config.method` names."""
    return recipe_class(config.method)(config)  # pyright: ignore[reportCallIssue]
