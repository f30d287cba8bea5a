"""The 19 classes of a parsing map (CelebAMask-HQ, Lee et al. 2020)."""

CLASSES = (
    "background", "skin", "nose", "eyeglasses", "left_eye", "right_eye", "left_brow", "right_brow",
    "left_ear", "right_ear", "mouth", "upper_lip", "lower_lip", "hair", "hat", "earring",
    "necklace", "neck", "cloth",
)  # fmt: skip
"""Class names by pixel value; "left" is the subject's left."""

MIRRORED = ((4, 5), (6, 7), (8, 9))
"""Pairs of classes that change places when a portrait is flipped."""

REMOVED = ("background", "hat", "earring", "necklace", "cloth")
"""What the published method paints grey; neck and glasses stay."""


def class_indices(names: tuple[str, ...] | list[str]) -> list[int]:
    """Pixel values of the named classes. Raises ValueError for a name that is no class."""
    unknown = sorted(set(names) - set(CLASSES))
    if unknown:
        raise ValueError(f"unknown parsing classes: {', '.join(unknown)}")
    return [CLASSES.index(name) for name in names]
