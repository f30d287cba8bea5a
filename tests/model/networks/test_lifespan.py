from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from model.ages import age_codes
from model.networks.discriminator import Discriminator
from model.networks.lifespan import LifespanGenerator, LifespanShape
from training.published import published_generator

WITNESS = Path(__file__).parents[2] / "data" / "lats_reference_ngf8.npz"


@pytest.fixture(scope="module")
def witness():
    with np.load(WITNESS) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def generator(witness):
    prefix = "state/"
    state = {k.removeprefix(prefix): v for k, v in witness.items() if k.startswith(prefix)}
    return published_generator(state).eval()


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@torch.no_grad()
def test_identity_equals_the_published_networks(generator, witness):
    close(generator.identity_encoder(witness["image"]), witness["identity"])


@torch.no_grad()
def test_age_features_equal_the_published_networks(generator, witness):
    close(generator.age_encoder(witness["image"]), witness["age_features"])


@torch.no_grad()
def test_latents_of_our_noise_free_codes_equal_the_published_networks(generator, witness):
    np.testing.assert_array_equal(age_codes(6)[0], witness["age_code"])
    close(generator.mapping(torch.from_numpy(age_codes(6)[0])), witness["latent"])


@torch.no_grad()
def test_every_output_equals_the_published_networks(generator, witness):
    for anchor in range(6):
        code = witness["age_code"][anchor].expand(2, -1)
        close(generator(witness["image"], code), witness["output"][:, anchor])


def test_parameter_counts_are_the_published_ones():
    generator = LifespanGenerator(LifespanShape())
    assert parameters(generator.identity_encoder) == 5_099_136
    assert parameters(generator.age_encoder) == 6_585_772
    assert parameters(generator.decoder) + parameters(generator.mapping) == 6_486_147
    assert parameters(generator) == 18_171_055


def test_the_discriminator_at_256_px_has_the_published_count():
    assert parameters(Discriminator(256, 6)) == 21_219_334


def test_mapping_and_affines_are_the_slow_parameters_and_nothing_is_in_both():
    generator = LifespanGenerator(LifespanShape(4, 12, 8))
    slow, fast = list(generator.slow_parameters()), list(generator.fast_parameters())
    names = {id(p): name for name, p in generator.named_parameters()}
    assert {("mapping" in names[id(p)]) or ("affine" in names[id(p)]) for p in slow} == {True}
    assert len(slow) + len(fast) == len(names)
    assert not {id(p) for p in slow} & {id(p) for p in fast}


@pytest.mark.parametrize("resolution", [32, 64, 96])
def test_any_resolution_gives_pictures_of_its_size(resolution):
    generator = LifespanGenerator(LifespanShape(4, 12, 8))
    image = torch.zeros(2, 3, resolution, resolution)
    assert generator(image, torch.zeros(2, 12)).shape == image.shape


OVERLAY = LifespanShape(4, 12, 8, overlay=True)


@pytest.fixture
def overlaid():
    torch.manual_seed(0)
    return LifespanGenerator(OVERLAY).eval()


@torch.no_grad()
def laid(generator, image, mask=None, flow=(0.0, 0.0)):
    """A picture, with the mask's logit and the flow (across, down) the same everywhere."""
    overlay = generator.decoder.overlay
    if mask is not None:
        overlay.to_mask.bias.fill_(mask)
    overlay.flow.last.bias.copy_(torch.atanh(torch.tensor(flow) / overlay.flow.REACH))
    return generator(image, torch.ones(len(image), 12))


