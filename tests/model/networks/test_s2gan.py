import pytest
import torch

from model.networks.s2gan import BasisDecoder, S2ganGenerator, S2ganShape

TINY = S2ganShape(width=4, anchors=6, bases=4, basis_channels=3)
# (inputs, outputs, kernel) of the convolutions that instance norms follow.
ENCODER = [(3, 64, 7), (64, 128, 4), (128, 256, 4), *[(256, 256, 3)] * 8]
DECODER = [(256, 256, 1), *[(256, 256, 3)] * 8, (256, 128, 4), (128, 64, 4)]


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return S2ganGenerator(TINY)


@pytest.fixture
def image():
    torch.manual_seed(1)
    return torch.rand(3, 3, 32, 32) * 2 - 1


def at(*places):
    return torch.eye(6)[list(places)]


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_the_parameters_are_those_of_the_layers():
    def of(layers):
        return sum(inputs * outputs * size**2 + 2 * outputs for inputs, outputs, size in layers)

    generator = S2ganGenerator(S2ganShape())
    basis, transforms, to_rgb = 256 * 256 + 256, 6 * 8 * 8, 64 * 3 * 7**2
    assert parameters(generator.encoder) == of(ENCODER) + basis == 5_454_144
    assert parameters(generator.decoder) == transforms + of(DECODER) + to_rgb == 5_454_272


@pytest.mark.parametrize("resolution", [16, 64])
def test_a_basis_has_a_quarter_of_the_side_and_pictures_all_of_it(generator, resolution):
    image = torch.rand(2, 3, resolution, resolution)
    basis = generator.encoder(image)
    assert basis.shape == (2, 4, 3, resolution // 4, resolution // 4)
    assert generator.decoder(basis, at(0, 5)).shape == image.shape


def test_a_representation_is_the_ages_transform_of_the_basis(generator, image):
    basis, places = generator.encoder(image), (0, 3, 5)
    combined = generator.decoder.combined(basis, at(*places))
    for i, place in enumerate(places):
        wanted = torch.einsum("ij,jchw->ichw", generator.decoder.transforms[place], basis[i])
        torch.testing.assert_close(combined[i], wanted)


def test_weights_between_two_anchors_mix_their_combinations(generator, image):
    basis = generator.encoder(image)
    young, old = (generator.decoder.combined(basis, at(*[place] * 3)) for place in (0, 5))
    between = generator.decoder.combined(basis, 0.25 * at(0, 0, 0) + 0.75 * at(5, 5, 5))
    torch.testing.assert_close(between, 0.25 * young + 0.75 * old)


def test_transforms_start_near_the_identity_and_differ():
    torch.manual_seed(0)
    transforms = BasisDecoder(S2ganShape(4)).transforms
    assert (transforms - torch.eye(8)).abs().max() < 0.3
    assert (transforms[0] - transforms[1]).abs().max() > 0.01


def test_ages_differ_by_their_transforms_alone(generator, image):
    pictures = [generator(image, at(*[place] * 3)) for place in (0, 5)]
    assert (pictures[0] - pictures[1]).abs().amax((1, 2, 3)).min() > 1e-3
    with torch.no_grad():
        generator.decoder.transforms[5] = generator.decoder.transforms[0]
    torch.testing.assert_close(generator(image, at(5, 5, 5)), pictures[0])


def test_a_picture_depends_on_its_own_portrait_in_every_mode(generator, image):
    together = generator.train()(image, at(0, 1, 2))
    alone = [generator.eval()(image[i : i + 1], at(i)) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
