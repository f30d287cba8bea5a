"""One file per method; `loop.py` knows them through `Recipe` alone."""

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from training.config import FitConfig
from training.data import Batch

Update = Callable[[str, Tensor], None]
"""Takes an optimiser's name and a loss, and makes the step."""


class Recipe(Protocol):
    """A method as the loop sees it."""

    @property
    def generator(self) -> nn.Module:
        """What is averaged, sampled and exported."""
        ...

    @property
    def discriminator(self) -> nn.Module:
        """What only training needs."""
        ...

    def to(self, device: str) -> "Recipe":
        """Moves networks and tables."""
        ...

    def optimisers(self) -> Mapping[str, Optimizer]:
        """Fresh optimisers by the names that `step` uses."""
        ...

    def step(self, batch: Batch, images_seen: int, steps: int, update: Update) -> dict[str, Tensor]:
        """One training step. Draws no randomness but torch's own; returns scalars to log."""
        ...

    def anchors(self, generator: nn.Module, image: Tensor, group: int) -> Tensor:
        """Images (N, 3, R, R) at every anchor of `group`: (N, anchors, 3, R, R)."""
        ...

    def reconstruction(self, generator: nn.Module, image: Tensor, cluster: Tensor) -> Tensor:
        """Images (N, 3, R, R) rendered at their own clusters (N,), neutral group."""
        ...


def recipe_of(config: FitConfig) -> Recipe:
    """The recipe that `config.method` names. Raises ValueError for one that does not exist."""
    from training.recipes.lifespan import LifespanRecipe

    recipes: dict[str, Callable[[FitConfig], Recipe]] = {"lifespan": LifespanRecipe}
    if config.method not in recipes:
        raise ValueError(f"method: unknown {config.method!r}; known: {', '.join(recipes)}")
    return recipes[config.method](config)
