"""What holds for both methods of pairs; each method's own losses are in its own tests."""

import copy
import io
import json

import numpy as np
import pytest
import torch

from model.bundle import open_bundle
from model.runtime import OnnxRuntimeGraph, Provider
from training.config import ConfigError, config_of
from training.data import Batch
from training.draws import Draws
from training.export import export, trained_of_checkpoint, warm_start_bytes
from training.loop import fit
from training.recipes import recipe_of
from training.run import LOG, Run

TINY = {
    "resolution": 32, "width": 2, "discriminator_width": 2, "batch": 4, "images": 96,
    "clusters": ((0, 6), (7, 19), (30, 69)), "augment": 0.5, "log_every": 24, "sample_every": 48,
    "checkpoint_every": 24, "select_every": 0, "average_half_life": 40.0, "threads": 1,
    "held_out": 3,
}  # fmt: skip
METHODS = {
    "cyclegan": TINY | {"method": "cyclegan", "blocks": 1, "pool": 2},
    "discogan": TINY | {"method": "discogan", "bottleneck": 8, "first_steps": 4},
}


@pytest.fixture(params=METHODS)
def settings(request):
    return METHODS[request.param]


def batch_of(count=4):
    torch.manual_seed(1)
    nobody = torch.zeros(count, dtype=torch.int64)
    return Batch(torch.rand(count, 3, 32, 32) * 2 - 1, nobody, nobody, nobody)


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"batch": 5}, "batch"),
        ({"batch": 6, "accumulate": 2}, "batch"),
        ({"groups": ("female", "male")}, "groups"),
        ({"discriminator_steps": 2}, "discriminator_steps"),
        ({"augment_target": 0.5}, "augment_target"),
    ],
)
def test_settings_that_pairs_cannot_follow_are_refused(settings, changes, setting):
    with pytest.raises(ConfigError, match=f"^{setting}: "):
        config_of(settings | changes)


def test_a_process_with_an_odd_part_refuses_it(settings):
    recipe = recipe_of(config_of(settings | {"batch": 6}))
    with pytest.raises(ConfigError, match="even parts"):
        next(recipe.step(batch_of(6).part(0, 2), 0, 0, Draws(0, 0, 6, part=0, parts=2)))


def test_steps_take_the_anchors_in_turn(settings, prepared, tmp_path):
    run = Run(config_of(settings), prepared, tmp_path, "cpu")
    targets = []
    for steps in range(6):
        batch = run.recipe.draw(run.portraits, run.generator, 0, steps)
        targets += set(batch.source.chunk(2)[1].tolist())
    assert targets == [0, 1, 2, 0, 1, 2]


def test_a_step_moves_its_anchors_pair_and_nothing_else(settings, prepared, tmp_path):
    """After all have moved, so that each optimiser has moments that could go on moving them."""
    run = Run(config_of(settings), prepared, tmp_path, "cpu")
    for _ in range(9):
        run.step()
    moved = {"generator": set(), "discriminator": set()}
    for _ in range(9):
        anchor, before = run.recipe.anchor_of(run.steps), copy.deepcopy(run.state())
        run.step()
        after = run.state()
        for network, seen in moved.items():
            optimiser = run.optimisers[network]
            named = dict(getattr(run.recipe, network).named_parameters())
            order = {id(p): i for i, p in enumerate(optimiser.param_groups[0]["params"])}
            for name, parameter in named.items():
                place = order[id(parameter)]
                states = [s["optimisers"][network]["state"][place] for s in (before, after)]
                same = [torch.equal(states[0][key], states[1][key]) for key in states[0]]
                same.append(torch.equal(before[network][name], after[network][name]))
                if name.split(".")[1] != str(anchor):
                    assert all(same), name
                elif not states[0]["step"].equal(states[1]["step"]):
                    seen.add(name)
    for network, seen in moved.items():
        assert seen == {name for name, _ in getattr(run.recipe, network).named_parameters()}


def test_pictures_at_the_anchors_are_those_of_the_translators_to_them(settings):
    recipe = recipe_of(config_of(settings))
    network, image = recipe.generator.eval(), batch_of().real
    with torch.no_grad():
        aged = recipe.anchors(network, image, 0)
        assert aged.shape == (4, 3, 3, 32, 32)
        for anchor in range(3):
            torch.testing.assert_close(aged[:, anchor], network.forth[anchor](image))


