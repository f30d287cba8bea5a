import pytest
import torch

from model.networks.gan import MaxoutDiscriminator, NoiseGenerator


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_parameters_are_those_of_the_published_layers():
    """Noise of 100, two layers of 1200; 240 maxout units of 5 pieces, twice; 28 px in colour."""
    pixels = 3 * 28 * 28
    layers = [(100, 1200), (1200, 1200), (1200, pixels)]
    assert parameters(NoiseGenerator(28)) == sum((i + 1) * o for i, o in layers)
    layers = [(pixels, 1200), (240, 1200), (240, 1)]
    assert parameters(MaxoutDiscriminator(28)) == sum((i + 1) * o for i, o in layers)


def test_noise_becomes_portraits_in_range():
    generator = NoiseGenerator(16, hidden=8, noise=4)
    image = generator(10 * torch.randn(5, 4))
    assert image.shape == (5, 3, 16, 16)
    assert image.abs().max() <= 1
    assert image.std(0).max() > 0


def test_a_unit_gives_the_largest_of_its_pieces():
    judge = MaxoutDiscriminator(1, units=1, pieces=2)
    with torch.no_grad():
        for layer in (judge.first, judge.second, judge.last):
            layer.bias.zero_()
        judge.first.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0]]))
        judge.second.weight.copy_(torch.tensor([[2.0], [-1]]))
        judge.last.weight.fill_(1)
    images = torch.tensor([[0.5, 0.25, 0], [-0.75, -0.5, 9]]).view(2, 3, 1, 1)
    assert judge(images).tolist() == [1.0, 0.5]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_masks_weigh_the_inputs_of_their_layer(place):
    torch.manual_seed(0)
    judge = MaxoutDiscriminator(4, units=3, pieces=2)
    image = torch.rand(2, 3, 4, 4)
    masks = [torch.ones(2, size) for size in judge.sizes]
    torch.testing.assert_close(judge(image, masks), judge(image))
    masks[place] = torch.zeros_like(masks[place])
    bias = torch.zeros(2, judge.sizes[place])
    layer = (judge.first, judge.second, judge.last)[place]
    blind = layer(bias)
    if place == 2:
        torch.testing.assert_close(judge(image, masks), blind[:, 0])
    else:
        assert judge(image, masks).std() == 0  # all images look alike
