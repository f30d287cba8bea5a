"""One file per method; `loop.py` knows them through `Recipe` alone."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from training.config import FitConfig
from training.data import Batch
from training.draws import Draws


@dataclass(frozen=True)
class Loss:
    """What one optimiser shall lower, the mean over a batch or a part of it."""

    optimiser: str
    value: Tensor
    logged: Mapping[str, Tensor]
    """Scalars of the same mean, to log"""


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

    augment_share: float
    """Share of the images that D sees in a random view."""

    def step(self, batch: Batch, images_seen: int, steps: int, draws: Draws) -> Iterator[Loss]:
        """The losses of a training step over a part of its batch, one after the other.

        The loop moves a loss's optimiser, over all parts, before it asks for the next. Between
        losses little is kept when `accumulate` is above 1. All randomness comes from `draws`.
        """
        ...

    def held_out(self, batch: Batch, draws: Draws) -> Mapping[str, Tensor]:
        """`held_out_logit`: D's mean logit of portraits that it does not learn from."""
        ...

    def warm_discriminator(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The weights that a warm start's discriminator means for this one."""
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
