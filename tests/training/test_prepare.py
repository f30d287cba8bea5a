import csv
import errno
import json
import multiprocessing
import os
import shutil
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage import data as photographs

import training.prepare as prepare_module
from model.portraits.errors import PortraitError
from tests.bundles import write_tiny_parser
from training.__main__ import PARSER, main
from training.data import DataError, open_prepared
from training.prepare import REASONS, PackedRows, PrepareConfig, Progress, prepare
from training.sources import Collection

ALIGNED = ["--aligned", "--no-landmarks", "--resolution", "32", "--processes", "1"]
FILES = [*(f"{i}.png" for i in range(6)), "small.png", "text.png", "torn.png", "coins.png"]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Four pictures: the astronaut twice, a wall, and a broken file."""
    folder = tmp_path_factory.mktemp("photographs")
    astronaut = Image.fromarray(photographs.astronaut())
    astronaut.save(folder / "a.jpg", quality=95)
    astronaut.rotate(8, resample=Image.Resampling.BICUBIC).save(folder / "b.png")
    Image.fromarray(photographs.brick()).save(folder / "wall.png")
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:3000])
    table = ["file,age,gender,source,split"]
    for name in ("a.jpg", "b.png", "wall.png", "broken.jpg", "absent.png"):
        table.append(f"{name},44,female,nasa,train")
    (folder / "labels.csv").write_text("\n".join(table) + "\n")
    return folder


@pytest.fixture(scope="module")
def finished(collection, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared")
    report = prepare(collection, output, PARSER, PrepareConfig(resolution=128))
    return output, report


@pytest.fixture(scope="module")
def portraits(tmp_path_factory):
    """Six aligned portraits, a small one, and files that cannot be used."""
    folder = tmp_path_factory.mktemp("portraits")
    portrait = photographs.astronaut()[16:189, 138:311].astype(float)
    for i in range(6):
        Image.fromarray((portrait * (0.7 + 0.05 * i)).astype(np.uint8)).save(folder / f"{i}.png")
    Image.open(folder / "0.png").resize((38, 38)).save(folder / "small.png")
    (folder / "text.png").write_text("no picture")
    (folder / "torn.png").write_bytes((folder / "1.png").read_bytes()[:9000])
    Image.fromarray(photographs.coins()).save(folder / "coins.png")
    rows = [f"{name},{i},female,aaf,train" for i, name in enumerate([*FILES, "absent.png"])]
    (folder / "labels.csv").write_text("file,age,gender,source,split\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def whole_folder(portraits, tmp_path_factory):
    """Those portraits, prepared without an interruption."""
    output = tmp_path_factory.mktemp("whole")
    prepare(portraits, output, PARSER, PrepareConfig(32, aligned=True, landmarks=False))
    return output


def contents(folder, report_only=False):
    """The bytes of every file of a prepared set."""
    if report_only:
        return (folder / "data.json").read_bytes()
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(whole_folder):
    return contents(whole_folder)


def test_the_report_counts_what_was_dropped_and_why(finished):
    _, report = finished
    assert report["usable"] == 2
    assert report["dropped"] == {"no_face": 1, "broken_image": 1, "unreadable_file": 1}


def test_a_turned_photograph_gives_the_same_portrait(finished):
    data = open_prepared(finished[0])
    first, second = (data.portraits[row.index].astype(int) for row in data.rows)
    inside = data.kept[data.rows[0].index] > 250
    assert np.abs(first - second)[inside].mean() < 8


def test_the_background_is_marked_and_the_face_kept(finished):
    data = open_prepared(finished[0])
    kept = data.kept[data.rows[0].index]
    assert kept[64, 64] > 250
    assert kept[:20, :10].mean() < 10


def test_the_same_call_again_does_no_work_twice(finished, collection, monkeypatch):
    output, report = finished
    asked = []

    def read(self, name):
        asked.append(name)
        raise FileNotFoundError

    monkeypatch.setattr("training.prepare.Collection.read", read)
    again = prepare(
        collection,
        output,
        PARSER,
        PrepareConfig(resolution=128),
        labels=collection / "labels.csv",
    )
    assert again == report
    assert asked == ["absent.png"]


def test_a_request_to_stop_keeps_what_was_done_and_the_same_command_goes_on(
    portraits, whole, tmp_path, monkeypatch, capsys
):
    put, read = Progress.put, Collection.read
    done, asked = [], []

    def put_and_ask_to_stop(self, result):
        put(self, result)
        done.append(result)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    def noted(self, name):
        asked.append(name)
        return read(self, name)

    monkeypatch.setattr(Progress, "put", put_and_ask_to_stop)
    monkeypatch.setattr(Collection, "read", noted)
    command = ["prepare", str(portraits), "-o", str(tmp_path), *ALIGNED]
    assert main(command) == 1
    assert "the same command goes on" in capsys.readouterr().err
    with pytest.raises(DataError, match="no finished set"):
        open_prepared(tmp_path)
    assert main(command) == 0
    pictures = [name for name in asked if name not in ("labels.csv", "absent.png")]
    assert sorted(pictures) == sorted(FILES)
    assert contents(tmp_path) == whole


def killed_at(moment: str, source: Path, output: Path) -> None:
    """Prepares until a moment, and is killed there."""

    def kill(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    config = PrepareConfig(32, aligned=True, landmarks=False)
    if moment == "a portrait was written, its map was not":
        original = PackedRows.__setitem__

        def write(self, place, row):
            if self.path.name == "kept.npy" and place == 2:
                kill()
            original(self, place, row)

        PackedRows.__setitem__ = write
    elif moment == "portraits are on disk, and not noted as done":
        prepare_module.SETTLE_S = 0.0
        PackedRows.settle = lambda self: kill() if self.path.name == "kept.npy" else None
    elif moment == "half of the pictures are noted as done":
        prepare_module.SETTLE_S = 0.0
        original = PackedRows.__setitem__

        def write(self, place, row):
            original(self, place, row)
            if self.path.name == "status.npy" and place == 3:
                kill()

        PackedRows.__setitem__ = write
    else:
        write_whole = prepare_module.write_whole
        prepare_module.write_whole = lambda path, text: (
            kill() if path.name == "data.json" else write_whole(path, text)
        )
    prepare(source, output, PARSER, config)


@pytest.mark.parametrize(
    "moment",
    [
        "a portrait was written, its map was not",
        "portraits are on disk, and not noted as done",
        "half of the pictures are noted as done",
        "the table is written, the report is not",
    ],
)
def test_a_set_killed_at_any_moment_is_finished_by_the_same_call(
    moment, portraits, whole, tmp_path
):
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=killed_at, args=(moment, portraits, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "data.json").exists()
    prepare(portraits, tmp_path, PARSER, PrepareConfig(32, aligned=True, landmarks=False))
    assert contents(tmp_path) == whole


def test_a_zip_gives_what_its_folder_gives(portraits, whole, tmp_path):
    archive = tmp_path / "portraits.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for picture in portraits.iterdir():
            file.write(picture, picture.name)
    report = prepare(
        archive, tmp_path / "data", PARSER, PrepareConfig(32, aligned=True, landmarks=False)
    )
    assert report is not None
    assert report["source"] == "portraits.zip"
    assert contents(tmp_path / "data") == {**whole, "data.json": contents(tmp_path / "data", True)}


def test_every_row_is_used_or_dropped_for_a_reason(portraits, whole, tmp_path):
    table = (portraits / "labels.csv").read_text()
    labels = tmp_path / "labels.csv"
    labels.write_text(table + f"{FILES[0]},9,male,aaf,train\n")
    config = PrepareConfig(32, aligned=True, minimum_px=40, landmarks=False)
    report = prepare(portraits, tmp_path / "data", PARSER, config, labels)
    assert report is not None
    dropped = report["dropped"]
    assert dropped == {
        "broken_image": 1,
        "face_too_small": 1,
        "implausible_map": 1,
        "repeated_row": 1,
        "unreadable_file": 1,
        "unsupported_image": 1,
    }
    assert report["pictures"] == report["usable"] + sum(dropped.values())
    with (tmp_path / "data" / "dropped.csv").open(newline="") as file:
        rows = [(row["file"], row["reason"]) for row in csv.DictReader(file)]
    assert rows[-1] == (FILES[0], "repeated_row")
    assert ("text.png", "unsupported_image") in rows


def test_a_file_that_was_missing_is_looked_for_again(portraits, tmp_path):
    source = tmp_path / "portraits"
    shutil.copytree(portraits, source)
    config = PrepareConfig(32, aligned=True, landmarks=False)
    before = prepare(source, tmp_path / "data", PARSER, config)
    shutil.copy(source / FILES[0], source / "absent.png")
    after = prepare(source, tmp_path / "data", PARSER, config)
    assert before is not None
    assert after is not None
    assert after["usable"] == before["usable"] + 1


def test_labels_may_change_and_rows_leave_without_work_on_pictures(
    portraits, tmp_path, monkeypatch
):
    labels = tmp_path / "labels.csv"
    labels.write_text(f"file,age,gender\n{FILES[0]},4,f\n{FILES[1]},5,f\n")
    config = PrepareConfig(32, aligned=True, landmarks=False)
    prepare(portraits, tmp_path / "data", PARSER, config, labels)
    place = open_prepared(tmp_path / "data").rows[1].index
    labels.write_text(f"file,age,gender\n{FILES[1]},61,m\n")
    monkeypatch.setattr("training.prepare.Collection.read", None)
    prepare(portraits, tmp_path / "data", PARSER, config, labels)
    (row,) = open_prepared(tmp_path / "data").rows
    assert (row.index, row.age_years, row.gender) == (place, 61.0, "male")
    labels.write_text("file,age,gender\nanother.png,61,m\n")
    with pytest.raises(DataError, match="other settings or pictures"):
        prepare(portraits, tmp_path / "data", PARSER, config, labels)


def test_another_parser_does_not_resume_a_set(portraits, whole_folder, tmp_path):
    other = tmp_path / "parser.onnx"
    write_tiny_parser(other)
    with pytest.raises(DataError, match="other settings"):
        prepare(portraits, whole_folder, other, PrepareConfig(32, aligned=True, landmarks=False))


def test_every_error_of_a_picture_is_a_reason():
    assert {error.code for error in PortraitError.__subclasses__()} - set(REASONS) == {
        "no_such_face"
    }


def test_a_full_disk_is_told_and_what_fitted_stays(portraits, whole, tmp_path, monkeypatch):
    write = PackedRows.__setitem__

    def full(self, place, row):
        if self.path.name == "kept.npy" and place == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, place, row)

    monkeypatch.setattr(PackedRows, "__setitem__", full)
    assert main(["prepare", str(portraits), "-o", str(tmp_path), *ALIGNED]) == 2
    assert np.load(tmp_path / "status.npy").tolist()[:5] == [1, 1, 1, 0, 0]
    monkeypatch.undo()
    prepare(portraits, tmp_path, PARSER, PrepareConfig(32, aligned=True, landmarks=False))
    assert contents(tmp_path) == whole


def test_other_settings_do_not_resume_a_set(finished, collection):
    with pytest.raises(DataError, match="other settings"):
        prepare(collection, finished[0], PARSER, PrepareConfig(resolution=64))


def test_aligned_portraits_are_only_scaled(tmp_path, collection, finished):
    portrait = open_prepared(finished[0]).portraits[0]
    source = tmp_path / "portraits"
    source.mkdir()
    Image.fromarray(np.asarray(portrait)).save(source / "a.png")
    (source / "labels.csv").write_text("file,age,gender\na.png,44,f\n")
    output = tmp_path / "out"
    prepare(source, output, PARSER, PrepareConfig(resolution=128, aligned=True))
    np.testing.assert_array_equal(open_prepared(output).portraits[0], portrait)
    assert json.loads((output / "data.json").read_text())["pictures"] == 1


def test_glasses_are_noted_of_each_portrait(tmp_path):
    folder = tmp_path / "portraits"
    folder.mkdir()
    portrait = Image.fromarray(photographs.astronaut()[16:189, 138:311]).resize((256, 256))
    portrait.save(folder / "bare.png")
    brush = ImageDraw.Draw(portrait)
    for left in (84, 136):
        brush.rounded_rectangle((left, 98, left + 42, 130), 8, outline=(20, 20, 20), width=4)
    brush.line((126, 108, 136, 108), fill=(20, 20, 20), width=4)
    portrait.save(folder / "worn.png")
    rows = ["file,age,gender,source,split", "bare.png,44,female,nasa,train"]
    rows.append("worn.png,44,female,nasa,train")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    report = prepare(folder, tmp_path / "set", PARSER, PrepareConfig(aligned=True))
    assert report["glasses"] == 1
    prepared = open_prepared(tmp_path / "set")
    worn = {row.file: row.glasses for row in prepared.rows}
    assert worn == {"bare.png": False, "worn.png": True}
    where = {row.file: prepared.eyeglasses[row.index] > 200 for row in prepared.rows}
    assert where["bare.png"].mean() < 0.004 < where["worn.png"].mean()
    down, across = np.nonzero(where["worn.png"])
    assert 35 < down.min() <= down.max() < 80
    assert 20 < across.min() <= across.max() < 110


def test_hair_is_noted_where_it_is(finished):
    prepared = open_prepared(finished[0])
    rows = [row.index for row in prepared.rows]
    assert prepared.hair.shape == prepared.kept.shape
    for hair, portrait in zip(prepared.hair[rows], prepared.portraits[rows], strict=True):
        sure = hair > 200
        assert 0.1 < sure.mean() < 0.6
        assert portrait[sure].mean() < 110  # auburn, before a pale face and bright walls
        assert not sure[60:80, 54:74].any()


def test_landmarks_are_noted_in_shares_of_the_portrait(collection, finished, tmp_path):
    found = open_prepared(finished[0]).landmarks
    assert finished[1]["no_landmarks"] == 0
    # As the crop is defined: the eyes' middle above the centre by a tenth of its distance to the
    # mouth (Karras et al. 2019).
    eyes, mouth = found[:, 36:48].mean(1), found[:, [48, 54]].mean(1)
    centre = eyes + 0.1 * (mouth - eyes)
    usable = [row.index for row in open_prepared(finished[0]).rows]
    np.testing.assert_allclose(centre[usable], 0.5, atol=0.01)

    source = tmp_path / "portraits"
    source.mkdir()
    set_ = open_prepared(finished[0])
    Image.fromarray(set_.portraits[0]).save(source / "face.png")
    Image.fromarray(np.full((128, 128, 3), 90, np.uint8)).save(source / "none.png")
    lines = ["file,age,gender,source,split", "face.png,44,female,nasa,train"]
    lines.append("none.png,44,female,nasa,train")
    (source / "labels.csv").write_text("\n".join(lines) + "\n")
    report = prepare(source, tmp_path / "set", PARSER, PrepareConfig(64, aligned=True))
    again = open_prepared(tmp_path / "set").landmarks
    np.testing.assert_allclose(again[0], found[0], atol=0.02)
    assert report["no_landmarks"] == report["usable"] - 1


def test_a_set_prepared_without_landmarks_holds_none(whole_folder):
    prepared = open_prepared(whole_folder)
    assert np.isnan(prepared.landmarks[[row.index for row in prepared.rows]]).all()


def test_two_processes_give_what_one_gives(collection, finished, tmp_path):
    config = PrepareConfig(resolution=128)
    report = prepare(collection, tmp_path, PARSER, config, processes=2)
    assert report == finished[1]
    np.testing.assert_array_equal(
        open_prepared(tmp_path).portraits, open_prepared(finished[0]).portraits
    )
