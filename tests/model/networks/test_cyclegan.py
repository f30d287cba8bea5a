import pytest
import torch
from torch import nn

from model.networks.cyclegan import CycleganGenerator, PatchDiscriminator


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def table(layers):
    """Parameters of convolutions with bias, given as (inputs, outputs, kernel)."""
    return sum(inputs * outputs * kernel**2 + outputs for inputs, outputs, kernel in layers)


@pytest.mark.parametrize(("blocks", "count"), [(9, 11_378_179), (6, 7_837_699)])
def test_the_published_generator_has_the_parameters_of_its_table(blocks, count):
    layers = [(3, 64, 7), (64, 128, 3), (128, 256, 3), *[(256, 256, 3)] * (2 * blocks)]
    layers += [(256, 128, 3), (128, 64, 3), (64, 3, 7)]
    assert table(layers) == count
    assert parameters(CycleganGenerator(blocks=blocks)) == count


def test_the_published_discriminator_has_the_parameters_of_its_table():
    layers = [(3, 64, 4), (64, 128, 4), (128, 256, 4), (256, 512, 4), (512, 1, 4)]
    assert table(layers) == 2_764_737
    assert parameters(PatchDiscriminator()) == 2_764_737


@pytest.mark.parametrize(("layers", "side"), [(3, 70), (2, 34), (1, 16)])
def test_a_score_sees_a_patch_of_the_published_size(layers, side):
    judge = PatchDiscriminator(4, layers)
    for name, module in list(judge.layers.named_children()):
        if isinstance(module, nn.InstanceNorm2d):  # its statistics are of the whole picture
            judge.layers.set_submodule(name, nn.Identity())
    image = torch.randn(1, 3, 128, 128, requires_grad=True)
    scores = judge(image)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()
    seen = image.grad[0].abs().sum(0).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [side, side]


@pytest.mark.parametrize(("resolution", "layers", "side"), [(64, 3, 6), (32, 3, 2), (64, 2, 14)])
def test_every_patch_of_a_picture_gets_a_score(resolution, layers, side):
    image = torch.zeros(2, 3, resolution, resolution)
    assert PatchDiscriminator(2, layers)(image).shape == (2, 1, side, side)


@pytest.mark.parametrize("resolution", [16, 36, 64])
def test_a_translation_has_the_size_of_the_portrait_and_its_range(resolution):
    image = 9 * torch.randn(2, 3, resolution, resolution)
    made = CycleganGenerator(2, 1)(image)
    assert made.shape == image.shape
    assert made.abs().max() <= 1


@torch.no_grad()
def test_a_picture_is_normalised_by_its_own_statistics_in_training_and_after():
    generator, image = CycleganGenerator(4, 1), torch.rand(3, 3, 16, 16)
    together = generator(image)
    torch.testing.assert_close(generator(image[1:2]), together[1:2])
    torch.testing.assert_close(generator.eval()(image), together)


def test_weights_begin_as_published():
    torch.manual_seed(0)
    for network in (CycleganGenerator(32, 1), PatchDiscriminator(32)):
        weights = [p for name, p in network.named_parameters() if name.endswith("weight")]
        deviation = torch.cat([weight.flatten() for weight in weights]).std()
        assert deviation.item() == pytest.approx(0.02, rel=0.02)
        assert all(not p.any() for name, p in network.named_parameters() if name.endswith("bias"))
