import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from model.portraits.detect import DlibLandmarker, Face


@pytest.fixture(scope="session")
def landmarker() -> DlibLandmarker:
    return DlibLandmarker()


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """A photo (512, 512, 3) of one person."""
    return data.astronaut()


@pytest.fixture(scope="session")
def face(landmarker: DlibLandmarker, astronaut: NDArray[np.uint8]) -> Face:
    return landmarker.detect(astronaut)[0]
