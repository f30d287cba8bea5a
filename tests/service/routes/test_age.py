import base64
import email
import email.policy
import io
import zipfile

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.bundles import ANCHORS, STEP, write_picture_bundle
from tests.service.conftest import Server, encoded, pixels


def post(server: Server, data: dict, image: bytes | None = None, **headers: str) -> httpx.Response:
    files = {"image": ("secret-name.jpg", image)} if image is not None else None
    return server.client.post("/age", data=data, files=files, headers=headers)


@pytest.fixture(scope="module")
def face(server: Server, photo: bytes) -> str:
    """A face that was taken in with its photo."""
    response = post(server, {"target": "0-2", "keep_photo": "true"}, photo)
    return response.headers["x-face-id"]


def test_one_target_is_answered_with_its_picture(server: Server, photo: bytes):
    response = post(server, {"target": "50-69"}, photo)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert pixels(response.content).shape == (64, 64, 3)
    assert len(response.headers["x-face-id"]) == 32
    assert response.headers["x-target"] == "50-69"
    assert response.headers["x-effective-age-years"] == "59.5"
    assert response.headers["x-model"] == "tiny 1"
    assert response.headers["x-group"] == "neutral"
    assert response.headers["cache-control"] == "private, no-store"
    assert "x-note" not in response.headers


def test_the_picture_is_the_face_on_grey_at_its_age(server: Server, face: str):
    young = pixels(post(server, {"face": face, "target": "0-2"}).content)
    old = pixels(post(server, {"face": face, "target": "50-69"}).content)
    assert np.abs(young[:4, :4].astype(int) - (128, 128, 148)).max() <= 1
    assert np.abs(old[:4, :4].astype(int) - young[:4, :4] - 5 * STEP).max() <= 1
    skin = young[28:36, 28:36].reshape(-1, 3).mean(0)
    assert skin[0] > skin[1] + 10


def test_a_face_s_id_answers_as_its_image_did(server: Server, photo: bytes):
    first = post(server, {"target": "30-39"}, photo)
    again = post(server, {"target": "30-39", "face": first.headers["x-face-id"]})
    assert again.content == first.content
    assert again.headers["x-face-id"] == first.headers["x-face-id"]


def test_a_form_without_files_may_be_url_encoded(server: Server, face: str):
    response = server.client.post("/age", data={"face": face, "target": "0-2"})
    assert response.request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert response.status_code == 200


@pytest.mark.parametrize("data", [{"target": "all"}, {}])
def test_all_anchors_are_answered_in_a_document(server: Server, face: str, data: dict):
    response = post(server, {"face": face, **data})
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert document["face_id"] == face
    assert [picture["target"] for picture in document["pictures"]] == ANCHORS
    assert [picture["effective_age_years"] for picture in document["pictures"]] == [
        1, 4.5, 8, 17, 34.5, 59.5,
    ]  # fmt: skip
    greys = [
        pixels(base64.b64decode(picture["image"]))[0, 0].mean() for picture in document["pictures"]
    ]
    assert np.diff(greys) == pytest.approx(STEP, abs=0.5)


def test_targets_ages_and_weights_come_in_order(server: Server, face: str):
    response = post(
        server,
        {
            "face": face,
            "target": ["7-9", "0-2"],
            "age": ["25", "0"],
            "weights": ["0.5,0.5,0,0,0,0"],
        },
    )
    pictures = response.json()["pictures"]
    assert [picture["target"] for picture in pictures] == ["7-9", "0-2", None, None, None]
    assert [picture["age_years"] for picture in pictures] == [None, None, 25, 0, None]
    ages = [picture["effective_age_years"] for picture in pictures]
    assert ages == [8, 1, 25, 1, 2.75]


def test_an_age_between_anchors_lies_between_their_pictures(server: Server, face: str):
    def grey(**data: str) -> float:
        return pixels(post(server, {"face": face, **data}).content)[0, 0].mean()

    halfway = grey(age=str((17 + 34.5) / 2))
    assert halfway == pytest.approx((grey(target="15-19") + grey(target="30-39")) / 2, abs=1)


