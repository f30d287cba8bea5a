"""Layers shared by the networks: equalised learning rate, PixelNorm, modulated convolutions."""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)
LOW_PASS = (0.25, 0.5, 0.25)


def constant(numbers: tuple[float, ...], like: Tensor) -> Tensor:
    """Numbers (K,) of the type of a tensor, on its device.

    They are copied there but once: a copy waits for all that an accelerator has still to do.
    """
    if torch.compiler.is_exporting():
        return like.new_tensor(numbers)
    return _resident(numbers, like.dtype, like.device)


@cache
def _resident(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=dtype, device=device)


class PixelNorm(nn.Module):
    """Divides by the root mean square over channels (Karras et al. 2018): (N, C, ...) -> same.

    Computed in float32 whatever the input's type: squares overflow half precision.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_exporting():
            return _Normalised.apply(x)
        return pixel_normalised(x)


def pixel_normalised(x: Tensor) -> Tensor:
    """The same as single operations."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + 1e-5)).to(x.dtype)


class _Normalised(torch.autograd.Function):
    """What training takes of it: a third of the passes over memory, in the input's type but for the
    sums. It has no second derivative."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
        scale = torch.rsqrt(length.square() / x.shape[1] + 1e-5)
        ctx.save_for_backward(x, scale)
        return torch.mul(x, scale, out=torch.empty_like(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, scale = ctx.saved_tensors
        along = (gradient * x).sum(1, keepdim=True, dtype=torch.float32)
        away = (scale**3 * along / x.shape[1]).to(x.dtype)
        return torch.mul(gradient, scale, out=torch.empty_like(x)).addcmul_(x, away, value=-1)


class EqualConv2d(nn.Module):
    """Convolution with equalised learning rate: weights N(0, 1), scaled by sqrt(2 / fan in).

    `padding` reflected pixels are added on each side.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = math.sqrt(2 / (inputs * kernel * kernel))
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        if self.padding:
            x = functional.pad(x, (self.padding,) * 4, "reflect")
        return functional.conv2d(x, self.weight * self.scale, self.bias, self.stride)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate: weights N(0, 1), scaled by sqrt(2 / fan in)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = math.sqrt(2 / inputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * self.scale, self.bias)


def enlarged(x: Tensor, side: int) -> Tensor:
    """(N, C, S, S) -> (N, C, side, side), linear between pixels."""
    if x.shape[-1] == side:
        return x
    return functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)


def resized(x: Tensor, side: int) -> Tensor:
    """(N, C, S, S) -> (N, C, side, side): means where S is a multiple of `side`, else linear."""
    return enlarged(x if x.shape[-1] % side else shrunk(x, side), side)


def shrunk(x: Tensor, side: int) -> Tensor:
    """(N, C, S, S) -> means (N, C, side, side); S is `side` or a multiple of it."""
    times = x.shape[-1] // side
    return functional.avg_pool2d(x, times) if times > 1 else x


def mean_around(x: Tensor, margin: int) -> Tensor:
    """(N, C, S, S) -> means of as much over `margin` pixels to every side, zeros outside.

    Two products of matrices: for means over 17 x 17 pixels ONNX Runtime takes 30 times as long.
    """
    line = torch.arange(x.shape[-1], device=x.device)
    near = ((line[:, None] - line).abs() <= margin).to(x.dtype) / (2 * margin + 1)
    return near @ x @ near


def blur(x: Tensor) -> Tensor:
    """Separable [1 2 1] / 4 low-pass over the last two axes, zeros outside; the shape stays."""
    if x.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_exporting():
        return _Blur.apply(x)
    return low_passed(x, 1)


class _Blur(torch.autograd.Function):
    """Its own adjoint. As a convolution it is not known to be, and the gradient of its gradient,
    which R1 asks for, becomes two convolutions for every channel."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return low_passed(x, 1)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return blur(gradient)


def low_passed(x: Tensor, padding: int) -> Tensor:
    """The same as a convolution of each channel, `padding` zeros outside."""
    line = constant(LOW_PASS, x)
    channels = x.shape[1]
    kernel = (line[:, None] * line).expand(channels, 1, 3, 3)
    return functional.conv2d(x, kernel, padding=padding, groups=channels)


def luma(picture: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W)."""
    return (picture * constant(LUMA, picture)[:, None, None]).sum(1, keepdim=True)


