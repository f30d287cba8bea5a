import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.marks import Mark, Source
from service.media import AnimationFormat, Mp4Writer, PictureFormat, animation, encode_picture
from service.outputs import drop_parts, is_whole, write_output

MARK = Mark(Source.MODEL, "tiny", "1")
KINDS = ["png", "jpeg", "webp", "animated webp", "gif", "apng", "mp4"]


def made(kind: str) -> bytes:
    frames = [np.random.default_rng(n).integers(0, 256, (48, 48, 3), np.uint8) for n in range(3)]
    if kind == "mp4":
        writer = Mp4Writer(12, MARK)
        return b"".join([*(writer.add(frame) for frame in frames), writer.finish()])
    if kind in list(PictureFormat):
        return encode_picture(frames[0], PictureFormat(kind), MARK)
    return animation(frames, 12, AnimationFormat(kind.split()[-1]), MARK)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_whole_exactly_where_nothing_is_missing(tmp_path: Path, kind: str):
    data = made(kind)
    path = tmp_path / "made"
    path.write_bytes(data)
    assert is_whole(path)
    for length in (*range(0, len(data), max(1, len(data) // 200)), len(data) - 1):
        path.write_bytes(data[:length])
        assert not is_whole(path), length


def test_what_is_no_picture_and_what_is_not_there_is_not_whole(tmp_path: Path):
    (tmp_path / "text").write_text("words")
    assert not is_whole(tmp_path / "text")
    assert not is_whole(tmp_path / "none")
    assert not is_whole(tmp_path)


def test_a_file_is_written_into_a_folder_that_it_brings_and_over_another(tmp_path: Path):
    path = tmp_path / "new" / "a.png"
    write_output(path, b"one")
    write_output(path, b"two")
    assert path.read_bytes() == b"two"
    assert [each.name for each in path.parent.iterdir()] == ["a.png"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OSError, match=r"a\.png"):
        write_output(tmp_path / "a.png", b"one")
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


KILLED = """
import os, signal, sys
from pathlib import Path
from service import outputs
# Killed between the last byte and the name.
Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
outputs.write_output(Path(sys.argv[1]), b"new")
"""


def test_a_process_killed_while_it_writes_leaves_the_old_file_and_a_part_to_drop(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == -9
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    drop_parts([tmp_path, tmp_path / "none"])
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


def test_parts_of_a_run_that_lives_and_files_of_others_stay(tmp_path: Path):
    names = [f".a.png.{os.getpid()}.part", "film.part", ".film.part", "a.png"]
    for name in names:
        (tmp_path / name).touch()
    drop_parts([tmp_path])
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(names)


def test_a_whole_file_of_another_program_is_whole(tmp_path: Path):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    assert is_whole(tmp_path / "a.jpg")
