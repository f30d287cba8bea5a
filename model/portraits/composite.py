"""A portrait back into its photo."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model.portraits.align import Alignment, warp

BORDER = 1 / 12


def composite(
    photo: NDArray[np.uint8],
    portrait: NDArray[np.uint8],
    alpha: NDArray[np.float32],
    alignment: Alignment,
    feather: float = 1 / 64,
) -> NDArray[np.uint8]:
    """A copy of `photo` (H, W, 3) with `portrait` (R, R, 3) where `alpha` (R, R), 0 to 1, says.

    R may differ from the alignment's resolution. The edge of `alpha` is softened inwards over
    about `feather` of the portrait's side, and fades out before the portrait's border. Where the
    result is transparent the photo stays as it is, bit for bit.
    """
    side = portrait.shape[0]
    picture = Image.fromarray(portrait)
    mask = Image.fromarray(np.rint(soften(alpha, feather) * 255).astype(np.uint8))
    if alignment.side_px < side:
        side = max(1, math.ceil(alignment.side_px))
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        mask = mask.resize((side, side), Image.Resampling.BOX)
    placed = alignment.at(side)

    result = photo.copy()
    visible = mask.getbbox()
    if visible is None:
        return result
    west, north, east, south = np.add(visible, (-2, -2, 2, 2))
    corners = placed.to_photo([(west, north), (east, north), (east, south), (west, south)])
    edges = (photo.shape[1], photo.shape[0])
    left, top = np.clip(np.floor(corners.min(0)).astype(int), 0, edges).tolist()
    right, bottom = np.clip(np.ceil(corners.max(0)).astype(int), 0, edges).tolist()
    if right <= left or bottom <= top:
        return result

    start, right_step, down_step = placed.to_portrait(
        [(left, top), (left + 1, top), (left, top + 1)]
    )
    size = (right - left, bottom - top)
    inverse = (start, right_step - start, down_step - start)
    region = Image.fromarray(photo[top:bottom, left:right])
    region.paste(warp(picture, size, inverse), mask=warp(mask, size, inverse))
    result[top:bottom, left:right] = np.asarray(region)
    return result


def soften(alpha: NDArray[np.float32], feather: float) -> NDArray[np.float32]:
    """`alpha` (R, R) with its edge moved inwards and softened, and nothing at the border.

    A portrait's edge pixels are already mixed with its grey background; moving inwards leaves
    them out. `feather` is in sides of the portrait.
    """
    side = alpha.shape[0]
    blur = ImageFilter.GaussianBlur(feather * side)
    blurred = Image.fromarray(np.rint(alpha * 255).astype(np.uint8)).filter(blur)
    inner = np.clip(np.asarray(blurred, np.float32) / 127.5 - 1, 0, 1)
    centres = np.arange(side, dtype=np.float32) + 0.5
    distance = np.minimum(centres, side - centres) - 1
    ramp = np.clip(distance / (BORDER * side), 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return inner * ramp[:, None] * ramp
