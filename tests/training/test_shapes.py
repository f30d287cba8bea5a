import dataclasses

import numpy as np
import pytest
import torch

from model.networks.layers import laid_along
from training.config import load_config
from training.data import DataError, PortraitSet, mirrored, split_rows
from training.shapes import bending_flow, mean_shapes, strengthened

CPU = torch.device("cpu")


def face(chin_down):
    """A symmetric face whose chin is at `chin_down`: 68 landmarks, the rest about right."""
    shape = torch.full((68, 2), 0.5)
    for outline, y in ((range(17), None), (range(17, 27), 0.4), (range(48, 55), 0.7)):
        for place in outline:
            along = (place - outline[0]) / (len(outline) - 1)
            shape[place, 0] = 0.3 + 0.4 * along
            shape[place, 1] = y or 0.5 + (chin_down - 0.5) * (1 - (2 * along - 1) ** 2)
    for first, x in ((36, 0.35), (42, 0.55)):
        right = torch.tensor([0.0, 0.03, 0.07, 0.1, 0.07, 0.03]) + x
        down = torch.tensor([0.0, -0.02, -0.02, 0.0, 0.02, 0.02]) + 0.45
        shape[first : first + 6] = torch.stack([right, down], 1)
    shape[27:31, 1] = torch.linspace(0.45, 0.6, 4)
    shape[31:36, 0], shape[31:36, 1] = torch.linspace(0.46, 0.54, 5), 0.62
    shape[55:60] = torch.stack([torch.linspace(0.66, 0.34, 5), torch.full((5,), 0.75)], 1)
    shape[60:65] = torch.stack([torch.linspace(0.35, 0.65, 5), torch.full((5,), 0.7)], 1)
    shape[65:68] = torch.stack([torch.linspace(0.6, 0.4, 3), torch.full((3,), 0.72)], 1)
    return shape


@pytest.fixture
def portraits(prepared):
    """Chins lower by 0.02 with every cluster, and by 0.01 more in the second group."""
    landmarks = np.full((len(prepared.portraits), 68, 2), np.nan, np.float32)
    config = load_config("smoke", ["resolution=32"])
    set_ = PortraitSet(prepared, config, split_rows(prepared, 10)[0], CPU)
    for place, row in enumerate(set_.rows):
        chin = 0.80 + 0.02 * set_.clusters[place] + 0.01 * set_.groups[place]
        landmarks[row.index] = face(float(chin))
    rows = tuple(dataclasses.replace(row, source="one") for row in set_.rows)
    return PortraitSet(dataclasses.replace(prepared, landmarks=landmarks), config, rows, CPU)


def test_the_made_up_face_is_symmetric():
    torch.testing.assert_close(mirrored(face(0.9)[None])[0], face(0.9))


def test_mean_shapes_are_those_of_each_cluster_with_groups_counted_alike(portraits):
    shapes = mean_shapes(portraits)
    for cluster, shape in enumerate(shapes):
        torch.testing.assert_close(shape, face(0.805 + 0.02 * cluster), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("temper", "share"), [(0.0, 1 / 2), (1.0, 1 / 4)])
def test_sources_count_as_they_are_drawn(portraits, temper, share):
    # One of four faces in every cell is another source's, and has a lower chin.
    rows = list(portraits.rows)
    for cluster in range(6):
        for group in range(2):
            cell = (portraits.clusters == cluster) & (portraits.groups == group)
            place, *others = torch.nonzero(cell).flatten().tolist()[:4]
            assert len(others) == 3
            rows[place] = dataclasses.replace(rows[place], source="other")
            portraits.landmarks[place] = face(0.95)
            for rest in others:
                portraits.landmarks[rest] = face(0.85)
            for rest in torch.nonzero(cell).flatten().tolist()[4:]:
                portraits.landmarks[rest] = float("nan")
    portraits.rows = tuple(rows)
    portraits.config = dataclasses.replace(portraits.config, source_temper=temper)
    for shape in mean_shapes(portraits):
        torch.testing.assert_close(shape, face(0.85 + 0.1 * share), atol=1e-5, rtol=0)


def test_turned_heads_and_missing_faces_do_not_count(portraits):
    expected = mean_shapes(portraits)
    first = [int(torch.nonzero(portraits.clusters == c)[0]) for c in range(6)]
    portraits.landmarks[first] = float("nan")
    second = [int(torch.nonzero(portraits.clusters == c)[1]) for c in range(6)]
    portraits.landmarks[second, 30, 0] += 0.2
    portraits.landmarks[second, 8, 1] += 0.1
    torch.testing.assert_close(mean_shapes(portraits), expected, atol=1e-5, rtol=0)


def test_a_cluster_without_frontal_faces_is_named(portraits):
    portraits.landmarks[portraits.clusters == 3] = float("nan")
    with pytest.raises(DataError, match=r"flow_images.*15-19"):
        mean_shapes(portraits)


@pytest.mark.parametrize("landmarks", [None, torch.full((1, 68, 2), float("nan"))])
def test_a_set_without_landmarks_says_what_to_do(portraits, landmarks):
    portraits.landmarks = landmarks
    with pytest.raises(DataError, match="no landmarks; prepare"):
        mean_shapes(portraits)


def test_strengthened_shapes_differ_more_about_the_same_mean():
    shapes = torch.rand(6, 68, 2)
    stronger = strengthened(shapes, 1.5)
    torch.testing.assert_close(stronger.mean(0), shapes.mean(0))
    torch.testing.assert_close(stronger[1] - stronger[4], 1.5 * (shapes[1] - shapes[4]))
    torch.testing.assert_close(strengthened(shapes, 1.0), shapes)


def test_without_moves_nothing_flows():
    flow = bending_flow(face(0.9)[None], torch.zeros(1, 68, 2), 16)
    assert flow.shape == (1, 2, 16, 16)
    assert flow.abs().max() < 1e-6


def test_a_bent_picture_shows_each_landmark_where_it_moved():
    side, landmarks, moves = 128, face(0.9)[None].repeat(2, 1, 1), torch.zeros(2, 68, 2)
    moves[0, :17, 1] = -0.05 * (landmarks[0, :17, 1] - 0.5) / 0.4
    moves[1, 48:68, 0] = 0.02
    flow = bending_flow(landmarks, moves, 32)
    places = (torch.arange(side) + 0.5) / side
    coordinates = torch.stack([places.expand(side, side), places[:, None].expand(side, side)])
    bent = laid_along(coordinates.repeat(2, 1, 1, 1), flow)
    moved = ((landmarks + moves) * side).long()
    for picture, (now, before) in enumerate(zip(moved, landmarks, strict=True)):
        for place in (8, 48, 54, 36, 30):
            x, y = now[place]
            torch.testing.assert_close(bent[picture, :, y, x], before[place], atol=0.012, rtol=0)
