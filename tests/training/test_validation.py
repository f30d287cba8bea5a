import csv
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from training.__main__ import main
from training.config import FitConfig, load_config
from training.data import DataError
from training.validation import (
    SHOWN,
    Cell,
    Finding,
    Severity,
    validate_collection,
    validate_prepared,
)

CONFIG = FitConfig(resolution=32, clusters=((0, 9), (20, 60)))
CELLS = [(age, gender) for age in (5, 44) for gender in ("female", "male")]


def picture(seed):
    """A patch of its own, 80 px."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((80, 80), Image.Resampling.BICUBIC)


def write_collection(folder, rows, pictures=True):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "age", "gender", "source", "split"), *rows])
    for seed, row in enumerate(rows if pictures else ()):
        if not (folder / row[0]).exists():
            picture(seed).save(folder / row[0])
    return folder


def good_rows(count=2):
    return [
        (f"{age}-{gender}-{i}.png", age, gender, "ours", "test" if i == 0 else "train")
        for age, gender in CELLS
        for i in range(count)
    ]


@pytest.fixture
def good(tmp_path):
    """A small collection that nothing is wrong with, except that it is small."""
    return write_collection(tmp_path / "good", good_rows())


def codes(validation, severity=None):
    return {f.code for f in validation.findings if severity in (None, f.severity)}


def finding(validation, code):
    (found,) = [f for f in validation.findings if f.code == code]
    return found


def test_a_set_without_faults_has_no_error_and_its_cells_are_counted(good):
    validation = validate_collection(good, CONFIG, aligned=True)
    assert validation.passed
    assert codes(validation) == {"small_cells"}
    assert Cell("0-9", "male", "ours", "train", 1) in validation.cells
    assert len(validation.cells) == 8
    assert "cluster  group   source  train  test\n0-9      female  ours    1      1" in str(
        validation
    )


def test_every_fault_of_a_table_is_found_at_once(good):
    rows = good_rows()
    rows += [("a.png", "old", "f", "", ""), ("gone.png", 5, "f", "", ""), (*rows[0][:4], "test")]
    rows += [(rows[2][0], 6, "female", "ours", "test"), ("12.png", 12, "x", "ours", "train")]
    write_collection(good, rows, pictures=False)
    picture(50).save(good / "12.png")
    picture(51).save(good / "stray.jpg")
    validation = validate_collection(good, CONFIG, aligned=True)
    assert codes(validation, Severity.ERROR) == {"wrong_rows", "contradicting_rows"}
    assert "line 10: age 'old'" in finding(validation, "wrong_rows").items[0]
    assert finding(validation, "missing_files").items == ("gone.png",)
    assert finding(validation, "contradicting_rows").items == (rows[2][0],)
    assert finding(validation, "repeated_rows").items == (rows[0][0],)
    assert finding(validation, "unlisted_files").items == ("stray.jpg",)
    assert finding(validation, "no_group").items == ("12.png",)
    assert "1 pictures are of ages in no cluster" in finding(validation, "between_clusters").message


def test_pictures_that_prepare_would_drop_are_named_with_the_reason(good):
    names = [row[0] for row in good_rows()]
    (good / names[0]).write_text("no picture")
    (good / names[1]).write_bytes((good / names[1]).read_bytes()[:500])
    picture(60).resize((40, 40)).save(good / names[2])
    picture(61).resize((90, 70)).save(good / names[3])
    validation = validate_collection(good, CONFIG, aligned=True)
    for code, name in zip(
        ("unsupported_image", "broken_image", "face_too_small", "not_square"), names, strict=False
    ):
        assert finding(validation, code).items == (name,)
        assert finding(validation, code).severity is Severity.WARNING


def test_faces_are_sought_in_photographs(tmp_path):
    astronaut = photographs.astronaut()
    rows = [(name, 44, "female", "nasa", "train") for name in ("one.png", "two.png", "none.png")]
    write_collection(tmp_path, rows)
    Image.fromarray(astronaut).save(tmp_path / "one.png")
    half = astronaut[:256, 90:346]
    Image.fromarray(np.hstack([half, half[:, ::-1]])).save(tmp_path / "two.png")
    validation = validate_collection(tmp_path, CONFIG)
    assert finding(validation, "no_face").items == ("none.png",)
    assert finding(validation, "several_faces").items == ("two.png",)


def test_a_limit_looks_at_pictures_spread_over_the_table(good):
    for row in good_rows():
        (good / row[0]).write_text(f"no picture {row[0]}")
    found = finding(validate_collection(good, CONFIG, aligned=True, limit=2), "unsupported_image")
    assert found.message.startswith("2 of 2 pictures")
    assert found.severity is Severity.ERROR
    assert found.items == ("44-male-1.png", "5-female-0.png")


def test_a_picture_in_both_splits_is_a_leak_also_in_a_zip(good, tmp_path):
    shutil.copy(good / "44-male-0.png", good / "5-female-1.png")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in good.iterdir():
            archive.write(file, file.name)
    for source in (good, tmp_path / "set.zip"):
        validation = validate_collection(source, CONFIG, aligned=True)
        assert codes(validation, Severity.ERROR) == {"leaks"}
        (item,) = finding(validation, "contradicting_labels").items
        assert "44-male-0.png (44, test)" in item
        assert "5-female-1.png (5, train)" in item


def test_a_cell_without_training_pictures_is_an_error_that_names_it(tmp_path):
    rows = [row for row in good_rows() if row[:3] != ("44-male-1.png", 44, "male")]
    validation = validate_collection(write_collection(tmp_path, rows), CONFIG, aligned=True)
    assert finding(validation, "empty_cells").items == ("male 20-60",)
    assert not validation.passed


def test_one_group_takes_all_genders_and_warns_where_its_name_says_otherwise(good):
    everyone = FitConfig(resolution=32, clusters=CONFIG.clusters, groups=("all",))
    female = FitConfig(resolution=32, clusters=CONFIG.clusters, groups=("female",))
    assert len(validate_collection(good, everyone, aligned=True).cells) == 4
    assert "mixed_group" not in codes(validate_collection(good, everyone, aligned=True))
    assert "mixed_group" in codes(validate_collection(good, female, aligned=True))


def test_a_source_that_tells_the_age_is_named(tmp_path):
    rows = [(*row[:3], "young" if row[1] == 5 else "old", row[4]) for row in good_rows()]
    found = finding(
        validate_collection(write_collection(tmp_path, rows), CONFIG, aligned=True),
        "source_tells_age",
    )
    assert found.items[0] == "old: 100% of 20-60, 0% of 0-9 years"


def test_how_often_small_cells_are_drawn_is_told(tmp_path):
    rows = [(f"{i}.png", 5, "f", "few" if i < 4 else "many", "train") for i in range(20)]
    rows += [(f"{i}.png", 44, "f", "many", "train") for i in range(20, 40)]
    config = FitConfig(resolution=32, clusters=CONFIG.clusters, groups=("all",))
    validation = validate_collection(write_collection(tmp_path, rows), config, aligned=True)
    # Half of the draws are of 0-9, a third of these of the 4 of 20: sqrt(4) to sqrt(16).
    assert "all 0-9 few: 4, each drawn 1.7 times as often" in "\n".join(
        finding(validation, "small_cells").items
    )


def test_a_prepared_set_is_looked_through(prepared, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(prepared.path, folder)
    portraits = np.load(folder / "portraits.npy")
    portraits[3], portraits[11] = 0, portraits[8]
    np.save(folder / "portraits.npy", portraits)
    with (folder / "table.csv").open("a") as file:
        file.write("99,beyond.png,5,male,aaf,train\n")
    report = {"schema_version": 1, "pictures": 100, "dropped": {"no_face": 28}}
    (folder / "data.json").write_text(json.dumps(report))
    validation = validate_prepared(folder, FitConfig(resolution=64))
    assert codes(validation, Severity.ERROR) == {
        "resolution",
        "rows_without_portrait",
        "blank_portraits",
        "leaks",
    }
    assert finding(validation, "blank_portraits").items == ("3.png",)
    assert "8.png (0, train) = 11.png (0, test)" in "\n".join(finding(validation, "leaks").items)
    assert finding(validation, "dropped").severity is Severity.WARNING
    assert finding(validation, "labels_not_judged").severity is Severity.NOTE


def table_with_glasses(prepared, folder, wears):
    shutil.copytree(prepared.path, folder)
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["glasses"] = str(int(wears(int(row["index"]))))
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.mark.parametrize(("share", "severity"), [(1.0, Severity.WARNING), (0.04, Severity.NOTE)])
def test_glasses_that_go_with_age_are_told(prepared, tmp_path, share, severity):
    folder = table_with_glasses(prepared, tmp_path / "set", lambda index: index >= 60)
    found = finding(
        validate_prepared(folder, FitConfig(resolution=32, glasses_share=share)), "glasses"
    )
    assert found.severity is severity
    assert found.items[0] == "0-2: 0% wear glasses"
    assert found.items[-1] == "50-69: 100% wear glasses"


def test_glasses_that_all_ages_wear_alike_are_no_finding(prepared, tmp_path):
    folder = table_with_glasses(prepared, tmp_path / "set", lambda index: index % 2)
    assert "glasses" not in {f.code for f in validate_prepared(folder, CONFIG).findings}


def test_what_a_configuration_needs_of_a_set_prepared_earlier_is_told(prepared):
    config = load_config("smoke", ["overlay=true", "flow_interval=2", "glasses_share=0.1"])
    found = codes(validate_prepared(prepared.path, config), Severity.ERROR)
    assert {"glasses_unknown", "no_landmarks"} <= found
    plain = codes(validate_prepared(prepared.path, load_config("smoke")), Severity.ERROR)
    assert not {"glasses_unknown", "no_landmarks"} & plain


def test_suspect_labels_of_a_prepared_set_are_told_with_the_estimates_error(tmp_path):
    random = np.random.default_rng(0)
    ages = random.choice([1, 8, 30, 60], 240)
    bars = np.zeros((240, 32, 32, 3))
    for image, age in zip(bars, ages, strict=True):
        width = int(3 + 3 * np.log(age + 5) + random.integers(0, 2))
        image[4:28, 16 - width // 2 : 16 + width // 2] = random.uniform(120, 220, 3)
    noisy = np.clip(bars + random.normal(20, 10, bars.shape), 0, 255).astype(np.uint8)
    planted = int(np.flatnonzero(ages == 1)[0])
    ages[planted] = 60
    np.save(tmp_path / "portraits.npy", noisy)
    np.save(tmp_path / "kept.npy", np.full((240, 32, 32), 255, np.uint8))
    rows = [(i, f"{i}.png", age, "female", "bars", "train") for i, age in enumerate(ages)]
    with (tmp_path / "table.csv").open("w", newline="") as file:
        header = ("index", "file", "age", "gender", "source", "split")
        csv.writer(file).writerows([header, *rows])
    (tmp_path / "data.json").write_text(json.dumps({"schema_version": 1}))
    found = finding(validate_prepared(tmp_path, CONFIG), "suspect_labels")
    assert found.items[0].startswith(f"{planted}.png: labelled 60, looks ")
    assert "off by more than" in found.message


def test_the_command_writes_every_item_and_its_status_tells_of_errors(good, tmp_path, capsys):
    clusters = ["--set", "clusters=[[0,9],[20,60]]"]
    command = ["validate", str(good), "--aligned", "--processes", "1", *clusters]
    assert main(command) == 0
    assert "0 errors, 1 warning, 0 notes" in capsys.readouterr().out
    for row in good_rows():
        (good / row[0]).write_text("no picture")
    assert main([*command, "--json", str(tmp_path / "findings.json")]) == 1
    text = capsys.readouterr().out
    assert f"and {8 - SHOWN} more" in text
    written = json.loads((tmp_path / "findings.json").read_text())
    (found,) = [f for f in written["findings"] if f["code"] == "unsupported_image"]
    assert len(found["items"]) == 8
    assert not written["passed"]
    assert main(["validate", str(tmp_path / "nowhere")]) == 2


def test_a_set_that_prepare_did_not_finish_is_no_finished_set(tmp_path):
    (tmp_path / "begun.json").write_text("{}")
    with pytest.raises(DataError, match="run prepare first"):
        validate_prepared(tmp_path, CONFIG)


def test_errors_come_first_and_every_finding_says_what_to_do():
    found = Finding(Severity.NOTE, "code", "message", "Do this.", tuple("abcdefg"))
    assert str(found).splitlines()[0] == "note: message"
    assert str(found).splitlines()[-1] == "  Do this."
