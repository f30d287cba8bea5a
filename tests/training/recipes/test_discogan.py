import pytest
import torch
from torch.nn import functional

from training.config import ConfigError, config_of
from training.data import Batch
from training.draws import Draws
from training.recipes.discogan import DiscoganRecipe

TINY = {
    "method": "discogan", "resolution": 32, "width": 2, "discriminator_width": 2, "bottleneck": 8,
    "batch": 8, "clusters": ((0, 6), (7, 19), (30, 69)), "first_steps": 4,
}  # fmt: skip


@pytest.fixture
def recipe():
    torch.manual_seed(0)
    return DiscoganRecipe(config_of(TINY))


@pytest.fixture
def batch():
    torch.manual_seed(1)
    nobody = torch.zeros(8, dtype=torch.int64)
    return Batch(torch.rand(8, 3, 32, 32) * 2 - 1, nobody, nobody, nobody)


def step(recipe, batch, steps):
    (loss,) = recipe.step(batch, 0, steps, Draws(0, steps, 8))
    return loss


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"accumulate": 2}, "accumulate: batch normalisation"),
        ({"batch": 2}, "batch: batch normalisation"),
        ({"bottleneck": -1}, "bottleneck"),
        ({"discriminator_interval": 1}, "discriminator_interval"),
        ({"reconstruction_share": 1.5}, "reconstruction_share"),
        ({"first_share": -0.5}, "first_share"),
    ],
)
def test_impossible_values_name_the_setting(changes, setting):
    with pytest.raises(ConfigError, match=setting):
        config_of(TINY | changes)


def test_a_process_with_a_part_too_small_to_normalise_refuses_it(recipe, batch):
    part = Draws(0, 0, 8, part=0, parts=4)
    with pytest.raises(ConfigError, match="4 images in each process"):
        next(recipe.step(batch.part(0, 4), 0, 0, part))


def test_of_each_pairs_steps_a_third_moves_its_discriminators(recipe, batch):
    moved = [step(recipe, batch, steps).optimiser for steps in range(18)]
    assert moved == ([*["discriminator"] * 3, *["generator"] * 6] * 2)


def losses_by_hand(recipe, batch, anchor):
    """Of both directions: adversarial, features, reconstruction, discriminator; in [0, 1]."""
    forth, back = recipe.generator.forth[anchor], recipe.generator.back[anchor]
    judges = recipe.discriminator.forth[anchor], recipe.discriminator.back[anchor]
    others, same = batch.real[:4], batch.real[4:]
    aged, returned = forth(others), back(same)
    sums = torch.zeros(4)
    for judge, real, made, portrait, cycled in (
        (judges[0], same, aged, others, back(aged)),
        (judges[1], others, returned, same, forth(returned)),
    ):
        (real_logit, real_features), (fake_logit, fake_features) = judge(real), judge(made)
        ones, zeros = torch.ones(4), torch.zeros(4)

        def cross_entropy(logit, label):
            return functional.binary_cross_entropy(torch.sigmoid(logit), label)

        sums[0] += cross_entropy(fake_logit, ones)
        for a, b in zip(real_features, fake_features, strict=True):
            sums[1] += ((a.mean(0) - b.mean(0)) ** 2).mean()
        sums[2] += (((cycled + 1) / 2 - (portrait + 1) / 2) ** 2).mean()
        sums[3] += 0.5 * cross_entropy(real_logit, ones) + 0.5 * cross_entropy(fake_logit, zeros)
    return sums


@torch.no_grad()
@pytest.mark.parametrize(
    ("visits", "share"), [(1, 0.01), (2, 0.01), (4, 0.5), (5, 0.5), (100, 0.5)]
)
def test_what_the_generator_lowers_is_the_published_mixture(recipe, batch, visits, share):
    anchor = 1
    adversarial, features, reconstruction, _ = losses_by_hand(recipe, batch, anchor)
    wanted = (1 - share) * (0.1 * adversarial + 0.9 * features) + share * reconstruction
    loss = step(recipe, batch, 3 * visits + anchor)
    torch.testing.assert_close(loss.value, wanted, rtol=1e-4, atol=0)


@torch.no_grad()
def test_what_the_discriminators_lower_is_the_published_cross_entropy(recipe, batch):
    wanted = losses_by_hand(recipe, batch, 2)[3]
    torch.testing.assert_close(step(recipe, batch, 2).value, wanted, rtol=1e-4, atol=0)


def test_weights_decay_as_published(recipe):
    for optimiser in recipe.optimisers().values():
        assert [group["weight_decay"] for group in optimiser.param_groups] == [1e-5]