def laid_along(picture: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """Picture (N, C, R, R), every pixel taken from where flow (N, 2, S, S) says: (N, C, R, R).

    `bicubic` keeps detail (Keys 1981) that means of four pixels lose, and overshoots a little.
    """
    side = picture.shape[-1]
    line = (torch.arange(side, device=flow.device) * 2 + 1) / side - 1
    across, down = line.expand(side, side), line[:, None].expand(side, side)
    moved = enlarged(flow.float(), side).permute(0, 2, 3, 1)
    places = moved + torch.stack([across, down], -1)
    return functional.grid_sample(
        picture.float(), places, mode, padding_mode="border", align_corners=False
    )


def softened(x: Tensor, passes: int) -> Tensor:
    """Separable [1 2 1] / 4 over the last two axes, edges replicated; in the precision of x.

    In an exported graph each pass is a convolution, not a dozen operations; training on a processor
    is faster with those.
    """
    for _ in range(passes):
        wide = functional.pad(x, (1, 1, 1, 1), "replicate")
        if torch.compiler.is_exporting():
            x = low_passed(wide, 0)
            continue
        wide = (wide[..., :-2] + wide[..., 2:]) / 4 + wide[..., 1:-1] / 2
        x = (wide[..., :-2, :] + wide[..., 2:, :]) / 4 + wide[..., 1:-1, :] / 2
    return x


def upsampled_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Nearest x2, reflection padding, 3x3 convolution (O, I, 3, 3): (N, I, H, W) -> (N, O, 2H, 2W).

    Each output pixel sees only 2x2 input pixels, so it is one transposed 4x4 convolution at stride
    2: 2.25 times fewer multiplications, the same numbers. Reflection at the high size is edge
    replication at the low one.
    """
    kernel = functional.pad(weight, (1, 1, 1, 1))
    kernel = kernel[:, :, 1:] + kernel[:, :, :-1]
    kernel = kernel[..., 1:] + kernel[..., :-1]
    wide = functional.pad(x, (1, 1, 1, 1), "replicate")
    return functional.conv_transpose2d(wide, kernel.flip(2, 3).transpose(0, 1), stride=2, padding=3)


def pooled_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3x3 convolution (O, I, 3, 3) of reflection-padded x, then 2x2 mean: (N, I, H, W) -> H/2, W/2.

    The mean of four neighbours' 3x3 windows is one 4x4 window at stride 2: 2.25 times fewer
    multiplications, the same numbers. H and W are even.
    """
    wide = functional.pad(weight, (0, 1)) + functional.pad(weight, (1, 0))
    kernel = functional.pad(wide, (0, 0, 0, 1)) + functional.pad(wide, (0, 0, 1, 0))
    return functional.conv2d(functional.pad(x, (1, 1, 1, 1), "reflect"), kernel * 0.25, bias, 2)


class ModulatedConv2d(nn.Module):
    """3x3 convolution whose input channels are scaled by a style (Karras et al. 2020), demodulated.

    The scale is s = 1 + g PixelNorm(affine(w)) with the style gain g, 1 in the publication; without
    `style_norm` it is 1 + g affine(w): styles differ in length then, and follow w linearly. The
    activations are scaled, not the kernels: input by s, output by 1 / |s * kernel|, which equals
    per-sample kernels and keeps the batch axis free.
    Features (N, I, H, W), latent w (N, K) -> (N, O, H, W), or twice the size with `upsample`, then
    low-passed after the bias as in the published code.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        latent: int,
        upsample: bool = False,
        style_gain: float = 1.0,
        style_norm: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))
        self.affine = EqualLinear(latent, inputs)
        self.normalise = PixelNorm() if style_norm else nn.Identity()
        self.scale = math.sqrt(2 / (inputs * 9))
        self.upsample = upsample
        self.style_gain = style_gain

    def draw_passing(self) -> None:
        """Draws the kernels anew so that most of a channel comes from the same channel before.

        N(0, 0.3^2), and 7.2 more for a channel's own centre: with 64 input channels the two have
        equal power. A deep decoder without skips learns to reproduce its input far sooner so.
        """
        with torch.no_grad():
            self.weight.normal_(std=0.3)
            outputs, inputs = self.weight.shape[:2]
            self.weight[:, :, 1, 1] += 7.2 * torch.eye(outputs, inputs)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        weight = self.weight * self.scale
        style = 1 + self.style_gain * self.normalise(self.affine(latent))
        power = style.float().square() @ weight.float().square().sum(dim=(2, 3)).t()
        demodulation = torch.rsqrt(power + 1e-5).to(x.dtype)
        x = x * style.to(x.dtype)[:, :, None, None]
        if self.upsample:
            y = upsampled_convolution(x, weight)
        else:
            y = functional.conv2d(functional.pad(x, (1, 1, 1, 1), "reflect"), weight)
        y = y * demodulation[:, :, None, None] + self.bias
        return blur(y) if self.upsample else y
