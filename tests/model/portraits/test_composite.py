from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import model.portraits.composite
from model.portraits.align import Alignment, Geometry, align, crop
from model.portraits.classes import CLASSES, REMOVED
from model.portraits.composite import BORDER, EDGE, Place, blending
from model.portraits.detect import Face
from model.portraits.parse import BACKGROUND, Parser
from model.portraits.raster import resized

Pixels = NDArray[np.uint8]
BUNDLED_PARSER = Path(model.portraits.composite.__file__).parents[1] / "bundles/parser/parser.onnx"

SKIN, HAT = (190, 120, 90), (30, 200, 40)
WALL = (60, 90, 170)
WHOLE = 64


def by_colour(images: Pixels) -> Pixels:
    """A parser's answer: reddish is skin, green a hat, all else background."""
    red, green, blue = (images[..., band].astype(int) for band in range(3))
    skin, hat = red > blue + 30, green > np.maximum(red, blue) + 60
    answer = np.zeros((len(images), len(CLASSES), *images.shape[1:3]), np.uint8)
    answer[:, CLASSES.index("skin")] = 255 * (skin & ~hat)
    answer[:, CLASSES.index("hat")] = 255 * hat
    answer[:, CLASSES.index("background")] = 255 * ~(skin | hat)
    return answer


PARSER = Parser(by_colour, 128)


def scene(
    alignment: Alignment, size: tuple[int, int] = (512, 512), noise: float = 0.0, hat: bool = False
) -> Pixels:
    """A head of 0.35 portrait sides before a wall that is lighter to the right."""
    image = Image.new("RGB", size, WALL)
    draw = ImageDraw.Draw(image)
    x, y = alignment.corners().mean(0)
    radius = 0.35 * alignment.side_px
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), SKIN)
    if hat:
        draw.rectangle((x - radius, y - 1.2 * radius, x + radius, y - 0.5 * radius), HAT)
    levels = np.asarray(image, np.float32) + np.linspace(0, 40, size[0])[:, None]
    if noise:
        levels += np.random.default_rng(3).normal(0, noise, levels.shape)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def head(radius: float = 0.35, colour: tuple[int, int, int] = SKIN, side: int = WHOLE) -> Pixels:
    """What a model gives: a head of `radius` sides on grey."""
    image = Image.new("RGB", (8 * side, 8 * side), (BACKGROUND,) * 3)
    low, high = 8 * side * (0.5 - radius), 8 * side * (0.5 + radius)
    ImageDraw.Draw(image).ellipse((low, low, high, high), colour)
    return np.asarray(image.reduce(8))


def set_in(photo: Pixels, alignment: Alignment, picture: Pixels) -> tuple[Pixels, Place]:
    place = Place.find(photo, alignment, PARSER, REMOVED)
    return place.composite(picture, PARSER.parse(picture)), place


def from_centre(alignment: Alignment, photo: Pixels) -> NDArray[np.float64]:
    """Distance of each photo pixel from the middle of the portrait, in its sides."""
    x, y = np.meshgrid(*[np.arange(side) + 0.5 for side in photo.shape[1::-1]])
    points = alignment.to_portrait(np.stack([x, y], -1)) / alignment.resolution - 0.5
    return np.hypot(points[..., 0], points[..., 1])


UPRIGHT = Alignment.around((250, 260), 320, 0, WHOLE)
TURNED = Alignment.around((250, 260), 320, 25, WHOLE)


@pytest.fixture(scope="module")
def parser() -> Parser:
    return Parser.open(BUNDLED_PARSER, threads=1)


