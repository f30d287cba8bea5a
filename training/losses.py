"""Losses as pure functions; each takes what a network returned and gives a scalar tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from model.networks.layers import blur, luma


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-V(D, G) of Goodfellow et al. (2014), with D(x) the sigmoid of a logit.

    V = E[log D(x)] + E[log(1 - D(G(z)))] over logits (N,) of real and of generated images. The best
    D is p_data / (p_data + p_G); where the two agree it is 1/2 everywhere and V is -log 4, which is
    its least value over G, reached at the greatest over D.
    """
    return functional.softplus(-real).mean() + functional.softplus(fake).mean()


def minimax_loss(fake: Tensor) -> Tensor:
    """What G lowers in V(D, G) itself (Goodfellow et al. 2014): E[log(1 - D(G(z)))]; logits (N,).

    Its gradient vanishes where D is sure, so `adversarial_loss` is the usual choice.
    """
    return -functional.softplus(fake).mean()


def mismatch_loss(wrong: Tensor) -> Tensor:
    """What D pays for calling a real image one of a class that is not its own (Reed et al. 2016).

    `wrong` (any shape) are the logits of real images under other classes. Without it D can tell
    fake from real by sharpness alone for a long time, and its logits say nothing about age.
    """
    return functional.softplus(wrong).mean()


def adversarial_loss(fake: Tensor) -> Tensor:
    """Non-saturating loss of G (Goodfellow et al. 2014) on D's logits (N,) of its images."""
    return functional.softplus(-fake).mean()


def r1_penalty(logits: Tensor, real: Tensor) -> Tensor:
    """Half the mean squared gradient norm of D on real images (Mescheder et al. 2018).

    `logits` (N,) are the selected class's; `real` (N, 3, H, W) must require grad. The published
    Lifespan code takes the gradient of the mean over the batch and all classes instead, so its
    weight shrinks with the square of the batch.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()


def absolute_error(estimate: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference of two tensors of one shape.

    Serves the consistency terms of Or-El et al. (2020), section 3.3: reconstruction and cycle
    (images), identity (features of E_id).
    """
    return (estimate - truth).abs().mean()


def fine_changes(image: Tensor, bent: Tensor, scales: int = 1) -> Tensor:
    """Mean square (N,) of the fine detail in the change from `bent` to `image`, (N, 3, R, R) both.

    Fine is what a Gaussian blur of 1.7 pixels takes away (six passes of [1 2 1] / 4). Broken
    patches cost far more than the same amount of shading, and faint lines little. With more
    `scales` the same is added of the change halved in size, and so on: of blotches twice as wide.
    """
    change = image - bent
    fine = change.new_zeros(len(change))
    for scale in range(scales):
        change = functional.avg_pool2d(change, 2) if scale else change
        smooth = change
        for _ in range(6):
            smooth = blur(smooth)
        fine = fine + (change - smooth).square().mean(dim=(1, 2, 3))
    return fine


def added_colour(image: Tensor, bent: Tensor) -> Tensor:
    """Mean square by which the change from `bent` to `image`, (N, 3, R, R) both, adds colour.

    A pixel's colour is its distance from the grey of its luma (Rec. 601). What fades costs nothing:
    hair goes grey, and its ends make room for the background. Blotches that come from nowhere cost.
    """

    def colour(x: Tensor) -> Tensor:
        return (x - luma(x)).square().sum(1).add(1e-6).sqrt()

    return functional.relu(colour(image.float()) - colour(bent.float())).square().mean()


def age_loss(estimate: Tensor, code: Tensor) -> Tensor:
    """Mean squared difference of E_age's answers and age codes, (N, code) both.

    The publication takes the absolute difference, whose best answer to a code that is 0 in eleven
    of twelve places is 0 until the class is all but sure. The square's is the class's probability.
    """
    return (estimate - code).square().mean()


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What a Wasserstein critic lowers: E[D(G(z))] - E[D(x)] (Arjovsky et al. 2017, eq. 2).

    Criticism of real and of generated images, of any shape; the mean is over patches too. With a
    critic of slope 1 its negative is at most the earth mover's distance of the two.
    """
    return fake.float().mean() - real.float().mean()


def critic_adversarial_loss(fake: Tensor) -> Tensor:
    """What G lowers against a Wasserstein critic: -E[D(G(z))] (Arjovsky et al. 2017)."""
    return -fake.float().mean()


def gradient_penalty(criticism: Tensor, image: Tensor) -> Tensor:
    """Mean squared distance from 1 of the critic's gradient norm (Gulrajani et al. 2017, eq. 3).

    `criticism` (N, ...) is that of `image` (N, 3, H, W), which requires grad. The patches of an
    image are summed and not averaged, as in StarGAN's published code.
    """
    (gradient,) = torch.autograd.grad(criticism.float().sum(), image, create_graph=True)
    return (gradient.float().flatten(1).norm(dim=1) - 1).square().mean()


def class_loss(logits: Tensor, cluster: Tensor) -> Tensor:
    """Cross entropy of the softmax over clusters (Choi et al. 2018, eqs. 2 and 3).

    Logits (N, clusters) under the wanted clusters (N,).
    """
    return functional.cross_entropy(logits.float(), cluster)


def least_squares_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What D pays for scores (any shape) away from 1 of real and from 0 of generated images.

    The least-squares loss of Mao et al. (2017), halved as Zhu et al. (2017) do.
    """
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def least_squares_adversarial_loss(fake: Tensor) -> Tensor:
    """What G pays for scores (any shape) away from 1 of its images (Mao et al. 2017)."""
    return (fake - 1).square().mean()


def squared_error(estimate: Tensor, truth: Tensor) -> Tensor:
    """Mean squared difference of two tensors of one shape: reconstruction of Kim et al. (2017)."""
    return (estimate - truth).square().mean()


def feature_matching_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """How far the means over a batch of D's features are apart (Salimans et al. 2016).

    Features (N, C, H, W) of several layers; the mean squared difference of each layer's means, and
    their sum over layers, as Kim et al. (2017) take it.
    """
    pairs = zip(real, fake, strict=True)
    return torch.stack([squared_error(b.mean(0), a.mean(0)) for a, b in pairs]).sum()
