"""Pairs of networks, one pair per age anchor, for methods that know two sets of pictures."""

from collections.abc import Callable

from torch import Tensor, nn


class Pairs(nn.Module):
    """For each anchor a network that leads to it, `forth`, and one that leads away, `back`.

    Translators: `forth` makes portraits of every other age into ones of the anchor, `back` the
    reverse. Discriminators: each judges what the translator of its name makes.
    """

    def __init__(self, make: Callable[[], nn.Module], anchors: int) -> None:
        super().__init__()
        self.forth = nn.ModuleList(make() for _ in range(anchors))
        self.back = nn.ModuleList(make() for _ in range(anchors))

    def of(self, anchor: int) -> tuple[nn.Module, nn.Module]:
        """The pair of one anchor: forth, back."""
        return self.forth[anchor], self.back[anchor]


class Translator(nn.Module):
    """A network as a bundle's decoder: image (N, 3, R, R), latent (N, K) -> image.

    It knows one age alone, so the latent says nothing and is left unread.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, latent: Tensor) -> Tensor:
        return self.network(image)
