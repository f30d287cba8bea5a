from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import model
from model.portraits.classes import CLASSES, REMOVED
from model.portraits.parse import Parser, ParsingMap, mask_portrait, preview
from model.runtime import Provider

SKIN, HAIR, CLOTH = (CLASSES.index(name) for name in ("skin", "hair", "cloth"))


def certain(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Labels (R, R) as probabilities (19, R, R)."""
    return (np.arange(len(CLASSES))[:, None, None] == labels).astype(np.uint8) * 255


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    """Background, with hair over skin over cloth in the middle (64, 64)."""
    labels = np.zeros((64, 64), np.uint8)
    labels[8:24, 16:48] = HAIR
    labels[24:48, 16:48] = SKIN
    labels[48:, 16:48] = CLOTH
    return labels


def test_labels_are_the_likeliest_class(labels: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(ParsingMap(certain(labels), 64).labels, labels)


@pytest.mark.parametrize("factor", [2, 4])
def test_labels_grow_with_the_portrait(labels: NDArray[np.uint8], factor: int) -> None:
    grown = ParsingMap(certain(labels), 64 * factor).labels
    assert grown.dtype == np.uint8
    assert (grown != labels.repeat(factor, 0).repeat(factor, 1)).mean() < 0.001


def test_kept_is_the_share_outside_the_removed_classes(labels: NDArray[np.uint8]) -> None:
    kept = ParsingMap(certain(labels), 64).kept(REMOVED)
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, (labels == HAIR) | (labels == SKIN))
    everything_but_hair = ParsingMap(certain(labels), 64).kept(["hair"])
    np.testing.assert_array_equal(everything_but_hair, labels != HAIR)


@pytest.mark.parametrize(
    ("skin", "expected"),
    [(30, 0), (50, 0), (75, 0.25), (100, 0.5), (125, 0.75), (150, 1), (180, 1)],
)
def test_kept_is_soft_where_classes_share_a_pixel_and_certain_beyond_doubt(
    skin: int, expected: float
) -> None:
    probability = np.zeros((19, 8, 8), np.uint8)
    probability[SKIN], probability[CLOTH] = skin, 200 - skin
    kept = ParsingMap(probability, 16).kept(REMOVED, smallest_island=0)
    np.testing.assert_allclose(kept, expected, atol=1e-6)


def test_kept_stays_in_range_where_nothing_is_likely() -> None:
    kept = ParsingMap(np.zeros((19, 8, 8), np.uint8), 8).kept(REMOVED)
    assert kept.min() >= 0
    assert kept.max() <= 1


def test_specks_are_left_out_and_large_parts_stay(labels: NDArray[np.uint8]) -> None:
    labels[2:5, 2:5] = SKIN
    labels[40:60, 2:12] = HAIR
    kept = ParsingMap(certain(labels), 64).kept(REMOVED)
    assert kept[2:5, 2:5].max() == 0
    assert kept[40:60, 2:12].min() == 1
    assert kept[24:48, 16:48].min() == 1
    assert ParsingMap(certain(labels), 64).kept(REMOVED, smallest_island=0)[3, 3] == 1


def test_a_winding_part_is_one_part() -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[1:62:4, 1:63] = HAIR
    for index, row in enumerate(range(1, 58, 4)):
        labels[row : row + 5, 1 if index % 2 else 62] = HAIR
    kept = ParsingMap(certain(labels), 64).kept(REMOVED, smallest_island=0.2)
    assert kept.mean() > 0.2
    np.testing.assert_array_equal(kept, labels == HAIR)


def test_the_only_part_stays_however_small() -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[30:32, 30:32] = SKIN
    assert ParsingMap(certain(labels), 64).kept(REMOVED).sum() == 4


def test_an_unknown_class_is_refused(labels: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="beard"):
        ParsingMap(certain(labels), 64).kept(["beard"])


@pytest.mark.parametrize("side", [64, 100, 256])
def test_the_parser_feeds_its_own_size_and_answers_in_the_portraits(
    labels: NDArray[np.uint8], side: int
) -> None:
    seen: list[NDArray[np.uint8]] = []

    def run(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        seen.append(image)
        return certain(labels)[None]

    parsed = Parser(run, 64).parse(np.full((side, side, 3), 70, np.uint8))
    assert seen[0].shape == (1, 64, 64, 3)
    assert seen[0].dtype == np.uint8
    assert (seen[0] == 70).all()
    assert parsed.labels.shape == parsed.kept(REMOVED).shape == (side, side)


def test_a_network_of_another_shape_is_refused() -> None:
    parser = Parser(lambda image: np.zeros((1, 5, 64, 64), np.uint8), 64)
    with pytest.raises(ValueError, match="19"):
        parser.parse(np.zeros((64, 64, 3), np.uint8))


def save_graph(path: Path, output: str, side: int | str) -> None:
    """An ONNX graph from an image to the same constant map for each."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    map_of_skin = certain(np.full((8, 8), SKIN))[None]
    nodes = [
        helper.make_node("Constant", [], ["map"], value=onnx.numpy_helper.from_array(map_of_skin)),
        helper.make_node("Shape", ["image"], ["count"], start=0, end=1),
        helper.make_node("Concat", ["count", "rest"], ["shape"], axis=0),
        helper.make_node("Expand", ["map", "shape"], [output]),
    ]
    rest = onnx.numpy_helper.from_array(np.array([19, 8, 8]), "rest")
    graph = helper.make_graph(
        nodes,
        "parser",
        [helper.make_tensor_value_info("image", kinds.UINT8, ["n", side, side, 3])],
        [helper.make_tensor_value_info(output, kinds.UINT8, ["n", 19, 8, 8])],
        [rest],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def test_a_graph_is_opened_at_the_size_it_fixes(tmp_path: Path) -> None:
    save_graph(tmp_path / "parser.onnx", "probability", 8)
    parser = Parser.open(tmp_path / "parser.onnx", threads=1)
    assert parser.resolution == 8
    assert (parser.parse(np.zeros((20, 20, 3), np.uint8)).labels == SKIN).all()


@pytest.mark.parametrize(("output", "side"), [("logits", 8), ("probability", "side")])
def test_a_graph_that_is_no_parser_is_refused(tmp_path: Path, output: str, side: int | str) -> None:
    save_graph(tmp_path / "parser.onnx", output, side)
    with pytest.raises(ValueError, match="parser"):
        Parser.open(tmp_path / "parser.onnx")


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.onnx"):
        Parser.open(tmp_path / "absent.onnx")


def test_masking_blends_towards_grey() -> None:
    portrait = np.full((1, 3, 3), 200, np.uint8)
    kept = np.array([[0, 128, 255]], np.uint8)
    assert mask_portrait(portrait, kept)[0, :, 0].tolist() == [128, 164, 200]
    assert mask_portrait(portrait, kept, background=0)[0, :, 0].tolist() == [0, 100, 200]


@pytest.mark.parametrize("background", [0, 128, 255])
def test_masked_pixels_are_rounded_to_the_nearest(background: int) -> None:
    levels = np.arange(256, dtype=np.uint8)
    portrait = np.broadcast_to(levels[:, None, None], (256, 256, 3))
    kept = np.broadcast_to(levels, (256, 256))
    share = kept[..., None] / 255
    wanted = np.rint(portrait * share + background * (1 - share))
    np.testing.assert_array_equal(mask_portrait(portrait, kept, background), wanted)


def test_the_preview_tells_the_classes_apart() -> None:
    colours = preview(np.arange(19, dtype=np.uint8)[None])
    assert colours.shape == (1, 19, 3)
    assert len(np.unique(colours[0], axis=0)) == 19 - 3


@pytest.mark.gpu
def test_threads_parse_on_cuda_as_the_cpu_does() -> None:
    path = Path(model.__file__).parent / "bundles" / "parser" / "parser.onnx"
    on_cpu, on_cuda = (Parser.open(path, 1, name) for name in (Provider.CPU, Provider.CUDA))
    draws = np.random.default_rng(0)
    coarse = draws.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    side = on_cpu.resolution // 8
    pictures = coarse.repeat(side, 1).repeat(side, 2)
    on_cuda.rehearse()
    with ThreadPoolExecutor(4) as threads:
        maps = list(threads.map(on_cuda.parse, pictures))
    for picture, found in zip(pictures, maps, strict=True):
        wanted = on_cpu.parse(picture)
        assert np.mean(found.labels == wanted.labels) > 0.98
        difference = found.probability.astype(int) - wanted.probability
        assert np.abs(difference).mean() < 1
