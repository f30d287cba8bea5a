import numpy as np
import pytest
import torch
from PIL import Image

from model.portraits.classes import CLASSES
from training import parser
from training.checkpoints import CHECKPOINT
from training.config import ConfigError
from training.parser import (
    Augmentation,
    ParserConfig,
    batch_indices,
    confusion,
    fit_parser,
    mirrored,
    parsing_scores,
)


def test_mirroring_exchanges_left_and_right():
    labels = torch.tensor([[4, 0, 5], [6, 1, 7], [8, 13, 9]])
    assert mirrored(labels).tolist() == [[4, 0, 5], [6, 1, 7], [8, 13, 9]]
    assert mirrored(torch.tensor([[4, 0]])).tolist() == [[0, 5]]


def test_a_perfect_map_scores_one_and_absent_classes_do_not_count():
    labels = np.array([[0, 1], [13, 17]])
    scores = parsing_scores(confusion(labels, labels))
    assert scores["iou_kept"] == scores["iou_removed"] == scores["mean_iou_common"] == 1.0
    assert scores["iou"]["hat"] is None


def test_half_an_overlap_of_a_class_scores_a_third():
    wanted, predicted = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
    assert abs(parsing_scores(confusion(predicted, wanted))["iou"]["skin"] - 1 / 3) < 1e-4


def test_confusing_two_kept_classes_costs_nothing_between_kept_and_removed():
    wanted, predicted = np.array([1, 2, 0]), np.array([2, 1, 0])
    scores = parsing_scores(confusion(predicted, wanted))
    assert scores["iou_kept"] == 1.0
    assert scores["iou"]["skin"] == 0.0


def test_augmented_views_keep_to_their_ranges():
    config = ParserConfig(resolution=32)
    augment = Augmentation(config, torch.Generator().manual_seed(0))
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    labels = torch.randint(0, len(CLASSES), (4, 64, 64), dtype=torch.uint8)
    view, wanted = augment(images, labels)
    assert view.shape == (4, 3, 32, 32)
    assert view.abs().max() <= 1
    assert wanted.shape == (4, 32, 32)
    assert wanted.min() >= 0
    assert wanted.max() < len(CLASSES)


def test_an_epoch_shows_every_portrait_once_and_the_next_in_another_order():
    first = torch.cat([batch_indices(step, 12, 4, 0) for step in range(3)])
    second = torch.cat([batch_indices(step, 12, 4, 0) for step in range(3, 6)])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(12))
    assert first.tolist() != second.tolist()


@pytest.fixture
def maps(tmp_path):
    """Eight pictures whose map is their left half skin, their right half hair."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    labels = np.full((48, 48), CLASSES.index("skin"), np.uint8)
    labels[:, 24:] = CLASSES.index("hair")
    for i in range(8):
        picture = np.random.default_rng(i).integers(0, 256, (48, 48, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / "images" / f"{i}.jpg")
        Image.fromarray(labels).save(tmp_path / "masks" / f"{i}.png")
    return tmp_path


def test_a_parser_run_taken_up_ends_with_the_weights_of_one_left_alone(maps, monkeypatch):
    config = ParserConfig(resolution=32, batch=2, images=16, held_out=4)
    fit_parser(maps, maps / "alone", config, checkpoint_every=4)

    real_save, saved = parser.save_checkpoint, []

    def save(folder, state):
        if saved:
            raise OSError("full")
        saved.append(state["steps"])
        real_save(folder, state)

    monkeypatch.setattr(parser, "save_checkpoint", save)
    with pytest.raises(OSError, match="full"):
        fit_parser(maps, maps / "stopped", config, checkpoint_every=4)
    monkeypatch.setattr(parser, "save_checkpoint", real_save)
    assert torch.load(maps / "stopped" / CHECKPOINT, weights_only=True)["steps"] == 2
    report = fit_parser(maps, maps / "stopped", config, checkpoint_every=4)
    assert report["portraits"] == 2
    alone, taken_up = (
        torch.load(maps / folder / "parser.pt", weights_only=True)
        for folder in ("alone", "stopped")
    )
    for name, tensor in alone.items():
        assert torch.equal(taken_up[name], tensor), name


def test_other_settings_do_not_take_a_parser_run_up(maps):
    fit_parser(maps, maps / "run", ParserConfig(resolution=32, batch=2, images=4, held_out=4), 2)
    changed = ParserConfig(resolution=32, batch=2, images=4, held_out=4, seed=1)
    with pytest.raises(ConfigError, match="other settings"):
        fit_parser(maps, maps / "run", changed)
