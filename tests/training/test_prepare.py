import json

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from training.__main__ import PARSER
from training.data import DataError, open_prepared
from training.prepare import PrepareConfig, prepare


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
    monkeypatch.setattr("training.prepare._work", None)
    assert prepare(collection, output, PARSER, PrepareConfig(resolution=128)) == report


def test_an_interrupted_set_is_finished_by_the_same_call(collection, tmp_path, monkeypatch):
    from training import prepare as module

    real, seen = module._work, []

    def interrupted(task):
        seen.append(task[1].file)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(task)

    monkeypatch.setattr(module, "_work", interrupted)
    config = PrepareConfig(resolution=128)
    with pytest.raises(KeyboardInterrupt):
        prepare(collection, tmp_path, PARSER, config)
    with pytest.raises(DataError, match="no finished set"):
        open_prepared(tmp_path)
    report = prepare(collection, tmp_path, PARSER, config)
    assert report["usable"] == 2
    assert seen.count("a.jpg") == 1


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


def test_two_processes_give_what_one_gives(collection, finished, tmp_path):
    config = PrepareConfig(resolution=128)
    report = prepare(collection, tmp_path, PARSER, config, processes=2)
    assert report == finished[1]
    np.testing.assert_array_equal(
        open_prepared(tmp_path).portraits, open_prepared(finished[0]).portraits
    )
