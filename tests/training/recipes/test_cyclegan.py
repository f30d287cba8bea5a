import io

import pytest
import torch

from training.config import ConfigError, config_of
from training.data import Batch
from training.draws import Draws
from training.export import warm_start_bytes
from training.recipes.cyclegan import CycleganRecipe, PicturePool
from training.run import Run

TINY = {
    "method": "cyclegan", "resolution": 32, "width": 2, "discriminator_width": 2, "blocks": 1,
    "batch": 4, "clusters": ((0, 6), (7, 19), (30, 69)), "pool": 3, "threads": 1, "held_out": 3,
    "select_every": 0,
}  # fmt: skip


@pytest.fixture
def recipe():
    torch.manual_seed(0)
    return CycleganRecipe(config_of(TINY))


@pytest.fixture
def batch():
    torch.manual_seed(1)
    nobody = torch.zeros(4, dtype=torch.int64)
    return Batch(torch.rand(4, 3, 32, 32) * 2 - 1, nobody, nobody, nobody)


def draws(step=0):
    return Draws(0, step, 4)


def flat(*levels):
    """Pictures (N, 3, 2, 2) of one level each."""
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 2, 2) / 127.5 - 1


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"patch_layers": 4}, "patch_layers"),
        ({"patch_layers": 0}, "patch_layers"),
        ({"blocks": 0}, "blocks"),
        ({"pool": -1}, "pool"),
    ],
)
def test_impossible_values_name_the_setting(changes, setting):
    with pytest.raises(ConfigError, match=setting):
        config_of(TINY | changes)


def test_translators_move_before_discriminators(recipe, batch):
    made = [loss.optimiser for loss in recipe.step(batch, 0, 0, draws())]
    assert made == ["generator", "discriminator"]


@torch.no_grad()
@pytest.mark.parametrize("anchor", [0, 2])
def test_losses_are_the_published_sums_over_both_translators(recipe, batch, anchor):
    config = recipe.config
    forth, back = recipe.generator.forth[anchor], recipe.generator.back[anchor]
    judges = recipe.discriminator.forth[anchor], recipe.discriminator.back[anchor]
    others, same = batch.real[:2], batch.real[2:]
    aged, returned = forth(others), back(same)

    def mean(tensor):
        return tensor.mean().item()

    generator = 0.0
    for judge, made in zip(judges, (aged, returned), strict=True):
        generator += mean((judge(made) - 1) ** 2)
    for cycled, real in ((back(aged), others), (forth(returned), same)):
        generator += config.cycle_weight * mean((cycled - real).abs())
    for kept, real in ((back(others), others), (forth(same), same)):
        generator += config.identity_weight * mean((kept - real).abs())
    discriminator = 0.0
    for judge, real, made in zip(judges, (same, others), (aged, returned), strict=True):
        discriminator += 0.5 * mean((judge(real) - 1) ** 2) + 0.5 * mean(judge(made) ** 2)
    values = [loss.value.item() for loss in recipe.step(batch, 0, anchor, draws())]
    assert (config.cycle_weight, config.identity_weight) == (10, 5)
    assert values == pytest.approx([generator, discriminator], rel=1e-4)


def test_a_pool_that_is_not_full_gives_what_is_new_and_keeps_it():
    pool = PicturePool(3, 2)
    chances, places = torch.zeros(2), torch.zeros(2, dtype=torch.int64)
    new = flat(10.0, 20.0)
    torch.testing.assert_close(pool.exchanged(new, chances, places), new)
    assert pool.held == 2
    assert pool.pictures[:, 0, 0, 0].tolist() == [10, 20, 0]


def test_a_full_pool_gives_an_old_picture_for_half_of_the_new_and_keeps_those():
    pool = PicturePool(3, 2)
    pool.exchanged(flat(10.0, 20.0, 30.0), torch.ones(3), torch.zeros(3, dtype=torch.int64))
    given = pool.exchanged(
        flat(40.0, 50.0, 60.0), torch.tensor([0.49, 0.51, 0.0]), torch.tensor([1, 0, 1])
    )
    # The third meets what the first left at its place.
    torch.testing.assert_close(given, flat(20.0, 50.0, 40.0))
    assert pool.pictures[:, 0, 0, 0].tolist() == [10, 60, 30]
    assert pool.held == 3


