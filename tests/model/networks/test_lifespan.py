from pathlib import Path

import numpy as np
import pytest
import torch

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
