import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.transform import warp

from model.ages import LIFESPAN_CLUSTERS
from model.bundle import open_bundle
from model.portraits.detect import Face
from tests.bundles import (
    STEP,
    write_picture_bundle,
    write_tiny_bundle,
    write_unchanged_bundle,
)
from training.__main__ import PARSER, main
from training.config import FitConfig
from training.data import DataError, PortraitSet, open_prepared
from training.evaluate import Subject, measure
from training.figures import figures
from training.judge import Judge

BUNDLE = PARSER.parents[1] / "lifespan"
CENTRES = np.array([cluster.centre_years for cluster in LIFESPAN_CLUSTERS])
SWOLLEN, SHRUNK = 0.35, -0.3


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


@pytest.fixture(scope="module")
def tiny(bundle, portraits):
    return figures(measure(bundle, portraits, "neutral", 6, BrightnessLandmarker()))


def test_displacement_between_anchors_is_measured_beside_the_reconstructions(tiny):
    between = 5 * STEP / 255 * np.sqrt(2) * 100
    assert tiny["portraits"] == 6
    assert tiny["landmarks_not_found"] == 0
    assert tiny["displacement_percent"] == pytest.approx(between, rel=0.1)
    assert 0 < tiny["reconstruction_displacement_percent"] < between
    assert 0 < tiny["share_three_times"] < 1


def test_reconstruction_is_measured_at_the_portraits_own_anchor(tiny, portraits):
    picked = np.linspace(0, len(portraits) - 1, 6).round().astype(int)
    images = portraits.images.permute(0, 2, 3, 1).numpy().astype(float)[picked]
    # The tiny bundle shifts a portrait by its anchor's step and the neutral group's tint.
    clusters = portraits.clusters.numpy()[picked]
    shift = STEP * clusters[:, None, None, None] + np.array([0, 0, 20])
    coarse = images.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4)).repeat(4, 1).repeat(4, 2)
    error = ((np.clip(coarse + shift, 0, 255) - images) ** 2).mean((1, 2, 3))
    wanted = (10 * np.log10(255**2 / error)).mean()
    assert tiny["reconstruction_psnr_db"] == pytest.approx(wanted, abs=0.1)


def test_a_cycle_goes_to_another_anchor_and_back_to_the_portraits_own(bundle, portraits):
    row = len(portraits) - 1
    portrait = portraits.images[row].permute(1, 2, 0).numpy()
    subject = Subject(bundle)
    seen = measure(bundle, portraits, "male", 2, BrightnessLandmarker())
    there = subject.anchors(portrait, "male")[1]
    back = subject.anchors(there, "male")[5].astype(float)
    wanted = 10 * np.log10(255**2 / ((back - portrait) ** 2).mean())
    assert seen.cycle_psnr_db[-1, 1] == pytest.approx(wanted)
    assert np.isnan(seen.cycle_psnr_db[-1, 5])


def test_a_groups_own_portraits_alone_are_measured(bundle, portraits):
    seen = measure(bundle, portraits, "male", 2, BrightnessLandmarker())
    assert set(seen.labels) == {"male"}


def test_a_group_without_portraits_is_told(bundle, prepared):
    rows = tuple(row for row in prepared.rows if row.gender == "female")
    config = FitConfig(resolution=32)
    women = PortraitSet(prepared, config, rows, torch.device("cpu"), balanced=False)
    with pytest.raises(DataError, match="male"):
        measure(bundle, women, "male")


def test_faces_that_are_not_found_are_counted_and_not_measured(bundle, portraits):
    landmarker = BrightnessLandmarker(finds=False)
    report = figures(measure(bundle, portraits, "neutral", 2, landmarker))
    assert report["landmarks_not_found"] == 2
    assert report["displacement_percent"] is None
    assert report["identity_distance"] is None


def test_a_decoder_for_each_anchor_renders_its_own(bundle, portraits, tmp_path):
    several = write_tiny_bundle(tmp_path / "several", resolution=32, decoder_per_anchor=True)
    portrait = portraits.images[0].permute(1, 2, 0).numpy() // 4  # nothing is clipped
    alone, own = (
        Subject(bundle).anchors(portrait, "female"),
        Subject(several).anchors(portrait, "female"),
    )
    lighter = own.astype(int) - alone  # each of these decoders adds its anchor's step again
    assert [set(np.unique(picture)) for picture in lighter] == [{STEP * i} for i in range(6)]
    back = Subject(several).back(own[:2], 1, "female").astype(int) - own[:2]
    assert set(np.unique(back[..., 1:])) == {2 * STEP}