@pytest.mark.parametrize("name", ["jpeg", "webp", "png"])
def test_a_picture_comes_in_the_format_asked(server: Server, face: str, name: str):
    response = post(server, {"face": face, "target": "0-2", "format": name})
    assert response.headers["content-type"] == f"image/{name}"
    assert Image.open(io.BytesIO(response.content)).format == name.upper()


def test_accept_picks_a_picture_s_format(server: Server, face: str):
    response = post(server, {"face": face, "target": "0-2"}, accept="image/webp")
    assert Image.open(io.BytesIO(response.content)).format == "WEBP"


def test_accept_turns_one_picture_into_a_document(server: Server, face: str):
    data = {"face": face, "target": "0-2", "format": "jpeg"}
    response = post(server, data, accept="application/json")
    (picture,) = response.json()["pictures"]
    assert picture["media_type"] == "image/jpeg"
    assert Image.open(io.BytesIO(base64.b64decode(picture["image"]))).format == "JPEG"


def test_accept_turns_several_pictures_into_one_sheet(server: Server, face: str):
    response = post(server, {"face": face}, accept="image/*")
    assert response.headers["content-type"] == "image/png"
    assert pixels(response.content).shape[1] > 6 * 64


def test_accept_turns_several_pictures_into_an_archive(server: Server, face: str):
    response = post(server, {"face": face, "format": "jpeg"}, accept="application/zip")
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.namelist() == [f"{n:03}_{name}.jpeg" for n, name in enumerate(ANCHORS)]
        assert all(pixels(archive.read(name)).shape == (64, 64, 3) for name in archive.namelist())


def test_accept_turns_several_pictures_into_parts(server: Server, face: str):
    response = post(server, {"face": face}, accept="multipart/mixed")
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.content, policy=email.policy.HTTP)
    parts = list(message.iter_parts())
    assert [part["X-Target"] for part in parts] == ANCHORS
    assert all(part.get_content_type() == "image/png" for part in parts)
    assert pixels(parts[5].get_payload(decode=True)).shape == (64, 64, 3)


def test_what_cannot_be_given_is_refused_with_what_can(server: Server, face: str):
    response = post(server, {"face": face}, accept="text/html")
    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")
    assert "application/json" in response.json()["offers"]


