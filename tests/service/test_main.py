import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import c2pa
import numpy as np
import pytest
from PIL import Image

from service.__main__ import main
from service.marks import Source
from service.media import PictureFormat
from service.settings import Settings
from tests.bundles import ANCHORS
from tests.service.conftest import ROOT, Exiftool, encoded, pixels
from tests.service.signers import make_signer


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


def test_age_writes_several_faces_of_a_photo_into_it(
    engine: list[str], astronaut: np.ndarray, tmp_path: Path
):
    two = np.concatenate([astronaut, astronaut[:, ::-1]], axis=1)
    (tmp_path / "two.png").write_bytes(encoded(Image.fromarray(two), "PNG"))
    call = ["age", str(tmp_path / "two.png"), "--view", "photo", "-o", str(tmp_path / "out")]
    assert main([*call, "--face-target", "0:0-2", "--face-target", "1:40", *engine]) == 0
    (written,) = (tmp_path / "out").iterdir()
    assert written.name == "two_together.png"
    changed = (pixels(written.read_bytes()) != two).any((0, 2))
    assert changed[:512].any()
    assert changed[512:].any()


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
    ("flags", "film"),
    [
        (["-o", "FOLDER"], "ann_life.webp"),
        (["-o", "FOLDER", "--format", "gif"], "ann_life.gif"),
        (["-o", "FOLDER/new/life.MP4"], "new/life.MP4"),
    ],
)
def test_one_photo_s_film_goes_to_a_folder_or_a_file(
    engine: list[str], photo_file: Path, tmp_path: Path, flags: list[str], film: str
):
    folder = tmp_path / "films"
    folder.mkdir()
    arguments = [part.replace("FOLDER", str(folder)) for part in flags]
    call = ["interpolate", str(photo_file), "--frames", "2", *arguments, *engine]
    assert main(call) == 0
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / film]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["age", "PHOTO", "--age", "300"], "age_out_of_range"),
        (["age", "PHOTO", "--to", "old"], "unknown_anchor"),
        (["age", "PHOTO", "--group", "x"], "unknown_group"),
        (["age", "PHOTO", "--model", "x"], "unknown_model"),
        (["age", "PHOTO", "--age", "30", "--age", "30.01"], "one file"),
        (["age", "PHOTO", "--face-target", "0:0-2"], "--view photo"),
        (["age", "PHOTO", "--view", "photo", "--face-target", "0:0-2", "--age", "9"], "--age"),
        (["age", "PHOTO", "--view", "photo", "--face-target", "0-2"], "invalid_face_target"),
        (["age", "PHOTO", "--threads", "x"], "--threads"),
        (["age", "PHOTO", "missing.jpg"], "missing.jpg"),
        (["age", "FOLDER", "-o", "FOLDER"], "name another folder"),
        (["age", "PHOTO", "-o", "PHOTO"], "ann.jpg"),
        (["age", "PHOTO", "--c2pa-key", "PHOTO"], "--c2pa-certificate"),
        (["interpolate", "PHOTO", "-o", "life.avi"], ".mp4"),
        (["interpolate", "PHOTO", "-o", "life.gif", "--format", "mp4"], "--format mp4"),
        (["interpolate", "FOLDER", "-o", "life.gif"], "folder"),
        (["interpolate", "PHOTO", "-o", "PHOTO.webp"], "written over"),
    ],
)
def test_a_bad_call_says_why_and_does_nothing(
    engine: list[str],
    photo_file: Path,
    capsys: pytest.CaptureFixture[str],
    call: list[str],
    words: str,
):
    photo_file.with_name("ann.jpg.webp").write_bytes(photo_file.read_bytes())
    before = sorted(photo_file.parent.rglob("*"))
    places = {"PHOTO": photo_file, "FOLDER": photo_file.parent}
    places["PHOTO.webp"] = photo_file.with_name("ann.jpg.webp")
    arguments = [str(places.get(part, part)) for part in call]
    if "PHOTO.webp" in call:
        arguments[1] = str(places["PHOTO.webp"])
    assert main([*arguments, *engine]) == 2
    assert words in capsys.readouterr().err
    assert sorted(photo_file.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "flags",
    [["--jobs", "0"], ["--jobs", "x"], ["--face-index", "-1"], ["--to"], ["--speed", "1"]],
)
def test_an_argument_that_cannot_be_is_refused(flags: list[str]):
    with pytest.raises(SystemExit) as caught:
        main(["age", "ann.jpg", *flags])
    assert caught.value.code == 2


@pytest.mark.parametrize("flags", [["--fps", "0"], ["--fps", "nan"], ["--frames", "1"]])
def test_a_rate_or_number_of_frames_that_cannot_be_is_refused(flags: list[str]):
    with pytest.raises(SystemExit) as caught:
        main(["interpolate", "ann.jpg", *flags])
    assert caught.value.code == 2


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


