"""Styles of a trained Lifespan generator, moved along the lines that training laid."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.networks.layers import EqualLinear
from model.networks.lifespan import LifespanGenerator

CONDITION = 1e-6
"""Least singular value, relative to the largest, that a refit follows."""


@torch.no_grad()
def reach_out(
    source: LifespanGenerator, target: LifespanGenerator, codes: Tensor, reach: Sequence[float]
) -> None:
    """Gives `target` the weights of `source`, with every anchor's styles moved from their mean.

    In every styled layer the style s of (group, anchor) becomes m + reach[anchor] (s - m), where m
    is the mean over the anchors of the last group, the one served by default. The affines of
    `target`, whose styles have a length of their own (no `style_norm`), are changed as little as
    gives its clean latents these styles (least squares of least norm): latents between anchors
    follow. `codes` (groups, anchors, code) on the CPU, `reach` one factor an anchor.
    """
    target.load_state_dict(source.state_dict())
    latents = source.mapping(codes.flatten(0, 1)).double()
    factors = torch.tensor(reach, dtype=torch.float64).repeat(len(codes))[:, None]
    for before, after in zip(source.decoder.styled(), target.decoder.styled(), strict=True):
        drawn = before.affine(latents.float())
        styles = before.normalise(drawn).double()
        mean = styles[-len(reach) :].mean(0)
        length = drawn.square().mean().sqrt() if source.shape.style_norm else torch.ones(())
        for parameter in after.affine.parameters():
            parameter.div_(length)
        refit(after.affine, latents, mean + factors * (styles - mean))


@torch.no_grad()
def refit(layer: EqualLinear, inputs: Tensor, outputs: Tensor) -> None:
    """Changes a layer as little as takes inputs (A, I) to these outputs (A, O), or nearest to them.

    Least squares of least norm, in double precision.
    """
    inputs = inputs.double()
    missing = outputs.double() - layer(inputs.float()).double()
    known = torch.cat([inputs * layer.scale, inputs.new_ones(len(inputs), 1)], 1)
    change = (torch.linalg.pinv(known, rcond=CONDITION) @ missing).float()
    layer.weight.add_(change[:-1].t())
    layer.bias.add_(change[-1])


def latents_reached(latents: NDArray[np.float32], reach: Sequence[float]) -> NDArray[np.float32]:
    """Latents (groups, anchors, K), every anchor's moved away from the mean of the default group's.

    w becomes m + reach[anchor] (w - m). Without `style_norm` styles follow w linearly, so that all
    of an anchor's styles move by the same factor, as in `reach_out`.
    """
    mean = latents[-1].mean(0)
    return (mean + np.asarray(reach, np.float32)[:, None] * (latents - mean)).astype(np.float32)


def latents_leaned(latents: NDArray[np.float32], lean: Sequence[float]) -> NDArray[np.float32]:
    """Latents (groups, anchors, K), each a share of the way to the anchor's before it.

    w becomes w + lean[anchor] (w_before - w); the first has none before it, and stays.
    """
    before = np.roll(latents, 1, 1)
    before[:, 0] = latents[:, 0]
    shares = np.asarray(lean, np.float32)[:, None]
    return (latents + shares * (before - latents)).astype(np.float32)
