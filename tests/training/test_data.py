import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from training.config import FitConfig
from training.data import SHARES, DataError, PortraitSet, masked, open_prepared, split_rows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config():
    return FitConfig(resolution=32, held_out=3)


def test_masking_paints_the_background_grey_and_keeps_the_rest():
    portraits = torch.full((1, 2, 2, 3), 200, dtype=torch.uint8)
    kept = torch.tensor([[[255, 0], [0, 255]]], dtype=torch.uint8)
    image = masked(portraits, kept)
    assert image[0, 0].tolist() == [[200, 128], [128, 200]]


def test_a_folder_without_a_finished_set_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="run prepare first"):
        open_prepared(tmp_path)


def test_splits_share_no_portrait(prepared):
    parts = [{row.index for row in part} for part in split_rows(prepared, 3)]
    assert sum(map(len, parts)) == len(prepared.rows) == len(set.union(*parts))
    assert {row.split for row in split_rows(prepared, 3)[2]} == {"test"}


def test_draws_are_uniform_over_clusters_whatever_their_size(prepared, config):
    train = split_rows(prepared, 3)[0]
    rows = tuple(row for i, row in enumerate(train) if row.age_years < 15 or i % 2)
    portraits = PortraitSet(prepared, config, rows, CPU)
    batch = portraits.draw(3000, torch.Generator().manual_seed(0))
    share = torch.bincount(batch.source, minlength=6) / 3000
    assert (share - 1 / 6).abs().max() < 0.03


def test_a_target_is_never_the_source(prepared, config):
    portraits = PortraitSet(prepared, config, split_rows(prepared, 3)[0], CPU)
    batch = portraits.draw(500, torch.Generator().manual_seed(1))
    assert (batch.source != batch.target).all()
    assert set(batch.target.tolist()) == set(range(6))


@pytest.mark.parametrize("target", [0, 4])
def test_a_pairs_halves_are_every_other_cluster_evenly_and_the_target(prepared, config, target):
    portraits = PortraitSet(prepared, config, split_rows(prepared, 3)[0], CPU)
    batch = portraits.draw_pair(target, 4000, torch.Generator().manual_seed(0))
    others, same = batch.source.chunk(2)
    share = torch.bincount(others, minlength=6) / 2000
    assert share[target] == 0
    assert (share - 1 / 5).abs().topk(5, largest=False).values.max() < 0.03
    assert (same == target).all()
    assert torch.equal(batch.target, torch.cat([same, others]))


def test_a_pairs_portraits_are_of_the_clusters_that_it_names(prepared, config, monkeypatch):
    portraits = PortraitSet(prepared, config, split_rows(prepared, 3)[0], CPU)
    flips = []
    monkeypatch.setattr(portraits, "portraits", lambda rows, flip: flips.append(flip) or rows)
    batch = portraits.draw_pair(2, 400, torch.Generator().manual_seed(0))
    assert torch.equal(portraits.clusters[batch.real], batch.source)
    drawn = portraits.groups[batch.real]
    assert torch.equal(batch.group[batch.group < 2], drawn[batch.group < 2])
    for half in (*drawn.chunk(2), *flips[0].chunk(2)):
        assert half.float().mean().item() == pytest.approx(1 / 2, abs=0.1)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_even_parts_of_a_pair_keep_both_halves(prepared, config, parts):
    portraits = PortraitSet(prepared, config, split_rows(prepared, 3)[0], CPU)
    batch = portraits.draw_pair(1, 12, torch.Generator().manual_seed(0))
    for part in range(parts):
        others, same = batch.part(part, parts).source.chunk(2)
        assert len(same) == len(others) == 6 // parts
        assert (same == 1).all()
        assert (others != 1).all()


def test_an_odd_pair_is_refused(prepared, config):
    portraits = PortraitSet(prepared, config, split_rows(prepared, 3)[0], CPU)
    with pytest.raises(ValueError, match="two halves"):
        portraits.draw_pair(1, 5, torch.Generator())


def test_a_third_of_the_draws_drops_the_group(prepared, config):
    portraits = PortraitSet(prepared, config, split_rows(prepared, 3)[0], CPU)
    batch = portraits.draw(3000, torch.Generator().manual_seed(2))
    assert (batch.group == 2).float().mean().item() == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.parametrize("temper", [0.0, 0.5, 1.0])
