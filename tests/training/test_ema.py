import pytest
import torch
from torch import nn

from training.ema import Averaged


def network(value):
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def test_after_a_half_life_the_old_weights_count_half():
    averaged = Averaged(network(0.0), half_life=100)
    for _ in range(10):
        averaged.update(network(1.0), 10, images_seen=1_000_000)
    assert averaged.network.weight.item() == pytest.approx(0.5)


def test_the_start_is_forgotten_quickly():
    averaged = Averaged(network(0.0), half_life=100_000, ramp=0.05)
    for step in range(1, 101):
        averaged.update(network(1.0), 10, images_seen=10 * step)
    assert averaged.network.weight.item() > 0.99


def test_the_average_takes_no_gradient():
    assert not any(p.requires_grad for p in Averaged(network(0.0), 100).network.parameters())


def test_networks_that_differ_are_refused():
    averaged = Averaged(network(0.0), 100)
    with pytest.raises(ValueError, match="bias"):
        averaged.update(nn.Linear(1, 1), 10, 1000)


def test_buffers_are_copied():
    source = nn.BatchNorm1d(2)
    averaged = Averaged(source, 100)
    source.running_mean.fill_(3.0)
    averaged.update(source, 1, 10)
    torch.testing.assert_close(averaged.network.running_mean, torch.full((2,), 3.0))
