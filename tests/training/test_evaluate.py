import json

import numpy as np
import pytest
import torch

from model.portraits.detect import Face
from tests.bundles import STEP, write_tiny_bundle
from training.__main__ import main
from training.config import FitConfig
from training.data import PortraitSet
from training.evaluate import displacement, evaluate


class BrightnessLandmarker:
    """Puts all landmarks where a picture's mean level says, from 0 to 256."""

    def __init__(self, finds=True):
        self.finds = finds

    def detect(self, pixels):
        place = float(pixels.mean()) / 255 * 256
        landmarks = np.full((68, 2), place)
        return [Face((0.0, 0.0, 1.0, 1.0), landmarks, 1.0)] if self.finds else []


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", resolution=32)


@pytest.fixture(scope="module")
def portraits(prepared):
    config = FitConfig(resolution=32)
    return PortraitSet(prepared, config, prepared.rows, torch.device("cpu"), balanced=False)


def test_displacement_is_the_mean_distance():
    moved = np.zeros((68, 2))
    moved[:34] = (3, 4)
    assert displacement(np.zeros((68, 2)), moved) == 2.5


def test_displacement_between_anchors_is_measured_beside_the_reconstructions(bundle, portraits):
    report = evaluate(bundle, portraits, "neutral", limit=12, landmarker=BrightnessLandmarker())
    between = 5 * STEP / 255 * np.sqrt(2) * 100
    assert report["portraits"] == 12
    assert report["landmarks_not_found"] == 0
    assert report["displacement_percent"] == pytest.approx(between, rel=0.1)
    assert 0 < report["reconstruction_displacement_percent"] < between
    assert 0 < report["share_three_times"] < 1


def test_faces_that_are_not_found_are_counted_and_not_measured(bundle, portraits):
    landmarker = BrightnessLandmarker(finds=False)
    report = evaluate(bundle, portraits, "neutral", limit=3, landmarker=landmarker)
    assert report["landmarks_not_found"] == 3
    assert report["displacement_percent"] is None


def test_reconstruction_is_measured_at_the_portraits_own_anchor(bundle, portraits):
    report = evaluate(bundle, portraits, "neutral", landmarker=BrightnessLandmarker())
    images = portraits.images.permute(0, 2, 3, 1).numpy().astype(float)
    # The tiny bundle shifts a portrait by its anchor's step and the neutral group's tint.
    shift = STEP * portraits.clusters.numpy()[:, None, None, None] + np.array([0, 0, 20])
    coarse = images.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4)).repeat(4, 1).repeat(4, 2)
    error = ((np.clip(coarse + shift, 0, 255) - images) ** 2).mean((1, 2, 3))
    wanted = (10 * np.log10(255**2 / error)).mean()
    assert report["reconstruction_psnr_db"] == pytest.approx(wanted, abs=0.1)


def test_the_command_writes_report_and_manifest(bundle, prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("training.evaluate.DlibLandmarker", BrightnessLandmarker)
    report = tmp_path / "report.json"
    arguments = ["evaluate", str(bundle.path), "--data", str(prepared.path), "--split", "test"]
    assert main([*arguments, "--report", str(report), "--write"]) == 0
    written = json.loads(report.read_text())
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    assert manifest["quality"] == written
    assert written["split"] == "test"
    assert written["portraits"] == 12


def test_a_missing_bundle_is_an_error_of_one_line(prepared, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "--data", str(prepared.path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