@pytest.mark.parametrize("resolution", [64, 128])
def test_a_portrait_that_does_not_age_leaves_the_photo_as_sharp_as_it_is(
    astronaut: Pixels, face: Face, parser: Parser, resolution: int
) -> None:
    alignment = align(face.landmarks, Geometry(resolution))
    place = Place.find(astronaut, alignment, parser, REMOVED)
    portrait = crop(astronaut, alignment)
    kept = parser.parse(portrait).kept(REMOVED)[..., None]
    picture = np.rint(portrait * kept + BACKGROUND * (1 - kept)).astype(np.uint8)
    result = place.composite(picture, parser.parse(picture))
    middle = from_centre(alignment, astronaut) < 0.3
    difference = np.abs(result.astype(int) - astronaut).mean(-1)[middle]
    blurred = crop(astronaut, alignment.at(64))
    back = np.asarray(Image.fromarray(blurred).resize((173, 173), Image.Resampling.BICUBIC))
    lost = np.abs(back.astype(int) - crop(astronaut, alignment.at(173))).mean(-1)[40:130, 40:130]
    assert difference.mean() < 0.6 * lost.mean()
    assert np.abs(np.diff(result.astype(int), axis=1))[middle[:, 1:]].mean() > (
        0.9 * np.abs(np.diff(astronaut.astype(int), axis=1))[middle[:, 1:]].mean()
    )


@pytest.mark.parametrize("alignment", [UPRIGHT, TURNED])
@pytest.mark.parametrize("radius", [0.2, 0.3, 0.4])
def test_beyond_both_heads_and_a_narrow_edge_the_photo_is_the_same_to_the_bit(
    alignment: Alignment, radius: float
) -> None:
    photo = scene(alignment, noise=4)
    result, _ = set_in(photo, alignment, head(radius))
    distance = from_centre(alignment, photo)
    changed = (result != photo).any(-1)
    # The edge reaches as far diagonally, and a pixel of the map is 1/128.
    assert not changed[distance > max(0.35, radius) + EDGE * 2**0.5 + 2 / 128].any()
    assert changed[distance < min(0.35, radius)].mean() > 0.9


def test_a_smaller_head_leaves_no_gap_but_what_is_around_it() -> None:
    photo = scene(UPRIGHT, noise=2)
    result, _ = set_in(photo, UPRIGHT, head(0.24))
    distance = from_centre(UPRIGHT, photo)
    rows = np.indices(distance.shape)[0] + 0.5
    gap = (distance > 0.27) & (distance < 0.33) & (rows < 230)
    wall = scene(Alignment.around((2000, 2000), 10, 0, WHOLE))
    error = np.abs(result[gap].astype(int) - wall[gap])
    assert error.mean() < 10
    assert np.abs(photo[gap].astype(int) - wall[gap]).mean() > 50
    # Neither the model's grey nor a smooth patch in a grainy photo.
    assert np.abs(result[gap].astype(int) - BACKGROUND).mean(0).max() > 35
    assert np.diff(result[100:160, 240:260].astype(int), axis=1).std() > 1


def test_below_a_smaller_head_is_a_neck_and_not_the_wall() -> None:
    photo = scene(UPRIGHT)
    result, _ = set_in(photo, UPRIGHT, head(0.24))
    neck = result[350:362, 246:254].reshape(-1, 3).mean(0)
    assert neck[0] > neck[2] + 30


def test_a_larger_head_covers_the_wall() -> None:
    photo = scene(UPRIGHT)
    result, _ = set_in(photo, UPRIGHT, head(0.41))
    ring = np.abs(from_centre(UPRIGHT, photo) - 0.38) < 0.01
    assert (result[ring][:, 0].astype(int) > result[ring][:, 2].astype(int) + 30).mean() > 0.9


def test_the_blend_ends_before_the_portraits_border_even_where_all_is_head() -> None:
    photo = np.full((512, 512, 3), SKIN, np.uint8)
    picture = np.full((WHOLE, WHOLE, 3), SKIN, np.uint8)
    picture[::8] = (90, 60, 40)
    result, _ = set_in(photo, TURNED, picture)
    changed = (result != photo).any(-1)
    x, y = np.meshgrid(*[np.arange(512) + 0.5] * 2)
    points = TURNED.to_portrait(np.stack([x, y], -1)) / WHOLE
    depth = np.minimum(points, 1 - points).min(-1)
    assert not changed[depth < 1 / 128].any()
    assert changed[depth > BORDER].mean() > 0.5
    faint = np.abs(result.astype(int) - photo).max(-1)
    assert faint[(depth > 0) & (depth < BORDER / 6)].max() <= 8


