"""Views of images that the discriminator sees: differentiable, the same for real and generated."""

import torch
from torch import Tensor
from torch.nn import functional

from model.networks.layers import blur
from training.draws import Draws


def discriminator_views(image: Tensor, strength: float, draws: Draws, share: float = 1.0) -> Tensor:
    """Images (N, 3, R, R) in [-1, 1], each moved, coloured, filtered and made noisy at random.

    At strength 1 an image moves by up to an eighth of its side, grey entering at the border as it
    lies behind every portrait; brightness changes by up to 0.2, contrast and saturation by factors
    in [0.75, 1.25] and [0.5, 1.5] (Zhao et al. 2020). Details of one and of two pixels are scaled
    by factors in [1/8, 8] and [1/2, 2], so that D cannot take mere sharpness for a sign of a real
    image (the image-space filtering of Karras et al. 2020), and noise of a standard deviation of up
    to 0.2 lies over it (their corruption). At 0 the images come back as they are. Only a `share` of
    the images is changed at random; with less than all, G cannot gain by making views itself
    (Karras et al. 2020, "leaking"). The gradient reaches `image`.
    """
    if strength == 0 or share == 0:
        return image
    count, _, side, _ = image.shape
    changed = draws.uniform() < share

    def uniform(reach: float) -> Tensor:
        span = reach * strength * changed.view(-1, 1, 1, 1)
        return (draws.uniform(1, 1, 1) * 2 - 1) * span

    soft = blur(image)
    softer = blur(blur(blur(soft)))
    x = softer + (soft - softer) * 2 ** uniform(1) + (image - soft) * 8 ** uniform(1)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (1 + uniform(0.5))
    middle = x.mean(dim=(1, 2, 3), keepdim=True)
    x = middle + (x - middle) * (1 + uniform(0.25)) + uniform(0.2)
    x = x + draws.normal(*x.shape[1:]) * uniform(0.2).abs()
    reach = round(side * strength / 8)
    steps = draws.integers(2 * reach + 1, 2)
    steps = torch.where(changed[:, None], steps, reach).t()
    line = torch.arange(side, device=image.device)
    rows, columns = (steps[:, :, None] + line).unbind()
    wide = functional.pad(x, (reach,) * 4).permute(0, 2, 3, 1)
    every = torch.arange(count, device=image.device)[:, None, None]
    return wide[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
