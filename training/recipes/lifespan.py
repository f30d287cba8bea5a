"""Lifespan Age Transformation Synthesis (Or-El et al., ECCV 2020), one network for all groups.

Where this differs from the publication: codes, heads and latents per (group, cluster), and a
neutral group (mean code, mean logit) trained by dropping the group in a share of the draws; R1 is
Mescheder's on the selected logit, lazily; D's last LeakyReLU is left out; D learns from real
images under a wrong class too, and may see random views; the age loss is squared, and E_age learns
from real images alone, so that it cannot agree with G on a sign for an age; the losses that encode
a generated image again may be taken lazily; a start that trains reconstruction, then D, alone; the
average of weights is measured in images.
"""

from collections.abc import Mapping
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim import Adam, Optimizer

from model.ages import age_codes
from model.networks.discriminator import Discriminator
from model.networks.lifespan import LifespanGenerator, LifespanShape
from training.augment import discriminator_views
from training.config import FitConfig
from training.data import Batch
from training.losses import (
    absolute_error,
    adversarial_loss,
    age_loss,
    discriminator_loss,
    mismatch_loss,
    r1_penalty,
)
from training.recipes import Update


def generator_shape(config: FitConfig) -> LifespanShape:
    """Sizes of the generator that a configuration asks for."""
    code = age_codes(len(config.clusters), len(config.groups), config.elements).shape[-1]
    return LifespanShape(config.width, code, config.latent, config.style_gain)