def test_draws_are_even_over_clusters_then_groups_then_tempered_sources(
    prepared, config, temper, monkeypatch
):
    # Cells of one to six portraits, and a source with one to three of them.
    rows = tuple(
        dataclasses.replace(row, source=("aaf", "ffhq")[row.index % 6 < 1 + row.index // 24])
        for row in prepared.rows
        if row.index % 6 <= row.index % 7
    )
    settings = dataclasses.replace(config, source_temper=temper)
    portraits = PortraitSet(prepared, settings, rows, CPU)
    monkeypatch.setattr(portraits, "portraits", lambda rows, flip: rows)
    count = 8_000
    drawn = portraits.draw(count, torch.Generator().manual_seed(3)).real

    names = [(row.age_years, row.gender, row.source) for row in portraits.rows]
    sizes = Counter(names)
    weights = Counter()
    for (age, gender, _), size in sizes.items():
        weights[age, gender] += size**temper
    expected = np.array(
        [count / 12 * sizes[n] ** (temper - 1) / weights[n[0], n[1]] for n in names]
    )
    assert len(set(sizes.values())) > 3
    assert expected.sum() == pytest.approx(count)
    counted = np.bincount(drawn, minlength=len(names))
    chi_squared = float(((counted - expected) ** 2 / expected).sum())
    freedom = len(names) - 1
    assert chi_squared < freedom + 5 * (2 * freedom) ** 0.5


def test_the_same_generator_draws_the_same_batch(prepared, config):
    portraits = PortraitSet(prepared, config, split_rows(prepared, 3)[0], CPU)
    first, second = (portraits.draw(8, torch.Generator().manual_seed(5)) for _ in range(2))
    torch.testing.assert_close(first.real, second.real)


@pytest.mark.parametrize("name", SHARES)
def test_shares_are_drawn_with_their_portraits_once_they_are_loaded(prepared, config, name):
    hair = np.zeros(prepared.kept.shape, np.uint8)
    hair[:, :8, :16] = 255 * (np.arange(len(hair))[:, None, None] % 2)
    portraits = PortraitSet(
        dataclasses.replace(prepared, **{name: hair}),
        dataclasses.replace(config, resolution=16),
        split_rows(prepared, 3)[0],
        CPU,
    )
    generator = torch.Generator().manual_seed(0)
    assert getattr(portraits.draw(4, generator), name) is None
    portraits.load_shares()
    batch = portraits.draw(32, generator)
    shares = getattr(batch, name)
    assert shares.shape == (32, 1, 16, 16)
    for share, image in zip(shares, batch.real, strict=True):
        place = next(
            i for i, own in enumerate(portraits.portraits(torch.arange(len(portraits))))
            if torch.equal(own, image) or torch.equal(own.flip(-1), image)
        )  # fmt: skip
        flipped = not torch.equal(portraits.portraits(torch.tensor([place]))[0], image)
        wanted = torch.zeros(16, 16)
        wanted[:4, :8] = portraits.rows[place].index % 2
        torch.testing.assert_close(share[0], wanted.flip(-1) if flipped else wanted)
    part = batch.part(1, 4)
    torch.testing.assert_close(getattr(part, name), shares[1::4])
    torch.testing.assert_close(part.shown, batch.shown[1::4])


def test_a_set_that_does_not_say_where_hair_is_draws_none(prepared, config):
    portraits = PortraitSet(prepared, config, split_rows(prepared, 3)[0], CPU)
    portraits.load_shares()
    batch = portraits.draw(2, torch.Generator().manual_seed(0))
    assert batch.hair is None
    assert batch.eyeglasses is None


def test_a_neutral_draw_still_says_whose_portrait_it_is(prepared, config):
    portraits = PortraitSet(
        prepared, dataclasses.replace(config, neutral=0.9), split_rows(prepared, 3)[0], CPU
    )
    batch = portraits.draw(16, torch.Generator().manual_seed(0))
    assert batch.group.tolist().count(2) > 10
    for image, group in zip(batch.real, batch.shown, strict=True):
        own = portraits.portraits(torch.arange(len(portraits)))
        place = next(
            i for i, x in enumerate(own) if torch.equal(x, image) or torch.equal(x.flip(-1), image)
        )
        assert portraits.groups[place] == group


def test_images_are_in_minus_one_to_one_and_flips_mirror_them(prepared, config):
    portraits = PortraitSet(prepared, config, split_rows(prepared, 3)[0], CPU)
    rows = torch.tensor([0, 1])
    plain = portraits.portraits(rows)
    flipped = portraits.portraits(rows, torch.tensor([True, False]))
    assert plain.min() >= -1
    assert plain.max() <= 1
    torch.testing.assert_close(flipped[0], plain[0].flip(-1))
    torch.testing.assert_close(flipped[1], plain[1])


def test_a_cell_without_portraits_is_named(prepared, config):
    rows = tuple(r for r in prepared.rows if not (r.gender == "male" and r.age_years == 7))
    with pytest.raises(DataError, match="male 7-9"):
        PortraitSet(prepared, config, rows, CPU)


def test_a_lower_resolution_averages_pixels(prepared, config):
    half = dataclasses.replace(config, resolution=16)
    rows = prepared.rows[:1]
    fine = PortraitSet(prepared, config, rows, CPU, balanced=False).images.float()
    coarse = PortraitSet(prepared, half, rows, CPU, balanced=False).images.float()
    wanted = fine.unflatten(3, (16, 2)).unflatten(2, (16, 2)).mean((3, 5))
    assert (coarse - wanted).abs().max() <= 0.5


def test_a_resolution_that_does_not_divide_is_refused(prepared, config):
    wrong = dataclasses.replace(config, resolution=64)
    with pytest.raises(DataError, match="no multiple"):
        PortraitSet(prepared, wrong, prepared.rows, CPU)


def test_ages_between_clusters_are_left_out(prepared, config):
    between = tuple(dataclasses.replace(row, age_years=12.0) for row in prepared.rows)
    with pytest.raises(DataError, match="no portrait"):
        PortraitSet(prepared, config, between, CPU, balanced=False)
    assert np.unique([row.age_years for row in prepared.rows]).tolist() == [0, 3, 7, 15, 30, 50]


def wearing(prepared, glasses):
    return tuple(dataclasses.replace(row, glasses=glasses(row.index)) for row in prepared.rows)


@pytest.mark.parametrize(("cap", "seen"), [(1.0, 4 / 6), (0.7, 4 / 6), (0.25, 0.25), (0.0, 0.0)])
def test_no_more_draws_wear_glasses_than_are_wanted(prepared, config, monkeypatch, cap, seen):
    # Four of six portraits in every cell, and in none of the youngest cluster.
    rows = wearing(prepared, lambda index: index >= 12 and index % 6 < 4)
    settings = dataclasses.replace(config, source_temper=1.0, glasses_share=cap)
    portraits = PortraitSet(prepared, settings, rows, CPU)
    monkeypatch.setattr(portraits, "portraits", lambda rows, flip: rows)
    batch = portraits.draw(6_000, torch.Generator().manual_seed(3))
    worn = torch.tensor([bool(row.glasses) for row in portraits.rows])[batch.real]
    assert not worn[batch.source == 0].any()
    for cluster in range(1, 6):
        share = worn[batch.source == cluster].double().mean().item()
        assert share == pytest.approx(seen, abs=0.06)


def test_glasses_that_every_portrait_wears_are_drawn(prepared, config):
    settings = dataclasses.replace(config, glasses_share=0.1)
    portraits = PortraitSet(prepared, settings, wearing(prepared, lambda _: True), CPU)
    assert len(portraits.draw(8, torch.Generator().manual_seed(0)).real) == 8


def test_a_set_that_does_not_tell_glasses_is_named(prepared, config):
    settings = dataclasses.replace(config, glasses_share=0.1)
    with pytest.raises(DataError, match=r"glasses_share.*prepare"):
        PortraitSet(prepared, settings, prepared.rows, CPU)
    assert len(PortraitSet(prepared, settings, prepared.rows, CPU, balanced=False)) > 0


def test_portraits_are_as_fine_as_the_set_has_them_where_that_is_asked(prepared, config):
    """The set has 32 px."""
    coarse = dataclasses.replace(config, resolution=16)
    portraits = PortraitSet(prepared, coarse, split_rows(prepared, 3)[0], CPU)
    rows = torch.tensor([3, 0])
    finest = portraits.finer_portraits(rows, 128)
    assert finest.shape == (2, 3, 32, 32)
    means = torch.nn.functional.avg_pool2d(finest, 2)
    torch.testing.assert_close(means, portraits.portraits(rows), atol=1 / 127, rtol=0)
    assert torch.equal(portraits.finer_portraits(rows, 16), portraits.portraits(rows))
