import torch
from torch import nn

from model.networks.pairs import Pairs, Translator


def test_an_anchors_pair_is_its_own_two_networks():
    pairs = Pairs(lambda: nn.Linear(2, 2), 3)
    forth, back = pairs.of(1)
    assert forth is pairs.forth[1]
    assert back is pairs.back[1]
    assert len({id(parameter) for parameter in pairs.parameters()}) == 2 * 2 * 3


def test_a_translator_gives_what_its_network_gives_whatever_the_latent():
    image, network = torch.randn(2, 3, 4, 4), nn.Conv2d(3, 3, 1)
    for latent in (torch.zeros(2, 1), torch.ones(2, 1)):
        torch.testing.assert_close(Translator(network)(image, latent), network(image))