def test_groups_differ_and_an_unknown_one_is_named(server: Server, face: str):
    data = {"face": face, "target": "0-2"}
    female = pixels(post(server, {**data, "group": "female"}).content)[0, 0]
    male = pixels(post(server, {**data, "group": "male"}).content)[0, 0]
    assert female[0] > male[0]
    assert female[1] < male[1]
    unknown = post(server, {**data, "group": "everybody"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_group")


def test_view_photo_changes_the_face_alone(
    server: Server, astronaut: np.ndarray, photo: bytes, face: str
):
    sent = encoded(Image.fromarray(astronaut), "PNG")
    response = post(server, {"target": "50-69", "view": "photo"}, sent)
    result = pixels(response.content)
    assert result.shape == astronaut.shape
    changed = (result != astronaut).any(-1)
    assert changed[80:160, 190:260].mean() > 0.9
    assert not changed[230:].any()
    assert not changed[:, 330:].any()
    kept = post(server, {"face": face, "target": "50-69", "view": "photo"})
    assert pixels(kept.content).shape == astronaut.shape


def test_view_photo_in_a_smaller_photo_is_the_whole_view_made_smaller(server: Server, face: str):
    asked = {"face": face, "target": "50-69", "view": "photo"}
    whole = Image.fromarray(pixels(post(server, asked).content))
    small = pixels(post(server, {**asked, "longest_px": "200"}).content)
    assert small.shape == (200, 200, 3)
    expected = np.asarray(whole.resize((200, 200), Image.Resampling.LANCZOS))
    assert np.abs(small.astype(int) - expected).mean() < 3
    never_larger = post(server, {**asked, "longest_px": "5000"})
    assert pixels(never_larger.content).shape == (512, 512, 3)


def test_view_photo_of_a_face_whose_photo_was_not_kept_is_refused(server: Server, photo: bytes):
    face = post(server, {"target": "0-2"}, photo).headers["x-face-id"]
    response = post(server, {"face": face, "target": "0-2", "view": "photo"})
    assert (response.status_code, response.json()["code"]) == (409, "photo_not_kept")


def test_a_ready_portrait_is_taken_as_it_is(server: Server, portrait: bytes):
    response = post(server, {"target": "0-2", "aligned": "true"}, portrait)
    assert response.status_code == 200
    shown = pixels(response.content)
    wanted = np.asarray(Image.open(io.BytesIO(portrait)).resize((64, 64), Image.Resampling.BOX))
    centre = (slice(24, 40), slice(24, 40))
    difference = shown[centre].mean((0, 1)) - wanted[centre].mean((0, 1))
    assert np.abs(difference - (0, 0, 20)).max() < 8


def test_the_second_face_is_taken_where_it_is_asked_for(server: Server, two: np.ndarray):
    both = encoded(Image.fromarray(two), "PNG")
    found = server.client.post("/faces", data={"face_index": "1"}, files={"image": both}).json()
    assert len(found["faces"]) == 2
    assert found["face_index"] == 1
    assert min(x for x, _ in found["alignment"]["corners"]) > 560
    largest = server.client.post("/faces", files={"image": both}).json()
    assert max(x for x, _ in largest["alignment"]["corners"]) < 512
    third = post(server, {"face_index": "2"}, both)
    assert (third.status_code, third.json()["code"]) == (422, "no_such_face")


@pytest.fixture(scope="module")
def two(astronaut: np.ndarray) -> np.ndarray:
    """A photo (512, 1100, 3) of two faces, the second one mirrored and smaller."""
    canvas = np.full((512, 1100, 3), 90, np.uint8)
    canvas[:, :512] = astronaut
    canvas[:448, 560:1008] = np.asarray(Image.fromarray(astronaut).resize((448, 448)))[:, ::-1]
    return canvas


@pytest.fixture
def patterns(start_server, tmp_path) -> Server:
    """A server whose model draws another pattern on a face at each anchor."""
    y, x = np.mgrid[:64, :64]
    waves = [np.sin(x / 3), np.sin(y / 3), np.sin((x + y) / 3)]
    skin = np.array([180, 120, 90])
    drawn = [
        skin + 40 * waves[number % 3][..., None] * (1 - number // 3 * 2) for number in range(6)
    ]
    write_picture_bundle(tmp_path / "models" / "pictures", np.array(drawn).astype(np.uint8))
    return start_server(models=tmp_path / "models")


def test_faces_of_one_photo_are_shown_each_at_its_own_target(patterns: Server, two: np.ndarray):
    sent = encoded(Image.fromarray(two), "PNG")

    def shown(**data: object) -> np.ndarray:
        response = post(patterns, {"view": "photo", **data}, sent)
        assert response.status_code == 200, response.text
        return pixels(response.content)

    both = post(patterns, {"view": "photo", "face_target": ["1:0-2", "0:50-69"]}, sent)
    ids = both.headers["x-face-ids"].split(", ")
    assert len(set(ids)) == 2
    assert both.headers["x-face-id"] == ids[0]
    together = pixels(both.content)
    old = shown(target="50-69", face_index="0")
    young = shown(target="0-2", face_index="1")
    np.testing.assert_array_equal(together[:, :530], old[:, :530])
    np.testing.assert_array_equal(together[:, 530:], young[:, 530:])
    assert (old[:, :530] != two[:, :530]).any()
    assert (young[:, 530:] != two[:, 530:]).any()
    swapped = shown(face_target=["0:0-2", "1:50-69"])
    assert (swapped[:, :530] != together[:, :530]).any()
    assert (swapped[:, 530:] != together[:, 530:]).any()
    # Both can be asked for again, and each is the face that it was.
    for face_id, index in zip(ids, (1, 0), strict=True):
        assert patterns.client.get(f"/faces/{face_id}").json()["face_index"] == index
    small = shown(face_target=["0:0-2", "1:50-69"], longest_px="550")
    assert small.shape == (256, 550, 3)


def test_faces_of_a_photo_that_was_kept_need_no_image(server: Server, two: np.ndarray):
    sent = encoded(Image.fromarray(two), "PNG")
    face = post(server, {"target": "0-2", "keep_photo": "true"}, sent).headers["x-face-id"]
    asked = {"face": face, "view": "photo", "face_target": ["1:50-69", "0:20"], "format": "webp"}
    response = post(server, asked)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/webp"
    assert response.headers["x-face-ids"].split(", ")[1] == face
    assert pixels(response.content).shape == two.shape
    without = post(server, {"target": "0-2"}, sent).headers["x-face-id"]
    refused = post(server, {**asked, "face": without})
    assert (refused.status_code, refused.json()["code"]) == (409, "photo_not_kept")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"face_target": "0:0-2"}, "invalid_face_target"),
        ({"view": "photo", "face_target": "0-2"}, "invalid_face_target"),
        ({"view": "photo", "face_target": ["0:0-2", "0:3-6"]}, "invalid_face_target"),
        ({"view": "photo", "face_target": "0:0-2", "target": "3-6"}, "invalid_face_target"),
        ({"view": "photo", "face_target": "0:0-2", "aligned": "true"}, "invalid_face_target"),
        ({"view": "photo", "face_target": "0:old"}, "unknown_anchor"),
        ({"view": "photo", "face_target": "0:300"}, "age_out_of_range"),
        ({"view": "photo", "face_target": ["0:0-2", "7:0-2"]}, "no_such_face"),
        ({"view": "photo", "face_target": "7:0-2"}, "no_such_face"),
        (
            {"view": "photo", "face_target": [f"{index}:0-2" for index in range(65)]},
            "too_many_pictures",
        ),
    ],
)
def test_bad_targets_of_faces_have_their_own_codes(
    server: Server, photo: bytes, data: dict, code: str
):
    response = post(server, data, photo)
    assert (response.status_code, response.json()["code"]) == (422, code)


