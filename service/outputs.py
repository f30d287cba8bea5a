"""Files that are made: there whole, or not there."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PART = re.compile(r"\..+\.(\d+)\.part")
_PNG_END = b"IEND\xaeB`\x82"


def write_output(path: Path, data: bytes) -> None:
    """Writes a file that has its name only once it is whole. Raises OSError.

    A process killed meanwhile leaves a hidden part, which `drop_parts` removes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def is_whole(path: Path) -> bool:
    """Whether a picture or film is there to its end, by the form of its container."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if data.startswith(b"\x89PNG"):
        return data.endswith(_PNG_END)
    if data.startswith(b"\xff\xd8"):
        return data.endswith(b"\xff\xd9")
    if data.startswith(b"RIFF"):
        return len(data) == 8 + int.from_bytes(data[4:8], "little")
    if data.startswith(b"GIF8"):
        return data.endswith(b"\x00;")
    if data[4:8] == b"ftyp":
        # A film in fragments ends with the table of them, which ends with its own length.
        length = int.from_bytes(data[-4:])
        return data[len(data) - length :][4:8] == b"mfra"
    return False


def drop_parts(folders: Iterable[Path]) -> None:
    """Removes what killed runs left in `folders`, not what a run that lives is writing."""
    for folder in folders:
        for path in folder.glob(".*.part"):
            match = _PART.fullmatch(path.name)
            if match and not _lives(int(match[1])):
                # Where processes cannot be asked after, an open file cannot be removed either.
                with suppress(PermissionError):
                    path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
