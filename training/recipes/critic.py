"""What methods against a Wasserstein critic share, whose second head tells age clusters apart.

D lowers its criticism's loss, a gradient penalty on images between real and generated ones
(Gulrajani et al. 2017), and the cross entropy of real images' clusters; G lowers what D says of its
pictures: how real they are, and of which cluster (Choi et al. 2018). G takes an image and weights
over the anchors, one-hot in training. All people are one population, and D sees images as they are.
The step runs in the run's precision, the penalty too, whose norms are float32: in bfloat16 its
gradient is that of float32 but for rounding.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from model.networks.stargan import StarganDiscriminator
from training.config import ConfigError, FitConfig
from training.data import Batch
from training.draws import Draws
from training.health import vital_signs
from training.losses import class_loss, critic_adversarial_loss, critic_loss, gradient_penalty
from training.recipes import Loss, Recipe


@dataclass(frozen=True)
class CriticConfig(FitConfig):
    """Settings of a method with a critic."""

    groups: tuple[str, ...] = ("all",)
    """One name: these methods tell no groups apart, so `neutral` means nothing to them."""
    generator_betas: tuple[float, float] = (0.5, 0.999)
    discriminator_betas: tuple[float, float] = (0.5, 0.999)
    discriminator_steps: int = 5
    adversarial_weight: float = 1.0
    penalty_weight: float = 10.0
    """Weight of the gradient penalty."""
    class_weight: float = 1.0
    """Weight of the clusters that D tells of real images."""
    fake_class_weight: float = 1.0
    """Weight, for G, of the clusters that D tells of generated ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.groups) > 1:
            raise ConfigError(
                f"groups: {self.method} tells no groups apart; one name means all together"
            )
        for name in ("augment", "augment_target"):
            if getattr(self, name):
                raise ConfigError(f"{name}: {self.method} shows D the images as they are")


C = TypeVar("C", bound=CriticConfig)
G = TypeVar("G", bound=nn.Module)


@dataclass(frozen=True)
class Rendered:
    """A step's pictures by G, in the graph that its losses go back through."""

    fake: Tensor
    """Images at their target clusters"""
    rebuilt: Tensor
    """What shall equal the images themselves"""


class CriticRecipe(Recipe[C, G, StarganDiscriminator]):
    """D's part of the step, and its optimisers; a method adds what G renders and lowers."""

    def __init__(self, config: C, generator: G) -> None:
        self.config, self.generator = config, generator
        anchors = len(config.clusters)
        self.labels = torch.eye(anchors)
        """One-hot (anchors, anchors)"""
        self.discriminator = StarganDiscriminator(
            config.resolution, anchors, config.discriminator_width
        )

    def to(self, device: str) -> Self:
        super().to(device)
        self.labels = self.labels.to(device)
        return self

    @abstractmethod
    def rendered(self, batch: Batch) -> Rendered:
        """What G makes of a batch."""

    @abstractmethod
    def generator_loss(self, batch: Batch, rendered: Rendered) -> Loss:
        """What G lowers."""

    def step(self, batch: Batch, images_seen: int, steps: int, draws: Draws) -> Iterator[Loss]:
        config = self.config
        moves = (steps + 1) % config.discriminator_steps == 0
        # D learns from G's own pictures of the step, so that they are drawn once; a part of a
        # batch keeps none of them while the other parts pass.
        rendered = None
        if moves and config.accumulate == 1:
            rendered = self.rendered(batch)
            fake = rendered.fake.detach()
        else:
            with torch.no_grad():
                fake = self.generator(batch.real, self.labels[batch.target])
        yield self._discriminator_loss(batch, fake, draws)
        if moves:
            yield self.generator_loss(batch, rendered or self.rendered(batch))

    def _discriminator_loss(self, batch: Batch, fake: Tensor, draws: Draws) -> Loss:
        config = self.config
        real_criticism, real_class = self.discriminator(batch.real)
        fake_criticism, _ = self.discriminator(fake)
        share = draws.uniform(1, 1, 1)
        between = (share * batch.real + (1 - share) * fake.float()).requires_grad_()
        logged = {
            "critic_real": real_criticism.float().mean(),
            "critic_fake": fake_criticism.float().mean(),
            "critic": critic_loss(real_criticism, fake_criticism),
            "class": class_loss(real_class, batch.source),
            "penalty": gradient_penalty(self.discriminator(between)[0], between),
        }
        loss = (
            logged["critic"]
            + config.penalty_weight * logged["penalty"]
            + config.class_weight * logged["class"]
        )
        return Loss("discriminator", loss, logged | vital_signs(batch.real, fake))

    def persuasion(self, fake: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What G pays for D's doubts about its pictures, weighted, and each part to log."""
        config = self.config
        criticism, logits = self.discriminator(fake)
        logged = {
            "adversarial": critic_adversarial_loss(criticism),
            "fake_class": class_loss(logits, target),
        }
        loss = (
            config.adversarial_weight * logged["adversarial"]
            + config.fake_class_weight * logged["fake_class"]
        )
        return loss, logged
