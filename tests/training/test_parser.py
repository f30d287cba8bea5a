import numpy as np
import torch

from model.portraits.classes import CLASSES
from training.parser import Augmentation, ParserConfig, confusion, mirrored, parsing_scores


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
