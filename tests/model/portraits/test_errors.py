import pytest

from model.portraits.errors import (
    BrokenImage,
    FaceTooSmall,
    ImageTooLarge,
    ImplausibleFace,
    NoFace,
    NoSuchFace,
    PortraitError,
    UnsupportedImage,
)

ERRORS = [
    (UnsupportedImage(("JPEG", "PNG")), "unsupported_image"),
    (BrokenImage(), "broken_image"),
    (ImageTooLarge(50_000_000, 400_000_000), "image_too_large"),
    (ImageTooLarge(50_000_000), "image_too_large"),
    (NoFace(), "no_face"),
    (ImplausibleFace(), "implausible_face"),
    (FaceTooSmall(20.4, 64), "face_too_small"),
    (NoSuchFace(2, 1), "no_such_face"),
]


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_every_error_is_a_value_error_with_a_code_and_a_sentence(
    error: PortraitError, code: str
) -> None:
    assert isinstance(error, ValueError)
    assert error.code == code
    assert str(error)[0].isupper()
    assert str(error).endswith(".")


def test_every_subclass_is_listed_here_with_a_code_of_its_own() -> None:
    assert set(PortraitError.__subclasses__()) == {type(error) for error, _ in ERRORS}
    codes = [kind.code for kind in PortraitError.__subclasses__()]
    assert len(set(codes)) == len(codes)


def test_messages_carry_what_was_measured_and_what_is_allowed() -> None:
    assert "400.0 million" in str(ImageTooLarge(50_000_000, 400_000_000))
    assert "20 pixels" in str(FaceTooSmall(20.4, 64))
    assert "64" in str(FaceTooSmall(20.4, 64))
    assert "face 2: 1 face was" in str(NoSuchFace(2, 1))
    assert "JPEG, WebP or GIF" in str(UnsupportedImage(("JPEG", "WebP", "GIF")))
