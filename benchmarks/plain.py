"""The published recipe as one would write it at first: what the training engine is measured by."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from torch.optim import Adam

from model.networks import discriminator
from model.networks.layers import PixelNorm, low_passed, pixel_normalised
from training.data import PortraitSet
from training.losses import (
    absolute_error,
    adversarial_loss,
    age_loss,
    discriminator_loss,
    r1_penalty,
)
from training.recipes.lifespan import LifespanConfig, LifespanRecipe


@contextmanager
def _operations_of_the_framework() -> Iterator[None]:
    """Layers of the networks without the derivatives that this package has written for them.

    D's low-pass as a convolution of each channel, which nobody knows to be its own adjoint, and
    PixelNorm as single operations.
    """
    own = discriminator.blur, PixelNorm.forward
    discriminator.blur = lambda x: low_passed(x, 1)
    PixelNorm.forward = lambda self, x: pixel_normalised(x)
    try:
        yield
    finally:
        discriminator.blur, PixelNorm.forward = own


class PlainLoop:
    """Float32 in framework defaults, on the networks and batches of a configuration.

    A pass of G for D's step and one for its own, all five losses and R1 in every step, an average
    that forgets a thousandth a step, a scalar of each loss read for the log. With `own_layers` the
    networks keep the derivatives that this package has written for some of their layers.
    """

    def __init__(
        self,
        config: LifespanConfig,
        portraits: PortraitSet,
        device: torch.device,
        rate: float = 1e-3,
        own_layers: bool = False,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.portraits = config, portraits
        self._layers = nullcontext if own_layers else _operations_of_the_framework
        self.recipe = recipe = LifespanRecipe(config)
        self.generator = recipe.generator.to(device)
        self.discriminator = recipe.discriminator.to(device)
        recipe.codes, recipe.heads = recipe.codes.to(device), recipe.heads.to(device)
        self.averaged = copy.deepcopy(self.generator)
        self._learns_generator = Adam(self.generator.parameters(), rate, (0.0, 0.999))
        self._learns_discriminator = Adam(self.discriminator.parameters(), rate, (0.0, 0.999))
        self._draws = torch.Generator().manual_seed(config.seed)
        self.images_seen = 0

    def step(self) -> dict[str, float]:
        """One step of D and one of G; returns the losses."""
        with self._layers():
            return self._step()

    def _step(self) -> dict[str, float]:
        generator, judge, recipe = self.generator, self.discriminator, self.recipe
        batch = self.portraits.draw(self.config.batch, self._draws)
        real, group = batch.real, batch.group

        def code(cluster: Tensor) -> Tensor:
            clean = recipe.codes[group, cluster]
            return clean + self.config.code_noise * torch.randn_like(clean)

        source, target = code(batch.source), code(batch.target)
        with torch.no_grad():
            fake = generator(real, target)
        self._learns_discriminator.zero_grad()
        shown = real.detach().requires_grad_()
        real_logit = recipe.selected(judge(shown), group, batch.source)
        fake_logit = recipe.selected(judge(fake), group, batch.target)
        loss = discriminator_loss(real_logit, fake_logit) + r1_penalty(real_logit, shown)
        loss.backward()
        self._learns_discriminator.step()

        self._learns_generator.zero_grad()
        rebuilt, fake = generator(real, source), generator(real, target)
        encode, age = generator.identity_encoder, generator.age_encoder
        losses = {
            "adversarial": adversarial_loss(recipe.selected(judge(fake), group, batch.target)),
            "reconstruction": 10 * absolute_error(rebuilt, real),
            "cycle": 10 * absolute_error(generator(fake, source), real),
            "identity": absolute_error(
                encode(fake)[:, : encode.features], encode(real)[:, : encode.features]
            ),
            "age": age_loss(age(real), source) + age_loss(age(fake), target),
        }
        torch.stack(list(losses.values())).sum().backward()
        self._learns_generator.step()
        with torch.no_grad():
            averaged = self.averaged.parameters()
            for mine, theirs in zip(averaged, generator.parameters(), strict=True):
                mine.lerp_(theirs, 0.001)
        self.images_seen += self.config.batch
        return {name: value.item() for name, value in ({"discriminator": loss} | losses).items()}