def test_the_command_writes_report_and_manifest(bundle, prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("training.evaluate.DlibLandmarker", BrightnessLandmarker)
    report = tmp_path / "report"
    arguments = ["evaluate", str(bundle.path), "--data", str(prepared.path), "--split", "test"]
    assert main([*arguments, "--limit", "3", "--report", str(report), "--write"]) == 0
    written = json.loads((report / "report.json").read_text())
    assert (report / "report.html").is_file()
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    assert written.pop("details")
    assert manifest["quality"] == written
    assert written["split"] == "test"
    assert written["portraits"] == 3


def test_a_missing_bundle_is_an_error_of_one_line(prepared, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "--data", str(prepared.path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def with_features(picture, swelling):
    """A face whose eyes, nose and mouth are larger or smaller: to dlib another person."""
    side = len(picture)
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    growth = 1 + swelling * np.exp(-(x**2 + (y - 0.1) ** 2) / 0.45**2)
    places = [((v + 1) / 2 * side - 0.5) for v in ((y - 0.1) / growth + 0.1, x / growth)]
    planes = [
        warp(picture[..., c].astype(float), np.array(places), order=1, mode="edge")
        for c in range(3)
    ]
    return np.stack(planes, -1).round().clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def life(astronaut):
    """The astronaut through the ages as the bundled model sees her, as woman and man, 64 px."""
    bundle = open_bundle(BUNDLE)
    subject, side = Subject(bundle), bundle.manifest.resolution
    portrait = np.asarray(Image.fromarray(astronaut).resize((side, side)))
    return {
        group: [
            np.asarray(Image.fromarray(frame).resize((64, 64), Image.Resampling.BOX))
            for frame in subject.walk(portrait, group, 24)
        ]
        for group in ("female", "male")
    }


@pytest.fixture(scope="module")
def people(life, tmp_path_factory):
    """Six portraits with swollen features, of the cluster that the judge sees, in two groups."""
    folder = tmp_path_factory.mktemp("people")
    frames = [life[("female", "male")[i % 2]][(0, 7, 11, 16, 20, 23)[i]] for i in range(6)]
    pictures = np.stack([with_features(frame, SWOLLEN) for frame in frames])
    np.save(folder / "portraits.npy", pictures)
    np.save(folder / "kept.npy", np.full(pictures.shape[:3], 255, np.uint8))
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "file", "age", "gender", "source", "split"])
        for i, cluster in enumerate(LIFESPAN_CLUSTERS):
            gender = ("female", "male")[i % 2]
            writer.writerow([i, f"{i}.png", cluster.low_years, gender, "made", "test"])
    (folder / "data.json").write_text(json.dumps({"schema_version": 1}))
    data = open_prepared(folder)
    return PortraitSet(data, FitConfig(), data.rows, torch.device("cpu"), balanced=False)


def scores(bundle, people, limit=0):
    found = figures(measure(bundle, people, "neutral", limit))
    json.dumps(found, allow_nan=False)
    return found


def test_a_bundle_that_changes_nothing_keeps_the_person_and_misses_the_ages(people, tmp_path):
    found = scores(write_unchanged_bundle(tmp_path / "unchanged"), people)
    assert found["identity_distance"] == 0
    assert found["identity_share"] == found["rank1_share"] == 1
    assert found["reconstruction_psnr_db"] == found["cycle_psnr_db"] == 99
    assert found["reconstruction_ssim"] == found["cycle_ssim"] == found["sharpness_ratio"] == 1
    assert found["displacement_percent"] == found["share_three_times"] == 0
    assert found["judged_cluster_share"] == pytest.approx(1 / 6, abs=1e-3)
    assert len(set(found["judged_age_years"].values())) == 1
    rows = found["details"]["clusters"]["table"]
    assert all(row == rows[0] for row in rows)
    assert found["interpolation_rank_correlation"] == 0
    assert found["details"]["interpolation"]["largest_jump_years"] == 0


def test_another_person_of_the_right_age_is_told_from_the_portrait(people, life, tmp_path):
    pool = np.stack([with_features(frame, SHRUNK) for frames in life.values() for frame in frames])
    years = Judge()(pool).age_years
    others = pool[np.abs(years[:, None] - CENTRES).argmin(0)]
    found = scores(write_picture_bundle(tmp_path / "other", others), people)
    assert found["judged_cluster_share"] >= 5 / 6 - 1e-3
    assert found["interpolation_rank_correlation"] > 0.8
    assert found["identity_distance"] > 0.6
    assert found["identity_share"] < 0.4
    assert found["rank1_share"] <= 1 / 6 + 1e-3
    assert found["reconstruction_psnr_db"] < 30


def test_grey_is_nobody_of_no_age_and_every_figure_can_be_written(people, tmp_path):
    grey = np.full((6, 64, 64, 3), 128, np.uint8)
    found = scores(write_picture_bundle(tmp_path / "grey", grey), people, limit=1)
    assert found["landmarks_not_found"] == 1
    assert found["identity_share"] == found["rank1_share"] == 0
    assert found["identity_distance"] is found["displacement_percent"] is None
    assert found["judged_cluster_share"] <= 1 / 6 + 1e-3
    assert found["sharpness_ratio"] == 0
    assert found["reconstruction_psnr_db"] < 20
    assert [row["faces_not_found"] for row in found["details"]["identity"]] == [1] * 6