class LifespanRecipe:
    """Networks, optimisers and the step of Lifespan; see `Recipe` for the contract."""

    def __init__(self, config: FitConfig) -> None:
        self.config = config
        anchors, populations = len(config.clusters), len(config.groups)
        codes = age_codes(anchors, populations, config.elements)
        self.codes = torch.from_numpy(codes)
        """(groups, anchors, code)"""
        heads = torch.from_numpy(age_codes(anchors, populations, 1))
        self.heads = heads / heads.sum(-1, keepdim=True)
        """(groups, anchors, classes): which logits count, by how much"""
        self.generator = LifespanGenerator(generator_shape(config))
        if config.decoder_start == "passing":
            self.generator.decoder.draw_passing()
        self.discriminator = Discriminator(
            config.resolution,
            populations * anchors,
            config.discriminator_width,
            coarse=config.coarse_share > 0,
        )

    def to(self, device: str) -> Self:
        for network in (self.generator, self.discriminator):
            network.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.codes, self.heads = self.codes.to(device), self.heads.to(device)
        return self

    def optimisers(self) -> Mapping[str, Optimizer]:
        config, rate = self.config, self.config.learning_rate
        slow, fast = (
            list(self.generator.slow_parameters()),
            list(self.generator.fast_parameters()),
        )
        groups = [{"params": fast, "lr": rate}, {"params": slow, "lr": rate * config.slow_rate}]
        judge = self.discriminator.parameters()
        return {
            # Codes and styles stay as they are drawn: noise on the code only disturbs a
            # reconstruction, which would teach the mapping to give all ages one latent.
            "reconstruction": Adam(fast, config.reconstruction_rate, betas=(0.9, 0.99), fused=True),
            "generator": Adam(groups, betas=config.generator_betas, fused=True),
            "discriminator": Adam(
                judge, config.discriminator_rate, config.discriminator_betas, fused=True
            ),
        }

    def noisy_code(self, group: Tensor, cluster: Tensor) -> Tensor:
        """Codes z (N, code) of groups and clusters (N,), noise on every element."""
        code = self.codes[group, cluster]
        return code + self.config.code_noise * torch.randn_like(code)

    def selected(self, logits: Tensor, group: Tensor, cluster: Tensor) -> Tensor:
        """The logits (N,) that count: the class's own, the mean over populations for neutral."""
        return (logits.float() * self.heads[group, cluster]).sum(1)

    def judged(self, image: Tensor, coarse: bool = False) -> Tensor:
        """D's logits (N, classes) of random views of the images, or of their halved copies."""
        if coarse:
            image = functional.avg_pool2d(image, 2)
        return self.discriminator(discriminator_views(image, self.config.augment))

    def coarse(self) -> bool:
        """Whether D judges halved images in this step: at random, so that both kinds mix."""
        share = self.config.coarse_share
        return share > 0 and float(torch.rand(())) < share

    def step(self, batch: Batch, images_seen: int, steps: int, update: Update) -> dict[str, Tensor]:
        start = self.config.reconstruction_images
        if images_seen < start:
            return self._step_reconstruction(batch, update)
        if images_seen < start + self.config.discriminator_images:
            return self._step_discriminator(batch, None, self.coarse(), steps, update)
        polishing = images_seen >= self.config.images - self.config.polish_images
        weight = self.config.polish_weight if polishing else self.config.reconstruction_weight
        return self._step_all(batch, weight, steps, update)

    def _step_reconstruction(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        config, generator = self.config, self.generator
        code = self.noisy_code(batch.group, batch.source)
        reconstruction = absolute_error(generator(batch.real, code), batch.real)
        age = age_loss(generator.age_encoder(batch.real), code)
        update(
            "reconstruction",
            config.reconstruction_weight * reconstruction + config.age_weight * age,
        )
        return {"reconstruction": reconstruction, "age": age}

    def _step_all(
        self, batch: Batch, reconstruction_weight: float, steps: int, update: Update
    ) -> dict[str, Tensor]:
        config, generator = self.config, self.generator
        real, group = batch.real, batch.group
        source_code, target_code = (
            self.noisy_code(group, cluster) for cluster in (batch.source, batch.target)
        )
        source_latent, target_latent = generator.mapping(
            torch.cat([source_code, target_code])
        ).chunk(2)
        identity = generator.identity_encoder(real)
        rebuilt, fake = generator.decoder(
            torch.cat([identity, identity]), torch.cat([source_latent, target_latent])
        ).chunk(2)
        coarse = self.coarse()
        logged = self._step_discriminator(batch, fake.detach(), coarse, steps, update)

        judged = self.selected(self.judged(fake, coarse), group, batch.target)
        logged |= {
            "adversarial": adversarial_loss(judged),
            "reconstruction": absolute_error(rebuilt, real),
        }
        loss = (
            config.adversarial_weight * logged["adversarial"]
            + reconstruction_weight * logged["reconstruction"]
        )
        if steps % config.consistency_interval == 0:
            fake_identity = generator.identity_encoder(fake)
            cycled = generator.decoder(fake_identity, source_latent)
            encoder = generator.age_encoder
            fixed = {name: p.detach() for name, p in encoder.named_parameters()}
            logged |= {
                "cycle": absolute_error(cycled, real),
                "identity": absolute_error(fake_identity, identity),
                "age": age_loss(encoder(real), source_code),
                "fake_age": age_loss(functional_call(encoder, fixed, (fake,)), target_code),
            }
            loss = loss + config.consistency_interval * (
                config.cycle_weight * logged["cycle"]
                + config.identity_weight * logged["identity"]
                + config.age_weight * (logged["age"] + logged["fake_age"])
            )
        update("generator", loss)
        return logged

    def _step_discriminator(
        self, batch: Batch, fake: Tensor | None, coarse: bool, steps: int, update: Update
    ) -> dict[str, Tensor]:
        """D against the step's own images: G has not moved, so drawing them again gains nothing.

        Without `fake` it learns from real images under right and wrong classes alone.
        """
        config = self.config
        penalised = steps % config.r1_interval == 0
        real = batch.real.detach().requires_grad_(penalised)
        logits = self.judged(real, coarse)
        every = torch.einsum("nk,nak->na", logits.float(), self.heads[batch.group])
        steps_on = torch.arange(every.shape[1], device=every.device)
        every = every.gather(1, (batch.source[:, None] + steps_on) % every.shape[1])
        real_logits, wrong_logits = every[:, 0], every[:, 1:]
        mismatch = mismatch_loss(wrong_logits)
        logged = {
            "real_logit": real_logits.mean(),
            "wrong_logit": wrong_logits.mean(),
            "told_apart": (real_logits[:, None] > wrong_logits).float().mean(),
        }
        if fake is None:
            loss = adversarial_loss(real_logits) + mismatch
        else:
            fake_logits = self.selected(self.judged(fake, coarse), batch.group, batch.target)
            logged["fake_logit"] = fake_logits.mean()
            loss = discriminator_loss(real_logits, fake_logits) + config.mismatch_weight * mismatch
        logged["discriminator"] = loss
        if penalised:
            penalty = r1_penalty(real_logits, real)
            loss = loss + config.r1_gamma * config.r1_interval * penalty
            logged["r1"] = penalty
        update("discriminator", loss)
        return logged

    def anchors(self, generator: nn.Module, image: Tensor, group: int) -> Tensor:
        network = cast(LifespanGenerator, generator)
        latents = network.mapping(self.codes[group])
        identity = network.identity_encoder(image)
        count, anchors = len(image), len(latents)
        pictures = network.decoder(identity.repeat_interleave(anchors, 0), latents.repeat(count, 1))
        return pictures.unflatten(0, (count, anchors))

    def reconstruction(self, generator: nn.Module, image: Tensor, cluster: Tensor) -> Tensor:
        network = cast(LifespanGenerator, generator)
        return network.decoder(
            network.identity_encoder(image), network.mapping(self.codes[-1, cluster])
        )