def test_several_faces_come_as_one_picture_alone(server: Server, photo: bytes):
    data = {"view": "photo", "face_target": "0:0-2"}
    response = post(server, data, photo, accept="application/json")
    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"target": "80-99"}, "unknown_anchor"),
        ({"age": "300"}, "age_out_of_range"),
        ({"age": "old"}, "invalid_request"),
        ({"weights": "1,2"}, "invalid_weights"),
        ({"model": "none"}, "unknown_model"),
        ({"format": "tiff"}, "invalid_request"),
        ({"view": "side"}, "invalid_request"),
        ({"targets": "all"}, "invalid_request"),
        ({"face_index": "-1"}, "invalid_request"),
        ({"age": ["30"] * 65}, "too_many_pictures"),
    ],
)
def test_a_bad_parameter_has_its_own_code(server: Server, photo: bytes, data: dict, code: str):
    response = post(server, data, photo)
    assert (response.status_code, response.json()["code"]) == (422, code)


def test_an_age_out_of_range_names_the_range(server: Server, face: str):
    document = post(server, {"face": face, "age": "300"}).json()
    assert (document["low_years"], document["high_years"]) == (0, 69)


def test_a_refused_field_is_named_but_what_was_sent_is_not(server: Server, photo: bytes):
    response = post(server, {"colour": "very secret"}, photo)
    assert response.json()["errors"][0]["field"] == "colour"
    assert "very secret" not in response.text


@pytest.mark.parametrize("with_both", [True, False])
def test_either_an_image_or_a_face_is_needed(
    server: Server, photo: bytes, face: str, with_both: bool
):
    response = post(server, {"face": face}, photo) if with_both else post(server, {"target": "all"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


def test_an_image_sent_as_text_is_refused(server: Server):
    response = server.client.post("/age", data={"image": "photo.jpg"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


def test_a_body_that_is_no_form_is_refused(server: Server):
    for content_type in ("multipart/form-data; boundary=x", "multipart/form-data", "text/plain"):
        response = server.client.post(
            "/age", content=b"garbage", headers={"content-type": content_type}
        )
        assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


def test_an_unknown_face_is_not_found(server: Server):
    response = post(server, {"face": "x" * 32})
    assert (response.status_code, response.json()["code"]) == (404, "unknown_face")
