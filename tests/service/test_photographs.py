import os
from pathlib import Path

import pytest

from service.photographs import PhotographsError, find_photographs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs in two folders, one in the other, and what is no photograph."""
    below = tmp_path / "photos" / "below"
    below.mkdir(parents=True)
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "below/c.webp"):
        (tmp_path / "photos" / name).touch()
    return tmp_path / "photos"


def found(*paths: Path, output: Path = Path("out"), recursive: bool = False) -> dict[str, str]:
    """Each photograph's name, with where one of its outputs goes."""
    return {
        each.path.name: each.output(Path("out"), "_0-2.png").as_posix()
        for each in find_photographs(paths, output, recursive=recursive)
    }


def test_a_folder_stands_for_the_photographs_in_it_in_order(folder: Path):
    assert list(found(folder).items()) == [
        ("a.PNG", "out/a_0-2.png"),
        ("b.jpg", "out/b_0-2.png"),
    ]


def test_outputs_of_folders_in_a_folder_lie_as_their_photographs_do(folder: Path):
    assert found(folder, recursive=True)["c.webp"] == "out/below/c_0-2.png"


def test_a_file_that_is_named_counts_whatever_its_name(folder: Path):
    assert found(folder / "notes.txt") == {"notes.txt": "out/notes_0-2.png"}


def test_a_photograph_named_twice_counts_once(folder: Path):
    assert list(found(folder / "b.jpg", folder, folder / "below" / ".." / "b.jpg")) == [
        "b.jpg",
        "a.PNG",
    ]


def test_photographs_of_one_name_have_outputs_of_their_own(folder: Path):
    for name in ("b.png", "B.gif"):
        (folder / name).touch()
    assert found(folder) == {
        "a.PNG": "out/a_0-2.png",
        "b.jpg": "out/b.jpg_0-2.png",
        "b.png": "out/b.png_0-2.png",
        "B.gif": "out/B.gif_0-2.png",
    }


def test_photographs_of_one_name_from_two_folders_have_outputs_of_their_own(folder: Path):
    (folder / "below" / "b.png").touch()
    outputs = found(folder / "b.jpg", folder / "below")
    assert outputs["b.jpg"] != outputs["b.png"]


def test_the_output_is_not_looked_into(folder: Path):
    inside = folder / "out"
    inside.mkdir()
    (inside / "a_0-2.png").touch()
    assert "a_0-2.png" not in found(folder, output=inside, recursive=True)
    assert "a_0-2.png" in found(folder, output=Path("elsewhere"), recursive=True)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.jpg", "no such file"),
        ("empty", "no photograph"),
        (".", "name another folder"),
    ],
)
def test_a_path_that_names_no_photographs_is_refused(folder: Path, path: str, words: str):
    (folder / "empty").mkdir()
    with pytest.raises(PhotographsError, match=words) as caught:
        find_photographs([folder / path], folder)
    assert str(folder / path) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_may_not_be_read_is_named_and_not_passed_over(folder: Path):
    (folder / "below").chmod(0)
    with pytest.raises(PhotographsError, match="below: Permission denied"):
        find_photographs([folder], Path("out"), recursive=True)
    (folder / "below").chmod(0o700)


def test_two_photographs_of_one_full_name_are_refused(folder: Path):
    (folder / "below" / "b.jpg").touch()
    with pytest.raises(PhotographsError, match=r"b\.jpg and "):
        find_photographs([folder / "b.jpg", folder / "below"], Path("out"))
