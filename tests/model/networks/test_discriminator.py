import pytest
import torch

from model.networks.discriminator import Discriminator, minibatch_deviation


def test_one_logit_per_class():
    assert Discriminator(32, 12, width=4)(torch.zeros(5, 3, 32, 32)).shape == (5, 12)


@pytest.mark.parametrize("resolution", [4, 48])
def test_a_resolution_that_does_not_halve_down_to_4_is_refused(resolution):
    with pytest.raises(ValueError, match="power of two"):
        Discriminator(resolution, 6)


def test_a_coarse_image_enters_one_level_later_and_shares_the_rest():
    judge = Discriminator(32, 12, width=4, coarse=True)
    coarse = judge(torch.rand(4, 3, 16, 16))
    assert coarse.shape == judge(torch.rand(4, 3, 32, 32)).shape == (4, 12)
    coarse.sum().backward()
    unused = {name for name, p in judge.named_parameters() if p.grad is None}
    assert unused == {
        f"{layer}.{kind}"
        for layer in ("from_rgb", "pairs.0.0", "pairs.0.1")
        for kind in ("weight", "bias")
    }


def test_identical_samples_deviate_by_nothing():
    x = torch.randn(1, 8, 4, 4).expand(4, -1, -1, -1)
    torch.testing.assert_close(minibatch_deviation(x), torch.full((4, 1, 4, 4), 1e-4))


def test_the_deviation_is_that_of_the_group():
    x = torch.zeros(2, 1, 4, 4)
    x[1] = 2.0
    torch.testing.assert_close(minibatch_deviation(x), torch.ones(2, 1, 4, 4))


def test_a_batch_that_no_group_of_four_divides_still_works():
    assert minibatch_deviation(torch.randn(7, 3, 4, 4)).shape == (7, 1, 4, 4)
