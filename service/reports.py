"""What the command line says of its photographs: progress, lines, and a last word on failures."""

import json
import os
import sys
from typing import Any, Self

from tqdm import tqdm

from service.album import Outcome


class Report:
    """Results on standard output, the rest on standard error; the bar only on a terminal.

    With `as_json` a result is one JSON line per photograph, else the path of each file made. Use as
    a context manager: behind it the bar is gone.
    """

    def __init__(self, photographs: int, *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._count = photographs
        self._outcomes: list[Outcome] = []
        # Where standard error is no terminal, None switches the bar off.
        self._bar: Any = tqdm(total=photographs, unit="photo", disable=None, leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def failed(self) -> list[Outcome]:
        """The photographs that have not all of their outputs."""
        return [each for each in self._outcomes if each.failure is not None]

    def add(self, outcome: Outcome) -> None:
        """Says what became of a photograph."""
        self._outcomes.append(outcome)
        if self._as_json:
            self._say(json.dumps(outcome.document()))
        else:
            for path in outcome.made:
                self._say(str(path))
        self._bar.set_postfix(failed=len(self.failed), refresh=False)
        self._bar.update()

    def conclude(self, *, interrupted: bool = False) -> None:
        """Names the photographs that failed, and counts them all."""
        for each in self.failed:
            assert each.failure is not None
            _complain(f"{each.photo}: {each.failure.detail} ({each.failure.code})")
        failed = len(self.failed)
        there = sum(not each.made and each.failure is None for each in self._outcomes)
        counts = {
            "done": len(self._outcomes) - there - failed,
            "there already (--overwrite makes them again)": there,
            "failed": failed,
            "interrupted (the same call goes on)": self._count - len(self._outcomes),
        }
        if interrupted or self._count > 1 or there:
            told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
            _complain(f"{self._count} photo{'s' * (self._count > 1)}: {told}")

    def _say(self, line: str) -> None:
        try:
            self._bar.write(_shown(line), file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:
            # Nobody reads on, and the files are what counts.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str) -> None:
    print(_shown(f"anchorage: {text}"), file=sys.stderr)


def _shown(text: str) -> str:
    """Text that can be printed: a file's name may hold bytes that are no characters."""
    return text.encode(errors="backslashreplace").decode()
