"""S2GAN (He et al., ICCV 2019): a personal basis of a face, and ages as transforms of it.

Faithful in structure: one encoder gives a person's basis, each age is a transform that all people
share, and ages between anchors are mixtures of combinations. The hyper-parameters are OURS, since
the authors published no code and the paper's numbers were not at hand: sizes of layers, the number
of bases, every weight, rate and schedule. The weights and rates follow the first author's AttGAN
(He et al. 2019), which learns against the same kind of critic; D is StarGAN's. Mixtures are not
trained, only the anchors themselves.
"""

from dataclasses import dataclass
from typing import ClassVar, cast

from torch import Tensor, nn

from model.networks.s2gan import S2ganGenerator, S2ganShape
from training.data import Batch
from training.losses import absolute_error
from training.recipes import Exportable, Loss
from training.recipes.critic import CriticConfig, CriticRecipe, Rendered


@dataclass(frozen=True)
class S2ganConfig(CriticConfig):
    """Settings of the method. All are ours."""

    method: str = "s2gan"
    batch: int = 32
    learning_rate: float = 2e-4
    discriminator_rate: float = 2e-4
    bases: int = 8
    """Maps of a person's basis."""
    basis_channels: int = 32
    """Channels of each."""
    fake_class_weight: float = 10.0
    reconstruction_weight: float = 100.0
    shaping: ClassVar[tuple[str, ...]] = (*CriticConfig.shaping, "bases", "basis_channels")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("bases", "basis_channels")


def generator_shape(config: S2ganConfig) -> S2ganShape:
    """Sizes of the generator that a configuration asks for."""
    return S2ganShape(config.width, len(config.clusters), config.bases, config.basis_channels)


class S2ganRecipe(CriticRecipe[S2ganConfig, S2ganGenerator]):
    """Networks, optimisers and the step of S2GAN; see `Recipe` for the contract."""

    settings = S2ganConfig

    def __init__(self, config: S2ganConfig) -> None:
        super().__init__(config, S2ganGenerator(generator_shape(config)))

    def rendered(self, batch: Batch) -> Rendered:
        """Images at their targets and at their sources, of one basis each."""
        basis, decoder = self.generator.encoder(batch.real), self.generator.decoder
        fake = decoder(basis, self.labels[batch.target])
        return Rendered(fake, decoder(basis, self.labels[batch.source]))

    def generator_loss(self, batch: Batch, rendered: Rendered) -> Loss:
        loss, logged = self.persuasion(rendered.fake, batch.target)
        reconstruction = absolute_error(rendered.rebuilt, batch.real)
        loss = loss + self.config.reconstruction_weight * reconstruction
        return Loss("generator", loss, logged | {"reconstruction": reconstruction})

    def anchors(self, generator: nn.Module, image: Tensor, group: int) -> Tensor:
        network = cast(S2ganGenerator, generator)
        basis, count, anchors = network.encoder(image), len(image), len(self.labels)
        pictures = network.decoder(
            basis.repeat_interleave(anchors, 0), self.labels.repeat(count, 1)
        )
        return pictures.unflatten(0, (count, anchors))

    def reconstruction(self, generator: nn.Module, image: Tensor, cluster: Tensor) -> Tensor:
        return generator(image, self.labels[cluster])

    def exportable(self, generator: nn.Module) -> Exportable:
        network = cast(S2ganGenerator, generator)
        return Exportable(
            network.encoder,
            (network.decoder,),
            self.labels[None].cpu().numpy(),
            self.config.age_clusters,
            self.config.bundle_groups,
            "combinations",
        )