def test_one_picture_for_each_half_is_no_diversity(settings):
    recipe, batch = recipe_of(config_of(settings)), batch_of()
    pictures = torch.cat([half[:1].expand_as(half) for half in batch.real.chunk(2)])
    signs = recipe.signs(batch, pictures)
    assert signs["diversity"] == 0
    assert signs["contrast"] > 0.5
    same = recipe.signs(batch, batch.real)
    torch.testing.assert_close(torch.stack(list(same.values())), torch.ones(3))


def test_a_run_learns_stays_finite_and_leaves_a_sheet(settings, prepared, tmp_path):
    run = Run(config_of(settings), prepared, tmp_path, "cpu")
    fresh = copy.deepcopy(run.state())
    assert fit(run)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["images"] for line in lines] == [24, 48, 72, 96]
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    assert {"adversarial", "discriminator", "contrast", "diversity"} <= lines[-1].keys()
    assert (tmp_path / "samples" / "000000096.png").exists()
    for network in ("generator", "discriminator", "averaged"):
        weights = run.state()[network]
        still = [name for name in weights if torch.equal(weights[name], fresh[network][name])]
        assert still == []


def test_a_run_that_goes_on_ends_as_one_that_was_not_interrupted(settings, prepared, tmp_path):
    whole = Run(config_of(settings), prepared, tmp_path / "whole", "cpu")
    assert fit(whole)
    for images in (44, 96):
        config = config_of(settings | {"images": images})
        parts = Run(config, prepared, tmp_path / "parts", "cpu")
        assert fit(parts)
    assert parts.resumed
    for part in ("generator", "discriminator", "averaged"):
        for name, tensor in whole.state()[part].items():
            assert torch.equal(parts.state()[part][name], tensor), f"{part}.{name}"


def test_a_warm_start_begins_with_the_averaged_translators(settings, prepared, tmp_path):
    before = Run(config_of(settings), prepared, tmp_path / "before", "cpu")
    for _ in range(9):
        before.step()
    weights = torch.load(io.BytesIO(warm_start_bytes(before.state())), weights_only=True)
    after = Run(config_of(settings), prepared, tmp_path / "after", "cpu")
    after.warm_start(weights)
    for name, tensor in before.averaged.network.state_dict().items():
        wanted = tensor.half() if tensor.is_floating_point() else tensor
        torch.testing.assert_close(after.recipe.generator.state_dict()[name], wanted.to(tensor))
    for name, parameter in before.recipe.discriminator.named_parameters():
        wanted = parameter.half().float()
        torch.testing.assert_close(after.recipe.discriminator.get_parameter(name), wanted)


@pytest.fixture(params=METHODS, scope="module")
def bundle(request, prepared, tmp_path_factory):
    """A few steps of a run, exported."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = METHODS[request.param] | {"clusters": ((0, 6), (7, 69))}
    run = Run(config_of(settings), prepared, folder / "run", "cpu")
    for _ in range(6):
        run.step()
    trained = trained_of_checkpoint(run.state())
    return trained, export(
        trained,
        folder / "bundle",
        prepared.portraits[:20].copy(),
        name="tiny",
        version="1",
        precision="float32",
        provenance={"data": ("random numbers",), "licence": "none needed"},
    )


def test_a_bundle_holds_one_decoder_for_each_anchor_and_nothing_between(bundle):
    manifest = open_bundle(bundle[1].path).manifest
    assert manifest.encoder is None
    files = [decoder.file for decoder in manifest.decoders]
    assert files == ["decoder-0-6.onnx", "decoder-7-69.onnx"]
    assert not manifest.continuous
    assert manifest.groups == ("all",)
    assert manifest.parity.portraits == 20
    assert manifest.parity.max_level_difference <= 1


@pytest.mark.parametrize("count", [1, 2, 7])
def test_each_decoder_gives_any_batch_what_its_translator_gives_alone(bundle, prepared, count):
    trained, written = bundle
    faces = prepared.portraits[: count + 1].astype(np.float32)
    index = np.arange(count + 1, dtype=np.int64)[::-1][:count].copy()
    pictures = []
    for name, decoder in trained.decoders.items():
        graph = OnnxRuntimeGraph(written.path / name, Provider.CPU)
        feeds = {"identity": faces, "index": index, "latent": np.ones((count, 1), np.float32)}
        (together,) = graph.run(feeds)
        assert together.shape == (count, 32, 32, 3)
        for row, picture in zip(index, together, strict=True):
            with torch.no_grad():
                alone = decoder(
                    torch.from_numpy(faces[row : row + 1]), torch.tensor([0]), torch.zeros(1, 1)
                )
            assert np.abs(alone[0].numpy().astype(int) - picture.astype(int)).max() <= 1
        pictures.append(together.astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() > 1