def test_blending_is_one_on_the_heads_and_nothing_beyond_their_edge() -> None:
    old, new, front = (np.zeros((128, 128), np.float32) for _ in range(3))
    old[40:70, 40:70] = new[50:90, 50:90] = front[40:50, 40:90] = 1
    alpha = blending(old, new, front)
    reach = round(EDGE * 128)
    assert alpha[old + new > 0][(front == 0)[old + new > 0]].min() == 1
    assert alpha[front == 1].max() == 0
    assert alpha[:, : 40 - reach].max() == alpha[90 + reach :].max() == 0
    assert 0 < alpha[60, 38] < 1


def test_a_hat_stays_before_the_head_to_the_bit() -> None:
    photo = scene(UPRIGHT, hat=True)
    result, _ = set_in(photo, UPRIGHT, head(0.41))
    np.testing.assert_array_equal(result[170:195, 160:340], photo[170:195, 160:340])
    assert (result[250:300, 200:300] != photo[250:300, 200:300]).any()


def test_the_models_grey_is_no_head_even_where_the_parser_says_so() -> None:
    def sees_a_head_everywhere(images: Pixels) -> Pixels:
        answer = np.zeros((len(images), len(CLASSES), *images.shape[1:3]), np.uint8)
        answer[:, CLASSES.index("skin")] = 255
        return answer

    place = Place.find(scene(UPRIGHT), UPRIGHT, PARSER, REMOVED)
    picture = head(0.3)
    claimed = Parser(sees_a_head_everywhere, 128).parse(picture)
    new = place.new_head(picture, claimed)
    assert new[:10].max() == 0
    assert new[28:36, 28:36].min() == 1


def test_a_head_is_whole_where_the_parser_misses_a_part_of_it() -> None:
    def sees_no_scalp(images: Pixels) -> Pixels:
        probability = by_colour(images)
        probability[:, :, :48] = 0
        probability[:, 0, :48] = 255
        return probability

    place = Place.find(scene(UPRIGHT), UPRIGHT, PARSER, REMOVED)
    picture = head(0.3)
    new = place.new_head(picture, Parser(sees_no_scalp, 128).parse(picture))
    assert new[17:40, 28:36].min() > 0.95
    assert new[:10].max() == 0


def test_a_head_may_be_as_grey_as_what_is_behind_it() -> None:
    def sees_a_head_everywhere(images: Pixels) -> Pixels:
        probability = np.zeros((len(images), 19, 128, 128), np.uint8)
        probability[:, 1] = 255
        return probability

    place = Place.find(scene(UPRIGHT), UPRIGHT, PARSER, REMOVED)
    picture = head(0.3).copy()
    picture[28:36, 28:36] = BACKGROUND
    assert place.new_head(picture, PARSER.parse(picture))[30:34, 30:34].max() < 0.01
    new = place.new_head(picture, Parser(sees_a_head_everywhere, 128).parse(picture))
    assert new[28:36, 28:36].min() == 1
    assert new[:10].max() == 0


def test_skin_keeps_the_photos_colour_and_gets_the_pictures_marks() -> None:
    photo = scene(UPRIGHT)
    picture = head(colour=(SKIN[0] + 30, SKIN[1] + 10, SKIN[2] - 15)).copy()
    picture[36:40, 26:38] -= np.uint8(50)
    result, _ = set_in(photo, UPRIGHT, picture)
    cheek = (slice(200, 220), slice(200, 300))
    assert np.abs(result[cheek].astype(int) - photo[cheek]).mean() < 6
    mark = (slice(284, 292), slice(230, 260))
    assert (photo[mark].astype(int) - result[mark]).mean() > 25