class Command:
    """The real command, in processes of its own, on photographs in a folder."""

    def __init__(self, engine: list[str], folder: Path) -> None:
        self.photos = folder / "photos"
        self.output = folder / "out"
        self._engine = engine
        self.photos.mkdir()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if not k.upper().startswith("ANCHORAGE_")}
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "service", *arguments, *self._engine],
            env={**clean, "PYTHONPATH": str(ROOT)},
            cwd=self.photos.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background may have been told to ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors

    def made(self) -> dict[str, bytes]:
        """Every file in the output folder, hidden ones too."""
        return {
            path.relative_to(self.output).as_posix(): path.read_bytes()
            for path in self.output.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def command(engine: list[str], tmp_path: Path) -> Command:
    return Command(engine, tmp_path)


@pytest.fixture
def working_command(
    working_models_folder: Path, parser_file: Path, tmp_path: Path, portrait: bytes
) -> Command:
    """A command whose pictures take some 20 ms, with eight portraits."""
    files = ["--models", str(working_models_folder), "--parser", str(parser_file)]
    command = Command([*files, "--provider", "cpu", "--threads", "1"], tmp_path)
    for number in range(8):
        (command.photos / f"{number}.png").write_bytes(portrait)
    return command


def test_a_folder_is_aged_and_its_bad_photos_are_named_at_the_end(
    command: Command, photo: bytes, astronaut: np.ndarray
):
    (command.photos / "below").mkdir()
    (command.photos / "ann.jpg").write_bytes(photo)
    (command.photos / "below" / "ann.jpg").write_bytes(photo)
    (command.photos / "broken.jpg").write_bytes(photo[: len(photo) // 2])
    (command.photos / "grey.png").write_bytes(encoded(Image.new("RGB", (300, 300)), "PNG"))
    (command.photos / "notes.txt").write_text("no photograph")
    call = ["age", "photos", "--recursive", "--to", "0-2", "--to", "50-69", "-o", "out"]
    status, output, errors = command.run(*call)
    assert status == 1
    names = [f"{stem}_{to}.png" for stem in ("ann", "below/ann") for to in ("0-2", "50-69")]
    assert sorted(command.made()) == sorted(names)
    assert sorted(output.splitlines()) == sorted(f"out/{name}" for name in names)
    told = errors.splitlines()
    assert sorted(told[:2]) == [
        "anchorage: photos/broken.jpg: The image is damaged or incomplete. (broken_image)",
        "anchorage: photos/grey.png: No face was found in the photo. (no_face)",
    ]
    assert told[2:] == ["anchorage: 4 photos: 2 done, 2 failed"]


def test_json_has_a_line_for_every_photo(command: Command, photo: bytes, astronaut: np.ndarray):
    two = np.concatenate([astronaut, astronaut[:, ::-1]], 1)
    (command.photos / "ann.jpg").write_bytes(photo)
    (command.photos / "twins.png").write_bytes(encoded(Image.fromarray(two), "PNG"))
    (command.photos / "broken.jpg").write_bytes(b"no picture")
    (command.photos / "grey.png").write_bytes(encoded(Image.new("RGB", (300, 300)), "PNG"))
    status, output, _ = command.run("age", "photos", "--to", "7-9", "-o", "out", "--json")
    assert status == 1
    found = {each["input"]: each for each in map(json.loads, output.splitlines())}
    assert len(found) == len(output.splitlines()) == 4
    assert found["photos/ann.jpg"] == {
        "input": "photos/ann.jpg",
        "outputs": ["out/ann_7-9.png"],
        "made": 1,
        "faces": 1,
        "error": None,
    }
    assert found["photos/twins.png"]["faces"] == 2
    broken, grey = found["photos/broken.jpg"], found["photos/grey.png"]
    assert (broken["outputs"], broken["faces"]) == ([], None)
    assert broken["error"]["code"] == "unsupported_image"
    assert broken["error"]["detail"]
    assert (grey["faces"], grey["error"]["code"]) == (0, "no_face")
    status, output, errors = command.run(
        "age", "photos/ann.jpg", "--to", "7-9", "-o", "out", "--json"
    )
    assert status == 0
    assert json.loads(output) == {**found["photos/ann.jpg"], "made": 0, "faces": None}
    assert "1 there already" in errors


def test_a_photo_without_a_face_ends_with_1(command: Command):
    (command.photos / "grey.png").write_bytes(encoded(Image.new("RGB", (300, 300)), "PNG"))
    status, output, errors = command.run("age", "photos/grey.png")
    assert (status, output) == (1, "")
    assert errors == "anchorage: photos/grey.png: No face was found in the photo. (no_face)\n"


def test_a_killed_run_leaves_whole_files_and_the_next_makes_the_rest(working_command: Command):
    call = ["age", "photos", "--aligned", "-o", "out"]
    whole = 8 * len(ANCHORS)
    process = working_command.start(*call)
    wait_for(lambda: len(list(working_command.output.glob("*.png"))) >= 6, process)
    process.kill()
    process.communicate()
    before = {name: data for name, data in working_command.made().items() if name.endswith(".png")}
    assert 6 <= len(before) < whole
    for data in before.values():
        assert pixels(data).shape == (64, 64, 3)
    # What a run killed in the middle of a file leaves, and what a full disk or a copy cut off does.
    (working_command.output / ".0_0-2.png.999999999.part").write_bytes(b"half")
    cut = next(iter(before))
    (working_command.output / cut).write_bytes(before[cut][:-20])
    old = {name: (working_command.output / name).stat().st_mtime_ns for name in before}
    status, output, _ = working_command.run(*call)
    assert status == 0
    after = working_command.made()
    assert sorted(after) == sorted(f"{n}_{name}.png" for n in range(8) for name in ANCHORS)
    assert {name: after[name] for name in before} == before
    renewed = [
        name
        for name, changed in old.items()
        if (working_command.output / name).stat().st_mtime_ns != changed
    ]
    assert renewed == [cut]
    assert len(output.splitlines()) == whole - len(before) + 1


def test_overwrite_makes_what_is_there_again(command: Command, portrait: bytes):
    (command.photos / "ann.png").write_bytes(portrait)
    call = ["age", "photos/ann.png", "--aligned", "--to", "0-2", "-o", "out"]
    assert command.run(*call)[0] == 0
    wanted = command.made()["ann_0-2.png"]
    other = encoded(Image.new("RGB", (8, 8)), "PNG")
    (command.output / "ann_0-2.png").write_bytes(other)
    status, output, _ = command.run(*call)
    assert (status, output, command.made()["ann_0-2.png"]) == (0, "", other)
    status, output, _ = command.run(*call, "--overwrite")
    assert (status, output.split(), command.made()["ann_0-2.png"]) == (
        0,
        ["out/ann_0-2.png"],
        wanted,
    )


def test_ctrl_c_stops_with_whole_files_and_says_how_to_go_on(working_command: Command):
    call = ["age", "photos", "--aligned", "-o", "out", "--jobs", "1"]
    process = working_command.start(*call)
    wait_for(lambda: len(list(working_command.output.glob("*.png"))) >= 6, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted (the same call goes on)" in errors
    made = working_command.made()
    assert 6 <= len(made) < 8 * len(ANCHORS)
    assert all(pixels(data).shape == (64, 64, 3) for data in made.values())


def test_interpolate_makes_a_film_of_each_photo_of_a_folder(command: Command, portrait: bytes):
    for name in ("ann.png", "bob.png"):
        (command.photos / name).write_bytes(portrait)
    call = ["interpolate", "photos", "--aligned", "--frames", "3", "--format", "mp4", "-o", "out"]
    assert command.run(*call)[0] == 0
    made = command.made()
    assert sorted(made) == ["ann_life.mp4", "bob_life.mp4"]
    for data in made.values():
        with av.open(io.BytesIO(data)) as film:
            assert len(list(film.decode(video=0))) == 3


def test_a_reader_that_stops_does_not_stop_the_run(command: Command, portrait: bytes):
    for number in range(3):
        (command.photos / f"{number}.png").write_bytes(portrait)
    process = command.start("age", "photos", "--aligned", "-o", "out")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as errors:
        told = errors.read()
    assert process.wait(60) == 0
    assert told == "anchorage: 3 photos: 3 done\n"
    assert len(command.made()) == 3 * len(ANCHORS)


def test_every_file_is_marked_and_signed_where_there_is_a_certificate(
    engine: list[str], portrait: bytes, exiftool: Exiftool, tmp_path: Path
):
    signer = make_signer(tmp_path / "signer")
    photo, output = tmp_path / "ann.png", tmp_path / "out"
    photo.write_bytes(portrait)
    flags = ["--c2pa-certificate", str(signer.chain), "--c2pa-key", str(signer.key), "--aligned"]
    age = ["age", str(photo), "-o", str(output), *flags, *engine]
    for kind in PictureFormat:
        assert main([*age, "--to", "0-2", "--format", kind]) == 0
    assert main([*age, "--to", "3-6", "--view", "photo"]) == 0
    for suffix in ("gif", "apng", "mp4"):
        film = str(output / f"life.{suffix}")
        call = ["interpolate", str(photo), "--frames", "3", "-o", film, *flags, *engine]
        assert main(call) == 0
    made = {path.name: path.read_bytes() for path in output.iterdir()}
    assert len(made) == 7
    for name, tags in exiftool.read(made).items():
        wanted = Source.COMPOSITE if name == "ann_3-6.png" else Source.MODEL
        assert tags["XMP-iptcExt:DigitalSourceType"] == wanted, name
    for name, data in made.items():
        container = {"jpg": "image/jpeg", "apng": "image/png", "mp4": "video/mp4"}
        suffix = name.rpartition(".")[2]
        with c2pa.Reader(container.get(suffix, f"image/{suffix}"), io.BytesIO(data)) as reader:
            assert reader.get_validation_state() == "Valid", name


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
