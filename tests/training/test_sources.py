import zipfile

import pytest

from training.data import DataError
from training.sources import Collection, Entry, read_rows, read_table


def test_a_folder_and_a_zip_read_alike(tmp_path):
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(b"pixels")
    (folder / "labels.csv").write_text("file,age,gender\nimages/a.png,34,F\n")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in ("images/a.png", "labels.csv"):
            archive.write(folder / file, file)
    for path in (folder, tmp_path / "set.zip"):
        collection = Collection(path)
        (entry,) = read_table(collection)
        assert (entry.age_years, entry.gender, entry.split) == (34.0, "female", "train")
        assert collection.read(entry.file) == b"pixels"


def test_a_table_beside_the_images_is_found_in_a_subfolder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "labels.csv").write_text("file,age,gender,split\na.png,3,m,test\n")
    (entry,) = read_table(Collection(tmp_path))
    assert entry.file == "inner/a.png"
    assert (entry.gender, entry.split) == ("male", "test")


def test_ffhq_aging_folders_are_read_with_their_own_table(tmp_path):
    for number in (0, 69000):
        folder = tmp_path / f"{number // 1000 * 1000:05d}"
        folder.mkdir()
        (folder / f"{number:05d}.png").touch()
    (tmp_path / "ffhq_aging_labels.csv").write_text(
        "image_number,age_group,age_group_confidence,gender,gender_confidence\n"
        "0,0-2,1.0,male,1.0\n69000,70-120,0.9,female,0.9\n70,3-6,1,male,1\n"
    )
    first, last = read_table(Collection(tmp_path))
    assert (first.file, first.age_years, first.split) == ("00000/00000.png", 1.0, "train")
    assert (last.gender, last.age_years, last.split) == ("female", 95.0, "test")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,age\na,3\n", "no column gender"),
        ("file,age,gender\na,old,f\n", "line 2: age 'old'"),
        ("file,age,gender\na,3,f\nb\n", "line 3: age ''"),
        ("file,age,gender\na,nan,f\n", "line 2: age nan is not 0 to 130"),
        ("file,age,gender\na,1961,f\n", "line 2: age 1961 is not 0 to 130"),
        ("file,age,gender\n", "names no picture"),
    ],
)
def test_a_broken_table_names_line_and_column(tmp_path, table, message):
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        read_table(Collection(tmp_path))


def test_a_table_from_a_spreadsheet_may_begin_with_a_mark(tmp_path):
    (tmp_path / "labels.csv").write_bytes("\ufefffile,age,gender\na.png,3,f\n".encode())
    assert read_table(Collection(tmp_path))[0].age_years == 3.0


def test_a_table_in_another_encoding_is_told(tmp_path):
    (tmp_path / "labels.csv").write_bytes("file,age,gender\nmärz.png,3,f\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_table(Collection(tmp_path))


def test_every_wrong_row_is_given_beside_the_right_ones(tmp_path):
    (tmp_path / "labels.csv").write_text("file,age,gender\na,x,f\nb,3,f\nc,y,f\n")
    first, second, third = read_rows(Collection(tmp_path))
    assert isinstance(second, Entry)
    assert [type(row) for row in (first, third)] == [DataError, DataError]


def test_a_picture_that_a_zip_holds_damaged_is_unreadable(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"pixels")
    path.write_bytes(path.read_bytes().replace(b"pixels", b"PIXELS", 1))
    for name in ("a.png", "absent.png"):
        with pytest.raises(OSError, match=name):
            Collection(path).read(name)


def test_a_torn_zip_is_named(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"set\.zip"):
        Collection(tmp_path / "set.zip")


def test_a_collection_without_a_table_says_what_was_sought(tmp_path):
    with pytest.raises(DataError, match=r"labels\.csv"):
        read_table(Collection(tmp_path))


def test_a_missing_collection_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        Collection(tmp_path / "nowhere")
