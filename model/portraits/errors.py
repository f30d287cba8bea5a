"""What a photo can do wrong: every error here is the caller's to mend.

PortraitError(ValueError)
├── UnsupportedImage    not an image of an accepted format
├── BrokenImage         truncated or corrupt
├── ImageTooLarge       more pixels than the limit
├── NoFace
├── ImplausibleFace     landmarks that no face can have
├── FaceTooSmall
└── NoSuchFace          face index out of range

Messages are for the caller to read; they hold no file names and nothing of the image.
"""

from typing import ClassVar


class PortraitError(ValueError):
    """A photo cannot become a portrait; `code` is stable, the message is plain English."""

    code: ClassVar[str] = "portrait_error"


class UnsupportedImage(PortraitError):
    """The bytes are no image of an accepted format."""

    code = "unsupported_image"

    def __init__(self, accepted: tuple[str, ...]) -> None:
        names = ", ".join(accepted[:-1]) + " or " + accepted[-1]
        super().__init__(f"The image must be a {names} file.")


class BrokenImage(PortraitError):
    """The image is truncated or corrupt."""

    code = "broken_image"

    def __init__(self) -> None:
        super().__init__("The image is damaged or incomplete.")


class ImageTooLarge(PortraitError):
    """The image has more than `maximum` pixels, or more than can be said (`pixels` None)."""

    code = "image_too_large"

    def __init__(self, maximum: int, pixels: int | None = None) -> None:
        self.maximum = maximum
        self.pixels = pixels
        measured = "too many" if pixels is None else f"{pixels / 1e6:.1f} million"
        super().__init__(
            f"The image has {measured} pixels; at most {maximum / 1e6:.1f} million are accepted."
        )


class NoFace(PortraitError):
    """No face was found in the photo."""

    code = "no_face"

    def __init__(self) -> None:
        super().__init__("No face was found in the photo.")


class ImplausibleFace(PortraitError):
    """Landmarks were found that no face can have."""

    code = "implausible_face"

    def __init__(self) -> None:
        super().__init__("The landmarks that were found are no face's.")


class FaceTooSmall(PortraitError):
    """The portrait's square is `side_px` wide in the photo, below `minimum_px`."""

    code = "face_too_small"

    def __init__(self, side_px: float, minimum_px: float) -> None:
        self.side_px = side_px
        self.minimum_px = minimum_px
        super().__init__(
            f"The face is too small: with its margins it spans {side_px:.0f} pixels of the photo, "
            f"and at least {minimum_px:.0f} are needed."
        )


class NoSuchFace(PortraitError):
    """`index` is not one of the `count` faces found, which are counted from 0."""

    code = "no_such_face"

    def __init__(self, index: int, count: int) -> None:
        self.index = index
        self.count = count
        found = "1 face was" if count == 1 else f"{count} faces were"
        super().__init__(f"There is no face {index}: {found} found, counted from 0.")
