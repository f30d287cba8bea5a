"""DiscoGAN (Kim et al., ICML 2017), a pair of translators per anchor.

Where this differs from the publication: pairs of an anchor and every other age instead of two sets
of pictures, and with them as many networks as there are anchors, trained in turn by one optimiser;
networks take and give [-1, 1] in RGB instead of [0, 1] in BGR, though reconstruction is measured on
the published scale; other resolutions than 64 px; D may see random views; what is served is an
average of weights. The published code draws its samples with the statistics of the batch that they
are in; a served picture cannot depend on the others, so it takes running ones. Averaged weights
take those of the newest weights, which are about as far from their own as a batch's are.

A batch is normalised as a network sees it. So accumulated parts are refused, and of several
processes each normalises its own part: that part is then the batch which the method knows, and the
running statistics are the first process's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from model.networks.discogan import DiscoganDiscriminator, DiscoganGenerator
from model.networks.pairs import Pairs
from training.config import ConfigError
from training.data import Batch
from training.draws import Draws
from training.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
    squared_error,
)
from training.recipes import Loss
from training.recipes.pairwise import PairwiseConfig, PairwiseRecipe


@dataclass(frozen=True)
class DiscoganConfig(PairwiseConfig):
    """Settings of the method; weights are the publication's unless a preset says otherwise."""

    method: str = "discogan"
    bottleneck: int = 100
    """Channels of the valid convolution in the middle; 0 is the variant without."""
    weight_decay: float = 1e-5
    """Adam's, of G and of D."""
    adversarial_weight: float = 0.1
    feature_weight: float = 0.9
    """Weights of D's logits and of its features among what D asks of G."""
    reconstruction_share: float = 0.5
    """Share of reconstruction in what G lowers; the rest is what D asks."""
    first_share: float = 0.01
    """That share in the first steps of a pair."""
    first_steps: int = 10_000
    """Steps of a pair, of G and of D, for which it holds."""
    discriminator_interval: int = 3
    """Of so many steps of a pair one moves D, and the others G."""
    shaping: ClassVar[tuple[str, ...]] = (*PairwiseConfig.shaping, "resolution", "bottleneck")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.shares("reconstruction_share", "first_share")
        if self.bottleneck < 0:
            raise ConfigError("bottleneck: must be at least 0")
        if self.discriminator_interval < 2:
            raise ConfigError("discriminator_interval: must be at least 2, for G to move")
        if self.accumulate > 1:
            raise ConfigError("accumulate: batch normalisation would see each part alone; leave 1")
        if self.batch < 4:
            raise ConfigError("batch: batch normalisation needs two images of each kind, 4 in all")


class DiscoganRecipe(PairwiseRecipe[DiscoganConfig, Pairs]):
    """Networks, optimisers and the step of DiscoGAN; see `Recipe` for the contract."""

    settings = DiscoganConfig

    def __init__(self, config: DiscoganConfig) -> None:
        self.config = config
        self.augment_share = config.augment_share
        anchors = len(config.clusters)
        self.generator = Pairs(
            lambda: DiscoganGenerator(config.resolution, config.width, config.bottleneck), anchors
        )
        self.discriminator = Pairs(
            lambda: DiscoganDiscriminator(config.resolution, config.discriminator_width), anchors
        )

    def optimisers(self) -> Mapping[str, Optimizer]:
        return self.adam(self.config.weight_decay)

    def halves(self, batch: Batch) -> tuple[Tensor, Tensor]:
        others, same = super().halves(batch)
        if len(others) < 2:
            raise ConfigError("batch: batch normalisation needs 4 images in each process")
        return others, same

    def step(self, batch: Batch, images_seen: int, steps: int, draws: Draws) -> Iterator[Loss]:
        anchor, visits = self.anchor_of(steps), self.visits_of(steps)
        if visits % self.config.discriminator_interval == 0:
            yield self._discriminator_loss(batch, anchor, draws)
        else:
            yield self._generator_loss(batch, anchor, visits, draws)

    def _discriminator_loss(self, batch: Batch, anchor: int, draws: Draws) -> Loss:
        forth, back = self.generator.of(anchor)
        others, same = self.halves(batch)
        with torch.no_grad():
            made = torch.cat([forth(others), back(same)])
        real, _ = self._judged(anchor, torch.cat([same, others]), draws)
        fake, _ = self._judged(anchor, made, draws)
        # Half of the sum over both D, as published, is the mean over all pictures.
        loss = discriminator_loss(real, fake)
        logged = {
            "discriminator": loss,
            "real_probability": torch.sigmoid(real).mean(),
            "fake_probability": torch.sigmoid(fake).mean(),
        }
        return Loss("discriminator", loss, logged)

    def _generator_loss(self, batch: Batch, anchor: int, visits: int, draws: Draws) -> Loss:
        config, (forth, back) = self.config, self.generator.of(anchor)
        others, same = self.halves(batch)
        aged, returned = forth(others), back(same)
        made, cycled = torch.cat([aged, returned]), torch.cat([back(aged), forth(returned)])
        with torch.no_grad():
            _, real_features = self._judged(anchor, torch.cat([same, others]), draws)
        fake, fake_features = self._judged(anchor, made, draws)
        matched = [
            feature_matching_loss(*pair) for pair in zip(real_features, fake_features, strict=True)
        ]
        logged = {
            "adversarial": adversarial_loss(fake),
            "features": torch.stack(matched).mean(),
            "reconstruction": squared_error(cycled / 2, batch.real / 2),
        }
        asked = (
            config.adversarial_weight * logged["adversarial"]
            + config.feature_weight * logged["features"]
        )
        share = config.first_share if visits < config.first_steps else config.reconstruction_share
        loss = (1 - share) * asked + share * logged["reconstruction"]
        # G need not make pictures like a portrait, and does not at first: whether they depend on
        # it shows in those that come back from them.
        signs = self.signs(batch, made) | {"cycle_likeness": self.signs(batch, cycled)["likeness"]}
        del signs["likeness"]
        # Published losses add up over both translators; these are means over all pictures.
        return Loss("generator", 2 * loss, logged | signs)

    def _judged(
        self, anchor: int, pictures: Tensor, draws: Draws
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Of pictures half at the anchor, half at other ages: logits (N,), features of both D."""
        judges, views = self.discriminator.of(anchor), self.viewed(pictures, draws)
        judged = [judge(view) for judge, view in zip(judges, views, strict=True)]
        logits = torch.cat([logit for logit, _ in judged]).float()
        return logits, [[layer.float() for layer in layers] for _, layers in judged]
