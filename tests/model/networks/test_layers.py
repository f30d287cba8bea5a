import math

import pytest
import torch
from torch.nn import functional

from model.networks.layers import (
    EqualConv2d,
    ModulatedConv2d,
    PixelNorm,
    blur,
    mean_around,
    pixel_normalised,
    pooled_convolution,
    softened,
    upsampled_convolution,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_pixel_norm_gives_every_pixel_unit_power():
    y = PixelNorm()(torch.randn(2, 16, 3, 3) * 7)
    torch.testing.assert_close(y.square().mean(1), torch.ones(2, 3, 3), atol=1e-4, rtol=0)


def test_pixel_norm_of_half_precision_does_not_overflow():
    assert PixelNorm()(torch.full((1, 4, 1, 1), 3e4, dtype=torch.float16)).isfinite().all()


@pytest.mark.parametrize("shape", [(3, 8), (2, 16, 5, 4)])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_pixel_norm_learns_as_its_single_operations_do(shape, dtype, near):
    drawn, gradient = torch.randn(2, *shape).to(dtype)
    found = []
    for normalise in (PixelNorm(), pixel_normalised):
        x = (5 * drawn).requires_grad_()
        y = normalise(x)
        y.backward(gradient)
        found.append((y.detach().float(), x.grad.float()))
    for learned, wanted in zip(*found, strict=True):
        torch.testing.assert_close(learned, wanted, rtol=near, atol=near)


def test_pixel_norm_has_no_second_derivative_and_says_so():
    x, weight = torch.randn(2, 2, 4).requires_grad_()
    loss = (weight * PixelNorm()(x)).sum()
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_the_blur_equals_the_depthwise_binomial_kernel():
    x = torch.randn(2, 3, 6, 5)
    row = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (row[:, None] * row).expand(3, 1, 3, 3)
    torch.testing.assert_close(blur(x), functional.conv2d(x, kernel, padding=1, groups=3))


def test_the_four_phases_equal_upsampling_then_convolving():
    x, weight = torch.randn(2, 5, 4, 6), torch.randn(7, 5, 3, 3)
    up = functional.interpolate(x, scale_factor=2.0, mode="nearest")
    wanted = functional.conv2d(functional.pad(up, (1, 1, 1, 1), "reflect"), weight)
    torch.testing.assert_close(upsampled_convolution(x, weight), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("gain", "norm"), [(1.0, True), (0.2, True), (0.2, False)])
def test_modulated_activations_equal_kernels_modulated_per_sample(gain, norm):
    layer = ModulatedConv2d(6, 5, 4, style_gain=gain, style_norm=norm)
    x, latent = torch.randn(3, 6, 8, 8), torch.randn(3, 4)
    drawn = layer.affine(latent)
    style = 1 + gain * (PixelNorm()(drawn) if norm else drawn)
    padded = functional.pad(x, (1, 1, 1, 1), "reflect")
    for i in range(3):
        kernel = layer.weight * layer.scale * style[i][None, :, None, None]
        kernel = kernel * torch.rsqrt(kernel.square().sum((1, 2, 3), keepdim=True) + 1e-5)
        wanted = functional.conv2d(padded[i : i + 1], kernel) + layer.bias
        torch.testing.assert_close(layer(x, latent)[i : i + 1], wanted, atol=1e-5, rtol=1e-5)


def test_a_passing_layer_gives_each_channel_mostly_what_the_same_channel_held():
    x, latent = torch.randn(2, 32, 8, 8), torch.randn(2, 4)
    layer = ModulatedConv2d(32, 32, 4, style_gain=0.2)

    def likeness() -> torch.Tensor:
        both = torch.cat(
            [x.transpose(0, 1).flatten(1), layer(x, latent).transpose(0, 1).flatten(1)]
        )
        return torch.corrcoef(both)[:32, 32:].detach()

    assert likeness().diag().mean() < 0.3
    layer.draw_passing()
    passed = likeness()
    assert passed.diag().min() > 0.5
    assert (passed - passed.diag().diag()).abs().mean() < 0.2


def test_equalised_weights_are_scaled_by_their_fan_in():
    layer = EqualConv2d(8, 4, 3)
    assert layer.scale == pytest.approx(math.sqrt(2 / 72))
    x = torch.randn(1, 8, 3, 3)
    wanted = (x * layer.weight * layer.scale).sum((1, 2, 3)) + layer.bias
    torch.testing.assert_close(layer(x).flatten(), wanted)


def test_the_strided_window_equals_convolving_then_pooling():
    x, weight, bias = torch.randn(2, 5, 6, 8), torch.randn(7, 5, 3, 3), torch.randn(7)
    full = functional.conv2d(functional.pad(x, (1, 1, 1, 1), "reflect"), weight, bias)
    wanted = functional.avg_pool2d(full, 2)
    torch.testing.assert_close(pooled_convolution(x, weight, bias), wanted, atol=1e-5, rtol=1e-5)


class Softened(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return softened(x, 3)


def test_the_blurs_gradients_are_its_convolutions():
    kernel = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])) / 16
    kernel = kernel.expand(3, 1, 3, 3)
    weight = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    given = torch.randn_like(weight)
    penalties = []
    for low_pass in (
        blur,
        lambda x: functional.conv2d(x, kernel.double(), padding=1, groups=3),
    ):
        x = given.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((low_pass(x).tanh() * weight).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
        penalties.append((gradient.detach(), second))
    torch.testing.assert_close(*penalties)


def test_an_exported_blur_is_the_same_in_fewer_operations():
    x = torch.randn(2, 3, 9, 9)
    program = torch.export.export(Softened(), (x,))
    torch.testing.assert_close(program.module()(x), softened(x, 3))
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    assert sum("conv2d" in str(node.target) for node in calls) == 3
    assert not any("slice" in str(node.target) for node in calls)


def test_a_blur_keeps_what_is_flat_up_to_the_edges():
    flat = torch.full((1, 2, 8, 8), 0.7)
    torch.testing.assert_close(softened(flat, 5), flat)
    spot = torch.zeros(1, 1, 9, 9)
    spot[..., 4, 4] = 1
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    torch.testing.assert_close(softened(spot, 2)[0, 0, 2:7, 2:7], line[:, None] * line)


@pytest.mark.parametrize("margin", [1, 8])
def test_means_around_are_those_of_windows_with_zeros_outside(margin):
    x = torch.rand(2, 3, 24, 24)
    wanted = functional.avg_pool2d(x, 2 * margin + 1, 1, margin)
    torch.testing.assert_close(mean_around(x, margin), wanted)
