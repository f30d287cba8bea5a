import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from service.__main__ import main
from service.settings import Settings
from tests.bundles import ANCHORS
from tests.service.conftest import pixels


@pytest.fixture
def engine(models_folder: Path, parser_file: Path) -> list[str]:
    files = ["--models", str(models_folder), "--parser", str(parser_file)]
    return [*files, "--provider", "cpu"]


@pytest.fixture
def photo_file(tmp_path: Path, photo: bytes) -> Path:
    path = tmp_path / "ann.jpg"
    path.write_bytes(photo)
    return path


def test_age_writes_every_anchor(engine: list[str], photo_file: Path, tmp_path: Path):
    output = tmp_path / "out"
    assert main(["age", str(photo_file), "--to", "all", "-o", str(output), *engine]) == 0
    assert {path.name for path in output.iterdir()} == {f"ann_{name}.png" for name in ANCHORS}
    pictures = [pixels((output / f"ann_{name}.png").read_bytes()) for name in ANCHORS]
    assert all(np.diff([picture[0, 0].mean() for picture in pictures]) > 5)


def test_age_writes_an_age_into_the_photo(engine: list[str], photo_file: Path, tmp_path: Path):
    call = ["age", str(photo_file), "--age", "40", "--view", "photo", "--format", "jpeg"]
    assert main([*call, "-o", str(tmp_path), *engine]) == 0
    with Image.open(tmp_path / "ann_40.0.jpg") as image:
        assert image.size == (512, 512)


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".png", ".mp4"])
def test_interpolate_writes_what_the_name_says(
    engine: list[str], photo_file: Path, tmp_path: Path, suffix: str
):
    output = tmp_path / f"life{suffix}"
    call = ["interpolate", str(photo_file), "--frames", "4", "-o", str(output)]
    assert main([*call, *engine]) == 0
    if suffix == ".mp4":
        with av.open(io.BytesIO(output.read_bytes())) as film:
            assert len(list(film.decode(video=0))) == 4
    else:
        with Image.open(output) as image:
            assert image.n_frames > 1


@pytest.mark.parametrize(
    ("call", "status", "words"),
    [
        (["age", "PHOTO", "--age", "300"], 1, "age_out_of_range"),
        (["age", "PHOTO", "--to", "old"], 1, "unknown_anchor"),
        (["age", "PHOTO", "--group", "x"], 1, "unknown_group"),
        (["age", "PHOTO", "--threads", "x"], 2, "--threads"),
        (["age", "missing.jpg"], 2, "missing.jpg"),
        (["interpolate", "PHOTO", "-o", "life.avi"], 2, ".mp4"),
    ],
)
def test_a_bad_call_says_why_and_ends_with_its_status(
    engine: list[str],
    photo_file: Path,
    capsys: pytest.CaptureFixture[str],
    call: list[str],
    status: int,
    words: str,
):
    arguments = [str(photo_file) if part == "PHOTO" else part for part in call]
    assert main([*arguments, *engine]) == status
    assert words in capsys.readouterr().err


def test_a_missing_folder_of_models_is_named(
    photo_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["age", str(photo_file), "--models", str(tmp_path / "none")]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_serve_has_a_flag_for_every_setting(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = capsys.readouterr().out
    assert [
        name for name in Settings.model_fields if f"--{name.replace('_', '-')}" not in shown
    ] == []