def images(count, side, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_an_overlay_without_mask_and_flow_is_the_portrait(overlaid):
    image = images(2, 16)
    torch.testing.assert_close(laid(overlaid, image, mask=-100.0), image, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_full_mask_shows_what_a_generator_without_overlay_draws(overlaid):
    plain = LifespanGenerator(LifespanShape(4, 12, 8)).eval()
    weights = overlaid.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    image = images(2, 16)
    drawn = plain(image, torch.ones(2, 12))
    torch.testing.assert_close(laid(overlaid, image, mask=100.0), drawn, atol=1e-5, rtol=0)


def test_a_flow_says_where_each_pixel_comes_from(overlaid):
    image = images(1, 16)
    bent = laid(overlaid, image, mask=-100.0, flow=(2 / 8, 1 / 8))
    torch.testing.assert_close(bent[..., :-1, :-2], image[..., 1:, 2:], atol=1e-4, rtol=0)


def test_bending_by_parts_of_a_pixel_keeps_most_of_the_detail(overlaid):
    """Half of a pixel is the worst case; means of two pixels keep 0.71 of such waves."""
    waves = torch.sin(torch.arange(64) * torch.pi / 2).expand(1, 3, 64, 64)
    bent = laid(overlaid, waves, mask=-100.0, flow=(1 / 64, 0.0))
    kept = bent[..., 8:-8].std() / waves[..., 8:-8].std()
    assert 0.85 < kept < 1.15


def test_an_overlay_starts_as_half_of_what_is_drawn_and_half_of_the_portrait(overlaid):
    image = images(2, 16)
    half = overlaid(image, torch.ones(2, 12)).detach()
    drawn = laid(overlaid, image, mask=100.0)
    torch.testing.assert_close(half, (drawn + image) / 2, atol=1e-5, rtol=0)


@torch.no_grad()
def test_more_detail_keeps_the_portraits_pixels_and_draws_as_many_as_before(overlaid):
    fine = LifespanGenerator(replace(OVERLAY, detail=2)).eval()
    fine.load_state_dict(overlaid.state_dict())
    image = images(2, 32)
    torch.testing.assert_close(laid(fine, image, mask=-100.0), image, atol=1e-5, rtol=0)
    halved = functional.avg_pool2d(image, 2)
    drawn = laid(overlaid, halved, mask=100.0)
    change = functional.interpolate(
        drawn - halved, scale_factor=2, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(laid(fine, image, mask=100.0), image + change, atol=1e-5, rtol=0)


@pytest.fixture
def soft():
    torch.manual_seed(0)
    return LifespanGenerator(replace(OVERLAY, softness=2, detail=2)).eval()


def softened(image, sigma_px):
    """Blurred by SciPy, edges replicated."""
    sigmas = (0, 0, sigma_px, sigma_px)
    return torch.from_numpy(ndimage.gaussian_filter(image.numpy(), sigmas, mode="nearest"))


@torch.no_grad()
def test_soft_changes_leave_all_fine_detail_to_the_portrait(overlaid, soft):
    image = images(2, 32)
    torch.testing.assert_close(laid(soft, image, mask=-100.0), image, atol=1e-5, rtol=0)
    weights = soft.state_dict()
    overlaid.load_state_dict({name: weights[name] for name in overlaid.state_dict()})
    halved = functional.avg_pool2d(image, 2)
    # Two passes of [1 2 1] / 4 have the variance of a Gaussian of one pixel.
    change = softened(laid(overlaid, halved, mask=100.0) - halved, 1.0)
    found = functional.avg_pool2d(laid(soft, image, mask=100.0) - image, 2)
    inner = (..., slice(1, -1), slice(1, -1))
    assert (found - softened(change, 0.4))[inner].abs().max() < 0.1 * change.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("softness", [2, 8])
def test_whatever_the_softness_the_same_detail_is_fine(soft, softness):
    image = images(1, 32)
    other = LifespanGenerator(replace(soft.shape, softness=softness)).eval()
    other.load_state_dict(soft.state_dict())
    for generator in (soft, other):
        generator.decoder.overlay.to_gain.bias.fill_(1.0)
    torch.testing.assert_close(laid(other, image, mask=-100.0), laid(soft, image, mask=-100.0))


@torch.no_grad()
def test_more_passes_lay_softer_changes(soft):
    softer = LifespanGenerator(replace(soft.shape, softness=12)).eval()
    softer.load_state_dict(soft.state_dict())
    image = images(1, 32)
    changes = [laid(each, image, mask=100.0) - image for each in (soft, softer)]
    steep, flat = ((x[..., 1:] - x[..., :-1]).std() / x.std() for x in changes)
    assert flat < 0.8 * steep


@torch.no_grad()
def test_a_gain_scales_the_portraits_detail_and_nothing_else(soft):
    image = images(2, 32)
    gain = soft.decoder.overlay.to_gain
    gain.bias.fill_(-100.0)
    without = laid(soft, image, mask=-100.0)
    gain.bias.fill_(100.0)
    doubled = laid(soft, image, mask=-100.0)
    torch.testing.assert_close(doubled - image, image - without, atol=1e-5, rtol=0)
    assert without.std() < 0.3 * image.std()
    flat = torch.full((1, 3, 32, 32), 0.5)
    torch.testing.assert_close(laid(soft, flat, mask=-100.0), flat, atol=1e-5, rtol=0)


def test_flow_mask_and_gain_are_learned_by_the_picture(soft):
    soft(images(2, 32), torch.ones(2, 12)).square().mean().backward()
    overlay = soft.decoder.overlay
    for layer in (overlay.flow.last, overlay.to_mask, overlay.to_gain):
        assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())
