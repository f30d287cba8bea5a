"""StarGAN (Choi et al., CVPR 2018): one generator that is told the wanted cluster by a label.

As in the published code, targets are the batch's own labels in another order, so that about a sixth
of the portraits are wanted at their own cluster. Where this differs from it: the rates do fall
linearly to zero over the second half, as the paper says; the code lowers them by a thousandth of
that. Instance norm takes its statistics from the picture at hand in every mode, optimisers resume,
and the average of weights is what is sampled and exported. Portraits are masked, and D's depth
follows the resolution. What the publication calls reconstruction is the cycle loss here.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from model.networks.stargan import StarganGenerator
from training.data import Batch, PortraitSet
from training.losses import absolute_error
from training.recipes import Exportable, Loss
from training.recipes.critic import CriticConfig, CriticRecipe, Rendered


@dataclass(frozen=True)
class StarganConfig(CriticConfig):
    """Settings of the method, the publication's unless a preset says otherwise."""

    method: str = "stargan"
    batch: int = 16
    learning_rate: float = 1e-4
    discriminator_rate: float = 1e-4
    residuals: int = 6
    """Residual blocks of G."""
    cycle_weight: float = 10.0
    """The publication's reconstruction weight."""
    shaping: ClassVar[tuple[str, ...]] = (*CriticConfig.shaping, "residuals")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("residuals")


class StarganRecipe(CriticRecipe[StarganConfig, StarganGenerator]):
    """Networks, optimisers and the step of StarGAN; see `Recipe` for the contract."""

    settings = StarganConfig

    def __init__(self, config: StarganConfig) -> None:
        generator = StarganGenerator(len(config.clusters), config.width, config.residuals)
        super().__init__(config, generator)

    def draw(
        self, portraits: PortraitSet, generator: torch.Generator, images_seen: int, steps: int
    ) -> Batch:
        batch = super().draw(portraits, generator, images_seen, steps)
        order = torch.randperm(len(batch.source), generator=generator)
        return replace(batch, target=batch.source[order.to(batch.source.device)])

    def rendered(self, batch: Batch) -> Rendered:
        """Images at their targets, and from there back at their sources."""
        fake = self.generator(batch.real, self.labels[batch.target])
        return Rendered(fake, self.generator(fake, self.labels[batch.source]))

    def generator_loss(self, batch: Batch, rendered: Rendered) -> Loss:
        loss, logged = self.persuasion(rendered.fake, batch.target)
        cycle = absolute_error(rendered.rebuilt, batch.real)
        loss = loss + self.config.cycle_weight * cycle
        return Loss("generator", loss, logged | {"cycle": cycle})

    def anchors(self, generator: nn.Module, image: Tensor, group: int) -> Tensor:
        count, anchors = len(image), len(self.labels)
        pictures = generator(image.repeat_interleave(anchors, 0), self.labels.repeat(count, 1))
        return pictures.unflatten(0, (count, anchors))

    def reconstruction(self, generator: nn.Module, image: Tensor, cluster: Tensor) -> Tensor:
        return generator(image, self.labels[cluster])

    def exportable(self, generator: nn.Module) -> Exportable:
        """Labels between clusters were never trained, so there are no ages between anchors."""
        return Exportable(
            None,
            (cast(StarganGenerator, generator),),
            self.labels[None].cpu().numpy(),
            self.config.age_clusters,
            self.config.bundle_groups,
            None,
        )