def test_fine_detail_of_the_photo_stays_where_the_heads_agree() -> None:
    photo = scene(UPRIGHT, noise=12)
    portrait = crop(scene(UPRIGHT), UPRIGHT)
    kept = PARSER.parse(portrait).kept(REMOVED)[..., None]
    picture = np.rint(portrait * kept + BACKGROUND * (1 - kept)).astype(np.uint8)
    result, _ = set_in(photo, UPRIGHT, picture)
    one, other = (np.diff(each[200:320, 200:300].astype(int), axis=1) for each in (photo, result))
    assert other.std() > 0.7 * one.std()


def test_a_turned_head_lands_where_its_alignment_says() -> None:
    photo = scene(TURNED)
    picture = head().copy()
    picture[16:20, 40:44] = (90, 20, 0)
    result, _ = set_in(photo, TURNED, picture)
    weight = np.clip(photo[..., 0].astype(float) - result[..., 0] - 20, 0, None)
    weight[from_centre(TURNED, photo) > 0.3] = 0
    rows, columns = np.indices(weight.shape) + 0.5
    centre = [(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()]
    np.testing.assert_allclose(centre, TURNED.to_photo((42, 18)), atol=3)


@pytest.mark.parametrize("centre", [(0.0, 50.0), (99.0, 99.0), (-300.0, 50.0)])
def test_a_head_that_leaves_the_photo_is_set_in_as_far_as_it_goes(
    centre: tuple[float, float],
) -> None:
    alignment = Alignment.around(centre, 80, 15, WHOLE)
    photo = scene(alignment, (100, 100))
    before = photo.copy()
    result, _ = set_in(photo, alignment, head(0.25, (150, 60, 40)))
    assert result.shape == photo.shape
    assert (result != photo).any() == (centre[0] >= 0)
    np.testing.assert_array_equal(photo, before)


def test_without_any_head_the_photo_stays_as_it_is() -> None:
    photo = np.full((200, 200, 3), WALL, np.uint8)
    picture = np.full((WHOLE, WHOLE, 3), BACKGROUND, np.uint8)
    result, _ = set_in(photo, Alignment.around((100, 100), 150, 5, WHOLE), picture)
    np.testing.assert_array_equal(result, photo)
    assert result is not photo


def test_a_large_picture_shrinks_into_a_small_face_without_aliasing() -> None:
    alignment = Alignment.around((50, 50), 70, 10, 256)
    photo = scene(alignment, (100, 100))
    picture = head(side=256).copy()
    lines = (np.indices((256, 256)).sum(0) % 2 * 60 - 30)[..., None]
    inside = (picture != BACKGROUND).all(-1, keepdims=True)
    picture = np.clip(picture + lines * inside, 0, 255).astype(np.uint8)
    result, _ = set_in(photo, alignment, picture)
    assert np.abs(result[40:60, 40:60].astype(int) - photo[40:60, 40:60]).max() <= 8


def test_a_photo_worked_on_in_many_strips_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = scene(TURNED, noise=3)
    whole, _ = set_in(photo, TURNED, head(0.28))
    monkeypatch.setattr("model.portraits.composite.STRIP_PX", 5000)
    strips, _ = set_in(photo, TURNED, head(0.28))
    difference = np.abs(whole.astype(int) - strips)
    assert difference.mean() < 0.2
    assert np.percentile(difference, 99.9) <= 6


def test_equal_pictures_give_equal_photos() -> None:
    photo = scene(UPRIGHT, noise=3)
    one, place = set_in(photo, UPRIGHT, head(0.28))
    other = place.composite(head(0.28), PARSER.parse(head(0.28)))
    np.testing.assert_array_equal(one, other)
    assert resized(place.old, 64).shape == (64, 64)