def test_a_batch_that_overfills_a_pool_may_get_its_own_first_pictures():
    pool = PicturePool(1, 2)
    given = pool.exchanged(flat(10.0, 20.0), torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(given, flat(10.0, 10.0))
    assert pool.pictures[0, 0, 0, 0] == 20


def test_without_a_pool_the_newest_pictures_are_seen():
    new, places = flat(10.0, 20.0), torch.zeros(2, dtype=torch.int64)
    torch.testing.assert_close(PicturePool(0, 2).exchanged(new, torch.zeros(2), places), new)


def test_old_pictures_are_kept_to_half_a_level():
    pool, picture = PicturePool(1, 8), torch.rand(1, 3, 8, 8) * 2 - 1
    place = torch.zeros(1, dtype=torch.int64)
    pool.exchanged(picture, torch.zeros(1), place)
    old = pool.exchanged(torch.zeros_like(picture), torch.zeros(1), place)
    assert 0 < (old - picture).abs().max() <= 0.5 / 127.5 + 1e-6


def test_each_discriminators_pool_fills_with_what_its_translator_makes(recipe, batch):
    for step in range(2):
        list(recipe.step(batch, 0, 3 * step, draws(step)))
    pools = recipe.discriminator.pools
    for name, portraits in (("forth", batch.real[:2]), ("back", batch.real[2:])):
        pool = getattr(pools, name)[0]
        assert pool.held == 3
        with torch.no_grad():
            made = getattr(recipe.generator, name)[0](portraits)
        levels = ((made + 1) * 127.5).round()
        for picture in pool.pictures.float():
            assert (levels - picture).abs().amax((1, 2, 3)).min() <= 1
    assert all(pool.held == 0 for pool in (*pools.forth[1:], *pools.back[1:]))


def test_discriminators_learn_from_pictures_of_earlier_steps(recipe, batch):
    for step in range(2):
        list(recipe.step(batch, 0, 3 * step, draws(step)))
    state = recipe.discriminator.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    scores = []
    for level in (None, 255):
        recipe.discriminator.load_state_dict(before)
        pool = recipe.discriminator.pools.forth[0]
        if level is not None:
            pool.pictures.fill_(level)
        steps = (list(recipe.step(batch, 0, 0, draws(step)))[1] for step in range(4))
        scores.append([loss.logged["fake_score"].item() for loss in steps])
    assert scores[0] != pytest.approx(scores[1], rel=1e-3)


def test_a_checkpoint_brings_back_the_pools(prepared, tmp_path):
    run = Run(config_of(TINY), prepared, tmp_path, "cpu")
    for _ in range(12):
        run.step()
    run.save()
    again = Run(config_of(TINY), prepared, tmp_path, "cpu")
    for old, new in zip(run.recipe.discriminator.pools.modules(),
                        again.recipe.discriminator.pools.modules(), strict=True):  # fmt: skip
        if isinstance(old, PicturePool):
            assert old.held == new.held == 3
            assert old.pictures.any()
            assert torch.equal(old.pictures, new.pictures)


def test_a_warm_start_holds_no_pictures_and_begins_without(prepared, tmp_path):
    run = Run(config_of(TINY), prepared, tmp_path / "before", "cpu")
    for _ in range(3):
        run.step()
    assert run.recipe.discriminator.pools.forth[0].held == 2
    weights = torch.load(io.BytesIO(warm_start_bytes(run.state())), weights_only=True)
    assert not [name for name in weights["discriminator"] if "pool" in name]
    after = Run(config_of(TINY), prepared, tmp_path / "after", "cpu")
    after.warm_start(weights)
    assert after.recipe.discriminator.pools.forth[0].held == 0


def test_parts_of_a_batch_share_a_process_pool(prepared, tmp_path):
    run = Run(config_of(TINY | {"batch": 8, "accumulate": 2}), prepared, tmp_path, "cpu")
    run.step()
    assert run.recipe.discriminator.pools.forth[0].held == 3
