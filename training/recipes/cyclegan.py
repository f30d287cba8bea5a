"""CycleGAN (Zhu et al., ICCV 2017), a pair of translators per anchor.

Where this differs from the publication: pairs of an anchor and every other age instead of two sets
of pictures, and with them as many networks as there are anchors, trained in turn by one optimiser;
any batch, half of it of each set, where the publication takes one picture of each; mirrored
portraits, but no random crops; D may see random views; what is served is an average of weights.
Pools of generated pictures keep 256 levels, as portraits have, and each process keeps its own: all
begin with the first one's when a run of several goes on. A warm start begins with empty ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from model.networks.cyclegan import CycleganGenerator, PatchDiscriminator
from model.networks.pairs import Pairs
from training.config import ConfigError
from training.data import Batch
from training.draws import Draws
from training.losses import (
    absolute_error,
    least_squares_adversarial_loss,
    least_squares_discriminator_loss,
)
from training.recipes import Loss
from training.recipes.pairwise import PairwiseConfig, PairwiseRecipe


@dataclass(frozen=True)
class CycleganConfig(PairwiseConfig):
    """Settings of the method; weights are the publication's unless a preset says otherwise."""

    method: str = "cyclegan"
    blocks: int = 9
    """Residual blocks of a translator; six in the publication at 128 px."""
    patch_layers: int = 3
    """Stride-2 layers of D, which then judges patches of 70 pixels; 2 makes them 34, 1 makes 16."""
    cycle_weight: float = 10.0
    identity_weight: float = 5.0
    """Weight of how little a translator changes portraits of the age that it leads to."""
    pool: int = 50
    """Generated pictures that are kept for each D, which sees one of them every other time; 0 shows
    it the newest alone."""
    shaping: ClassVar[tuple[str, ...]] = (*PairwiseConfig.shaping, "blocks")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("blocks", "patch_layers")
        if self.resolution < 4 * 2**self.patch_layers:
            raise ConfigError(
                f"patch_layers: {self.patch_layers} leave nothing of {self.resolution} px to judge"
            )
        if self.pool < 0:
            raise ConfigError("pool: must be at least 0")


class PicturePool(nn.Module):
    """Generated pictures of earlier steps, for a D not to forget them (Shrivastava et al. 2017).

    A module, so that the pictures are part of a checkpoint.
    """

    pictures: Tensor
    """(size, 3, R, R) uint8"""
    held: Tensor
    """() how many there are"""

    def __init__(self, size: int, resolution: int) -> None:
        super().__init__()
        shape = (size, 3, resolution, resolution)
        self.register_buffer("pictures", torch.zeros(shape, dtype=torch.uint8))
        self.register_buffer("held", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchanged(self, pictures: Tensor, chances: Tensor, places: Tensor) -> Tensor:
        """Pictures (N, 3, R, R) in [-1, 1] that are new, or older and replaced by the new.

        A full pool gives an old one for those of `chances` (N,) in [0, 1) below a half, the one at
        its of `places` (N,); one that is not full keeps and gives what is new. Nothing waits for
        the accelerator.
        """
        if not len(self.pictures):
            return pictures
        given = []
        levels = ((pictures.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        for picture, new, chance, place in zip(pictures, levels, chances, places, strict=True):
            full = self.held >= len(self.pictures)
            row = torch.where(full, place, self.held)[None]
            old = self.pictures.index_select(0, row)[0]
            swapped = full & (chance < 0.5)
            kept = torch.where(swapped | ~full, new, old)
            self.pictures.index_copy_(0, row, kept[None])
            self.held += ~full
            given.append(torch.where(swapped, old / 127.5 - 1.0, picture))
        return torch.stack(given)


class PooledJudges(Pairs):
    """Discriminators of all pairs, each with the pool that it learns from."""

    def __init__(self, config: CycleganConfig) -> None:
        anchors = len(config.clusters)
        super().__init__(
            lambda: PatchDiscriminator(config.discriminator_width, config.patch_layers), anchors
        )
        self.pools = Pairs(lambda: PicturePool(config.pool, config.resolution), anchors)


POOLS = "pools."
"""Entries of a discriminator's state that are pictures."""


class CycleganRecipe(PairwiseRecipe[CycleganConfig, PooledJudges]):
    """Networks, optimisers and the step of CycleGAN; see `Recipe` for the contract."""

    settings = CycleganConfig
    pictures_in_state = (POOLS,)

    def __init__(self, config: CycleganConfig) -> None:
        self.config = config
        self.augment_share = config.augment_share
        self.generator = Pairs(
            lambda: CycleganGenerator(config.width, config.blocks), len(config.clusters)
        )
        self.discriminator = PooledJudges(config)

    def step(self, batch: Batch, images_seen: int, steps: int, draws: Draws) -> Iterator[Loss]:
        anchor, (others, same) = self.anchor_of(steps), self.halves(batch)
        forth, back = self.generator.of(anchor)
        # Each translates both halves: one is its own age already, and should stay as it is.
        aged, same_kept = forth(batch.real).chunk(2)
        others_kept, returned = back(batch.real).chunk(2)
        cycled = torch.cat([back(aged), forth(returned)])
        kept, made = torch.cat([others_kept, same_kept]), torch.cat([aged, returned])
        yield self._generator_loss(batch, anchor, made, cycled, kept, draws)
        yield self._discriminator_loss(anchor, torch.cat([same, others]), made.detach(), draws)

    def _generator_loss(
        self,
        batch: Batch,
        anchor: int,
        made: Tensor,
        cycled: Tensor,
        kept: Tensor,
        draws: Draws,
    ) -> Loss:
        config = self.config
        scores = self._scores(anchor, made, draws)
        logged = {
            "adversarial": least_squares_adversarial_loss(scores),
            "cycle": absolute_error(cycled, batch.real),
            "identity": absolute_error(kept, batch.real),
        }
        loss = (
            logged["adversarial"]
            + config.cycle_weight * logged["cycle"]
            + config.identity_weight * logged["identity"]
        )
        # Published losses add up over both translators; these are means over all pictures.
        return Loss("generator", 2 * loss, logged | self.signs(batch, made))

    def _discriminator_loss(self, anchor: int, real: Tensor, made: Tensor, draws: Draws) -> Loss:
        """Both D of an anchor, on pictures half at the anchor and half at other ages."""
        chances, places = draws.uniform(), draws.integers(max(self.config.pool, 1))
        halves = (tensor.chunk(2) for tensor in (made, chances, places))
        pools = self.discriminator.pools.of(anchor)
        shown = [
            cast(PicturePool, pool).exchanged(*half)
            for pool, *half in zip(pools, *halves, strict=True)
        ]
        real_scores = self._scores(anchor, real, draws)
        fake_scores = self._scores(anchor, torch.cat(shown), draws)
        loss = least_squares_discriminator_loss(real_scores, fake_scores)
        logged = {
            "discriminator": loss,
            "real_score": real_scores.mean(),
            "fake_score": fake_scores.mean(),
        }
        return Loss("discriminator", 2 * loss, logged)

    def _scores(self, anchor: int, pictures: Tensor, draws: Draws) -> Tensor:
        """What both D say of pictures half at the anchor, half at other ages: (N, 1, S, S)."""
        judges, views = self.discriminator.of(anchor), self.viewed(pictures, draws)
        return torch.cat([judge(view) for judge, view in zip(judges, views, strict=True)]).float()

    def warm_discriminator(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        mine = self.discriminator.state_dict()
        pools = {name: tensor for name, tensor in mine.items() if name.startswith(POOLS)}
        return {**weights, **pools}
