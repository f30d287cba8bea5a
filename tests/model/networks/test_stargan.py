import pytest
import torch

from model.networks.stargan import StarganDiscriminator, StarganGenerator

# Table 4 of the publication's appendix: (inputs, outputs, kernel), labels not counted.
GENERATOR = [
    (3, 64, 7), (64, 128, 4), (128, 256, 4), *[(256, 256, 3)] * 12, (256, 128, 4), (128, 64, 4),
]  # fmt: skip
TO_RGB = 64 * 3 * 7**2
# Table 5: (inputs, outputs), all 4x4 of stride 2 with bias.
DISCRIMINATOR = [(3, 64), (64, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048)]


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return StarganGenerator(6, 8, 2)


@pytest.fixture
def image():
    torch.manual_seed(1)
    return torch.rand(3, 3, 32, 32) * 2 - 1


def labels(*places):
    return torch.eye(6)[list(places)]


@pytest.mark.parametrize("count", [5, 6])
def test_the_generator_has_the_parameters_of_the_published_table(count):
    norms = 2 * sum(outputs for _, outputs, _ in GENERATOR)
    kernels = sum(inputs * outputs * kernel**2 for inputs, outputs, kernel in GENERATOR)
    wanted = kernels + norms + count * 64 * 7**2 + TO_RGB
    assert parameters(StarganGenerator(count)) == wanted
    assert count != 5 or wanted == 8_430_528  # five labels, as for CelebA


def test_the_discriminator_at_128_px_has_the_parameters_of_the_published_table():
    trunk = sum(inputs * outputs * 4**2 + outputs for inputs, outputs in DISCRIMINATOR)
    heads = 2048 * 3**2 + 6 * 2048 * (128 // 2**6) ** 2
    assert parameters(StarganDiscriminator(128, 6)) == trunk + heads == 44_770_240


@pytest.mark.parametrize(
    ("resolution", "channels"),
    [(16, [2, 4, 8]), (64, [2, 4, 8, 16, 32]), (256, [2, 4, 8, 16, 32, 64, 64])],
)
def test_the_discriminators_depth_follows_the_resolution_down_to_2x2(resolution, channels):
    judge = StarganDiscriminator(resolution, 6, 2)
    assert [convolution.out_channels for convolution in judge.convolutions] == channels
    criticism, logits = judge(torch.zeros(3, 3, resolution, resolution))
    assert criticism.shape == (3, 1, 2, 2)
    assert logits.shape == (3, 6)


@pytest.mark.parametrize("resolution", [4, 48])
def test_a_resolution_that_does_not_halve_down_to_2_is_refused(resolution):
    with pytest.raises(ValueError, match="power of two"):
        StarganDiscriminator(resolution, 6)


@pytest.mark.parametrize("resolution", [16, 64])
def test_any_resolution_gives_pictures_of_its_size(generator, resolution):
    picture = generator(torch.rand(2, 3, resolution, resolution), labels(0, 5))
    assert picture.shape == (2, 3, resolution, resolution)
    assert picture.abs().max() <= 1


def test_another_label_gives_another_picture(generator, image):
    difference = generator(image, labels(0, 1, 2)) - generator(image, labels(1, 1, 1))
    changed = difference.abs().amax((1, 2, 3)) > 1e-3
    assert changed.tolist() == [True, False, True]


def test_a_label_is_seen_by_the_zeros_at_the_border_alone(generator, image):
    generator.contracting[0].padding_mode = "reflect"
    pictures = [generator(image, labels(*[place] * 3)) for place in (0, 5)]
    torch.testing.assert_close(*pictures, atol=1e-4, rtol=0)


def test_a_picture_depends_on_its_own_portrait_in_every_mode(generator, image):
    together = generator.train()(image, labels(0, 1, 2))
    alone = [generator.eval()(image[i : i + 1], labels(i)) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_the_critics_verdict_depends_on_its_own_image_alone(image):
    torch.manual_seed(0)
    judge = StarganDiscriminator(32, 6, 4)
    for together, alone in zip(judge(image), judge(image[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone)
        assert (together[:1] - alone).abs().max() > 1e-4
