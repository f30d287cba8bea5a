import numpy as np
import pytest
import torch

from training.config import config_of
from training.data import Batch
from training.draws import Draws
from training.losses import absolute_error, class_loss
from training.recipes.s2gan import S2ganRecipe

TINY = {
    "method": "s2gan", "resolution": 16, "width": 4, "discriminator_width": 4, "bases": 3,
    "basis_channels": 2,
}  # fmt: skip


@pytest.fixture
def recipe():
    torch.manual_seed(0)
    return S2ganRecipe(config_of(TINY))


@pytest.fixture
def batch():
    torch.manual_seed(1)
    source, target = torch.tensor([0, 1, 5, 3]), torch.tensor([2, 0, 1, 0])
    return Batch(torch.rand(4, 3, 16, 16) * 2 - 1, source, target, torch.zeros(4, dtype=torch.long))


def generator_loss(recipe, batch):
    _, loss = recipe.step(batch, 0, 4, Draws(0, 4, 4))
    return loss


def test_the_generator_pays_for_realness_class_and_the_portrait_at_its_own_age(recipe, batch):
    label = torch.eye(6)
    criticism, logits = recipe.discriminator(recipe.generator(batch.real, label[batch.target]))
    rebuilt = absolute_error(recipe.generator(batch.real, label[batch.source]), batch.real)
    wanted = -criticism.mean() + 10 * class_loss(logits, batch.target) + 100 * rebuilt
    loss = generator_loss(recipe, batch)
    torch.testing.assert_close(loss.value, wanted)
    torch.testing.assert_close(loss.logged["reconstruction"], rebuilt)


def test_an_ages_transform_learns_from_the_portraits_that_have_or_get_it(recipe, batch):
    (gradient,) = torch.autograd.grad(
        generator_loss(recipe, batch).value, [recipe.generator.decoder.transforms]
    )
    moved = gradient.abs().amax((1, 2)) > 0
    assert moved.tolist() == [True, True, True, True, False, True]


def test_a_portrait_is_encoded_once_for_all_its_pictures(recipe, batch, monkeypatch):
    encoded = []
    encoder = type(recipe.generator.encoder)
    forward = encoder.forward
    monkeypatch.setattr(
        encoder, "forward", lambda self, image: encoded.append(len(image)) or forward(self, image)
    )
    recipe.anchors(recipe.generator, batch.real, 0)
    assert encoded == [4]
    list(recipe.step(batch, 0, 4, Draws(0, 4, 4)))
    assert encoded == [4, 4]


def test_it_is_exported_as_a_basis_and_its_combinations(recipe, batch):
    parts = recipe.exportable(recipe.generator.eval())
    assert parts.interpolation_space == "combinations"
    np.testing.assert_array_equal(parts.latents, np.eye(6, dtype=np.float32)[None])
    (decoder,), label = parts.decoders, torch.from_numpy(parts.latents[0])
    picture = decoder(parts.encoder(batch.real), label[batch.target])
    torch.testing.assert_close(picture, recipe.generator(batch.real, label[batch.target]))


def test_the_sizes_of_a_run_are_those_of_its_generator():
    config = config_of(TINY | {"clusters": [[0, 9], [20, 40], [50, 80]], "basis_channels": 5})
    generator = S2ganRecipe(config).generator
    assert generator.decoder.transforms.shape == (3, 3, 3)
    assert generator.encoder(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 5, 4, 4)
