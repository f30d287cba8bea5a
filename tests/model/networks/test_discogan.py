import pytest
import torch

from model.networks.discogan import DiscoganDiscriminator, DiscoganGenerator


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def table(layers, normalised):
    """Parameters of 4x4 convolutions (inputs, outputs) without bias, and of normalised channels."""
    kernels = sum(16 * inputs * outputs for inputs, outputs in layers)
    return kernels + sum(2 * channels for channels in normalised)


DOWN, UP = [(3, 64), (64, 128), (128, 256), (256, 512)], [(512, 256), (256, 128), (128, 64)]
NORMALISED = [128, 256, 512, 256, 128, 64]


def test_the_published_generator_with_extra_layers_has_the_parameters_of_its_table():
    layers = [*DOWN, (512, 100), (100, 512), *UP, (64, 3)]
    assert table(layers, [*NORMALISED, 100, 512]) == 7_153_480
    assert parameters(DiscoganGenerator()) == 7_153_480


def test_the_published_generator_without_them_has_the_parameters_of_its_table():
    assert table([*DOWN, *UP, (64, 3)], NORMALISED) == 5_513_856
    assert parameters(DiscoganGenerator(bottleneck=0)) == 5_513_856


def test_the_published_discriminator_has_the_parameters_of_its_table():
    assert table([*DOWN, (512, 1)], [128, 256, 512]) == 2_765_568
    assert parameters(DiscoganDiscriminator()) == 2_765_568


@pytest.mark.parametrize(("resolution", "stages"), [(128, 1), (32, -1)])
def test_other_resolutions_add_or_leave_out_stages_at_both_ends(resolution, stages):
    generator = DiscoganGenerator(resolution, 4)
    at_64 = sum(1 for name, _ in DiscoganGenerator(64, 4).named_parameters() if "weight" in name)
    here = sum(1 for name, _ in generator.named_parameters() if "weight" in name)
    # One stage is a convolution and its normalisation, in each half.
    assert here - at_64 == 4 * stages
    image = torch.zeros(2, 3, resolution, resolution)
    assert generator(image).shape == image.shape
    assert DiscoganDiscriminator(resolution, 4)(image)[0].shape == (2,)


@pytest.mark.parametrize("resolution", [8, 48])
def test_a_resolution_that_does_not_halve_down_to_4_is_refused(resolution):
    for network in (DiscoganGenerator, DiscoganDiscriminator):
        with pytest.raises(ValueError, match="power of two"):
            network(resolution)


def test_the_sigmoid_is_spread_over_the_range_of_portraits():
    generator, image = DiscoganGenerator(16, 2), torch.randn(4, 3, 16, 16)
    generator.layers[-1].weight.data.mul_(100)
    made = generator(image)
    assert made.min() < -0.99 < 0.99 < made.max()
    torch.testing.assert_close((made + 1) / 2, torch.sigmoid(generator.layers(image)))


def test_features_are_those_of_every_stage_but_the_first():
    _, features = DiscoganDiscriminator(64, 4)(torch.randn(2, 3, 64, 64))
    assert [tuple(layer.shape[1:]) for layer in features] == [(8, 16, 16), (16, 8, 8), (32, 4, 4)]


@torch.no_grad()
def test_the_discriminator_judges_by_its_batch_in_training_and_after():
    judge, image = DiscoganDiscriminator(16, 4), torch.randn(4, 3, 16, 16)
    logit, _ = judge(image)
    torch.testing.assert_close(judge.eval()(image)[0], logit)
    assert (judge(image[:2])[0] - logit[:2]).abs().max() > 1e-3


@torch.no_grad()
def test_a_picture_does_not_depend_on_the_others_after_training():
    generator, image = DiscoganGenerator(16, 4), torch.randn(4, 3, 16, 16)
    trained = generator(image)
    assert (generator(image[:2]) - trained[:2]).abs().max() > 1e-3
    served = generator.eval()(image)
    torch.testing.assert_close(generator(image[:1]), served[:1])
