"""What methods between two sets of pictures share: a pair of translators per anchor, in one run.

The publications know two sets. Here one is the portraits of an anchor, the other those of every
other age, for each anchor in turn: a translator to each anchor answers for a portrait of any age,
where all pairs of ages would be thirty translators, or a chain of them would add up its errors.
"""

from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from model.networks.pairs import Pairs, Translator
from training.augment import discriminator_views
from training.config import ConfigError, FitConfig
from training.data import Batch, PortraitSet
from training.draws import Draws
from training.health import vital_signs
from training.recipes import Exportable, Recipe


@dataclass(frozen=True)
class PairwiseConfig(FitConfig):
    """Settings of both methods; the publications' unless a preset says otherwise."""

    groups: tuple[str, ...] = ("all",)
    """One name: translators serve all people."""
    learning_rate: float = 2e-4
    discriminator_rate: float = 2e-4
    generator_betas: tuple[float, float] = (0.5, 0.999)
    discriminator_betas: tuple[float, float] = (0.5, 0.999)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch // self.accumulate % 2:
            raise ConfigError(
                f"batch: {self.batch} must divide into even parts, half of the anchor, half of "
                "other ages"
            )
        if len(self.groups) > 1:
            raise ConfigError('groups: translators serve all people; give one name, ["all"]')
        if self.discriminator_steps != 1:
            raise ConfigError("discriminator_steps: the method has a rhythm of its own; leave 1")
        if self.augment_target:
            raise ConfigError("augment_target: the method measures no overfitting; leave 0")


P = TypeVar("P", bound=PairwiseConfig)
J = TypeVar("J", bound=Pairs)


class PairwiseRecipe(Recipe[P, Pairs, J]):
    """Draws, views, pictures and the bundle of a pairwise method; see `Recipe` for the contract.

    A batch's first half is of other ages than the step's anchor, its second of the anchor.
    """

    def anchor_of(self, steps: int) -> int:
        """The anchor whose pair a step trains: all take turns."""
        return steps % len(self.config.clusters)

    def visits_of(self, steps: int) -> int:
        """Steps of the same pair before this one."""
        return steps // len(self.config.clusters)

    def draw(
        self, portraits: PortraitSet, generator: torch.Generator, images_seen: int, steps: int
    ) -> Batch:
        return portraits.draw_pair(self.anchor_of(steps), self.config.batch, generator)

    def halves(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Portraits of other ages, and of the anchor.

        Raises ConfigError where a part of a batch, as several processes have it, is odd.
        """
        if len(batch.real) % 2:
            raise ConfigError(
                f"batch: {self.config.batch} must divide into even parts, and a process's part "
                f"has {len(batch.real)} images"
            )
        others, same = batch.real.chunk(2)
        return others, same

    def viewed(self, pictures: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """What the two D see of pictures (N, 3, R, R): half at the anchor, half at other ages."""
        views = discriminator_views(pictures, self.config.augment, draws, self.augment_share)
        same, others = views.chunk(2)
        return same, others

    def signs(self, batch: Batch, pictures: Tensor) -> dict[str, Tensor]:
        """Vital signs of what was made of a batch, both halves of it, in its order.

        Means over both translators, so that a half in which all are alike does not vary by the
        other; with one picture each there is no other way.
        """
        if len(pictures) == 2:
            return vital_signs(batch.real, pictures)
        signs = [
            vital_signs(*pair) for pair in zip(batch.real.chunk(2), pictures.chunk(2), strict=True)
        ]
        return {name: torch.stack([sign[name] for sign in signs]).mean() for name in signs[0]}

    def anchors(self, generator: nn.Module, image: Tensor, group: int) -> Tensor:
        return torch.stack([network(image) for network in cast(Pairs, generator).forth], 1)

    def exportable(self, generator: nn.Module) -> Exportable:
        config, pairs = self.config, cast(Pairs, generator)
        return Exportable(
            None,
            tuple(Translator(network) for network in pairs.forth),
            np.zeros((1, len(config.clusters), 1), np.float32),
            config.age_clusters,
            config.bundle_groups,
            None,
        )
