"""Shells of exported networks: uint8 pictures in and out, one picture per entry of `index`."""

import torch
from torch import Tensor, nn


def scaled(levels: Tensor) -> Tensor:
    """Levels (N, R, R, 3), 0 to 255 -> image (N, 3, R, R) in [-1, 1]."""
    return levels.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def rounded(image: Tensor) -> Tensor:
    """Image (N, 3, R, R) in [-1, 1] -> uint8 levels (N, R, R, 3)."""
    level = torch.round((image.float() + 1.0) * 127.5).clamp(0.0, 255.0)
    return level.permute(0, 2, 3, 1).to(torch.uint8)


class EncoderShell(nn.Module):
    """What is exported as encoder.onnx: image uint8 (M, R, R, 3) RGB -> identity (M, ...)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        return self.encoder(scaled(image))


class DecoderShell(nn.Module):
    """What is exported as decoder.onnx where there is an encoder.

    identity (M, ...), index int64 (N,), latent (N, K) -> image uint8 (N, R, R, 3) RGB.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, identity: Tensor, index: Tensor, latent: Tensor) -> Tensor:
        return rounded(self.decoder(identity[index], latent))


class TranslatorShell(nn.Module):
    """What is exported as decoder.onnx where nothing can be encoded.

    identity (M, R, R, 3), a portrait's levels as float32, index int64 (N,), latent (N, K) ->
    image uint8 (N, R, R, 3) RGB.
    """

    def __init__(self, translator: nn.Module) -> None:
        super().__init__()
        self.translator = translator

    def forward(self, identity: Tensor, index: Tensor, latent: Tensor) -> Tensor:
        return rounded(self.translator(scaled(identity[index]), latent))
