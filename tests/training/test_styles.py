import numpy as np
import torch

from model.ages import age_codes
from model.networks.layers import EqualLinear
from model.networks.lifespan import LifespanGenerator, LifespanShape
from training.styles import latents_leaned, reach_out, refit

CODES = torch.from_numpy(age_codes(6, 2, 4))
REACH = (1.0, 1.2, 1.5, 2.0, 2.0, 0.5)


def styles(generator: LifespanGenerator, codes: torch.Tensor) -> list[torch.Tensor]:
    """Styles (codes, channels) of every styled layer."""
    latents = generator.mapping(codes)
    return [layer.normalise(layer.affine(latents)) for layer in generator.decoder.styled()]


def generator(style_norm: bool) -> LifespanGenerator:
    shape = LifespanShape(4, CODES.shape[-1], 64, style_gain=0.2, style_norm=style_norm)
    return LifespanGenerator(shape)


@torch.no_grad()
def test_styles_of_every_group_are_moved_away_from_the_default_groups_mean():
    for style_norm in (True, False):
        source, target = generator(style_norm), generator(False)
        reach_out(source, target, CODES, REACH)
        for group in CODES:
            layers = (styles(source, CODES[-1]), styles(source, group), styles(target, group))
            for neutral, old, new in zip(*layers, strict=True):
                centre = neutral.mean(0)
                wanted = centre + torch.tensor(REACH)[:, None] * (old - centre)
                torch.testing.assert_close(new, wanted, atol=1e-3, rtol=0)


@torch.no_grad()
def test_noise_on_a_code_moves_refitted_styles_no_more_than_it_did():
    source, target = generator(True), generator(False)
    reach_out(source, target, CODES, (1.0,) * 6)
    noisy = CODES[-1] + 0.05 * torch.randn(6, CODES.shape[-1])
    moved = [
        torch.stack([(a - b).square().mean() for a, b in zip(*both, strict=True)]).mean()
        for both in (
            (styles(network, noisy), styles(network, CODES[-1])) for network in (source, target)
        )
    ]
    assert moved[1] < 2 * moved[0]


def test_latents_lean_towards_the_anchor_before():
    latents = np.arange(24, dtype=np.float32).reshape(2, 3, 4) ** 2
    leaned = latents_leaned(latents, (0.5, 0.0, 0.25))
    assert leaned.dtype == np.float32
    np.testing.assert_array_equal(leaned[:, :2], latents[:, :2])
    np.testing.assert_allclose(leaned[:, 2], 0.75 * latents[:, 2] + 0.25 * latents[:, 1])


@torch.no_grad()
def test_a_refitted_layer_gives_what_was_asked_and_else_stays_near_what_it_was():
    torch.manual_seed(0)
    layer = EqualLinear(16, 3)
    inputs, outputs, other = torch.randn(5, 16), torch.randn(5, 3), torch.randn(7, 16)
    known = torch.cat([inputs, torch.ones(5, 1) / layer.scale], 1)
    # Of the other inputs, what lies across the known ones is told apart from them alone.
    across = torch.cat([other, torch.ones(7, 1) / layer.scale], 1)
    across = across - across @ torch.linalg.pinv(known) @ known
    weights = torch.cat([layer.weight, layer.bias[:, None]], 1)
    refit(layer, inputs, outputs)
    torch.testing.assert_close(layer(inputs), outputs, atol=1e-4, rtol=0)
    moved = torch.cat([layer.weight, layer.bias[:, None]], 1) - weights
    torch.testing.assert_close(across @ moved.T, torch.zeros(7, 3), atol=1e-4, rtol=0)
