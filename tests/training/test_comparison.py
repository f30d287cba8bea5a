import json
import re

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from model.bundle import LATENTS, write_bundle
from model.portraits.detect import DlibLandmarker
from model.portraits.parse import Parser
from tests.bundles import write_tiny_bundle, write_unchanged_bundle
from training.__main__ import PARSER, main
from training.comparison import anchors_of, finding, read_sitter, rendered
from training.data import DataError

BUNDLE = PARSER.parents[1] / "lifespan"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(photographs.astronaut()).save(path)
    return path


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    path = tmp_path_factory.mktemp("unchanged") / "bundle"
    return rewritten(write_unchanged_bundle(path), method="stargan")


@pytest.fixture(scope="module")
def compared(photo, unchanged, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    bundles = ["--bundle", str(BUNDLE), str(unchanged.path)]
    assert main(["compare", str(photo), *bundles, "-o", str(folder)]) == 0
    return folder


def rewritten(bundle, latents=None, **fields):
    """The bundle with other fields in its manifest, and perhaps other latents."""
    document = bundle.manifest.model_dump(mode="json", exclude={"files"}) | fields
    graphs = {f: (bundle.path / f).read_bytes() for f in bundle.manifest.files if f != LATENTS}
    return write_bundle(
        bundle.path, document, graphs, bundle.latents if latents is None else latents
    )


def test_figures_say_what_moves_and_what_changes(compared):
    found = json.loads((compared / "comparison.json").read_text())
    assert found["sitters"] == ["astronaut"]
    lifespan, unchanged = found["bundles"]
    assert list(lifespan["targets"]) == ["0-2", "3-6", "7-9", "15-19", "30-39", "50-69"]
    assert lifespan["targets"]["0-2"]["displacement_percent"] > 0.5
    assert lifespan["targets"]["0-2"]["faces_found"] == 1
    assert lifespan["change_levels"] > 3
    assert lifespan["evaluation"]["reconstruction_psnr_db"] > 25
    assert unchanged["displacement_percent"] == unchanged["change_levels"] == 0
    assert lifespan["picture_ms"] > unchanged["picture_ms"] >= 0


def test_the_finding_follows_the_landmarks(compared):
    found = json.loads((compared / "comparison.json").read_text())
    assert "is confirmed here" in found["finding"]
    moved = found["bundles"][0]["displacement_percent"]
    assert f"lifespan moves landmarks by {moved:.2f} %" in found["finding"]


def test_each_bundle_and_all_together_are_shown(compared, unchanged):
    cell, gap, line = 128, 4, 26
    alone = np.asarray(Image.open(compared / "unchanged.png"))
    assert alone.shape == (2 * line + cell, 7 * (cell + gap) - gap, 3)
    first = alone[line : line + cell, :cell]
    for column in range(1, 7):
        left = column * (cell + gap)
        np.testing.assert_array_equal(alone[line : line + cell, left : left + cell], first)
    together = np.asarray(Image.open(compared / "comparison.png"))
    assert together.shape[0] == 2 * line + 2 * (cell + gap) - gap


def test_the_page_needs_no_other_file_and_names_what_it_shows(compared):
    page = (compared / "comparison.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert page.count("<img") == 3
    for name in ("lifespan", "unchanged", "stargan", "is confirmed here"):
        assert name in page


def test_a_target_that_a_bundle_lacks_stays_blank(photo, unchanged, tmp_path):
    six = write_tiny_bundle(tmp_path / "two", decoder_per_anchor=True, name="two")
    manifest = six.manifest.model_dump(mode="json")
    fewer = {name: manifest[name][:2] for name in ("anchors", "decoders")}
    bundle = rewritten(six, six.latents[:, :2], **fewer)
    parser, landmarker = Parser.open(PARSER), DlibLandmarker()
    sitters = [read_sitter(photo, landmarker, aligned=False)]
    both = [rendered(one, sitters, parser, landmarker) for one in (bundle, unchanged)]
    assert both[0].pictures.shape[1] == 2
    assert anchors_of(both) == ["0-2", "3-6", "7-9", "15-19", "30-39", "50-69"]
    assert finding(both[1:]) == ""


def test_a_photograph_without_a_face_is_named(tmp_path):
    path = tmp_path / "sky.png"
    Image.fromarray(np.full((200, 200, 3), 180, np.uint8)).save(path)
    with pytest.raises(DataError, match=r"sky\.png: .*face"):
        read_sitter(path, DlibLandmarker(), aligned=False)
    assert read_sitter(path, DlibLandmarker(), aligned=True).landmarks is None


def test_two_bundles_of_one_name_and_no_photograph_are_refused(photo, tmp_path, capfd):
    twice = ["--bundle", str(BUNDLE), str(BUNDLE), "-o", str(tmp_path)]
    assert main(["compare", str(photo), *twice]) == 2
    assert "two bundles have one name" in capfd.readouterr().err
    assert main(["compare", "--bundle", str(BUNDLE), "-o", str(tmp_path)]) == 2
    assert "no photograph is given" in capfd.readouterr().err
