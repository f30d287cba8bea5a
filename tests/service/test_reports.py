import json
from pathlib import Path

import pytest

from service.album import Failure, Outcome
from service.reports import Report

MADE = Outcome(Path("a.jpg"), (Path("a_0-2.png"), Path("a_3-6.png")), (Path("a_3-6.png"),), 1)
THERE = Outcome(Path("b.jpg"), (Path("b_0-2.png"),))
FAILED = Outcome(Path("c.jpg"), failure=Failure("no_face", "No face."), faces=0)


def told(
    capsys: pytest.CaptureFixture[str],
    outcomes: list[Outcome],
    count: int | None = None,
    *,
    as_json: bool = False,
    interrupted: bool = False,
) -> tuple[str, str]:
    with Report(len(outcomes) if count is None else count, as_json=as_json) as report:
        for outcome in outcomes:
            report.add(outcome)
    report.conclude(interrupted=interrupted)
    return tuple(capsys.readouterr())


def test_files_made_are_listed_and_all_photographs_counted(capsys: pytest.CaptureFixture[str]):
    output, errors = told(capsys, [MADE, THERE, FAILED])
    assert output == "a_3-6.png\n"
    assert errors.splitlines() == [
        "anchorage: c.jpg: No face. (no_face)",
        "anchorage: 3 photos: 1 done, 1 there already (--overwrite makes them again), 1 failed",
    ]


def test_a_single_photograph_that_is_done_needs_no_count(capsys: pytest.CaptureFixture[str]):
    assert told(capsys, [MADE]) == ("a_3-6.png\n", "")


def test_an_interrupted_run_says_how_much_is_left(capsys: pytest.CaptureFixture[str]):
    _, errors = told(capsys, [MADE], 4, interrupted=True)
    assert errors == "anchorage: 4 photos: 1 done, 3 interrupted (the same call goes on)\n"


def test_json_is_one_line_a_photograph_and_nothing_else(capsys: pytest.CaptureFixture[str]):
    output, _ = told(capsys, [MADE, FAILED], as_json=True)
    assert [json.loads(line) for line in output.splitlines()] == [
        {
            "input": "a.jpg",
            "outputs": ["a_0-2.png", "a_3-6.png"],
            "made": 1,
            "faces": 1,
            "error": None,
        },
        {
            "input": "c.jpg",
            "outputs": [],
            "made": 0,
            "faces": 0,
            "error": {"code": "no_face", "detail": "No face."},
        },
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_name_that_is_no_text_is_told_all_the_same(
    capsys: pytest.CaptureFixture[str], as_json: bool
):
    name = Path("bad\udcff.png")
    outcome = Outcome(name, (name,), (name,), 1, Failure("not_written", "x"))
    output, errors = told(capsys, [outcome], as_json=as_json)
    assert "bad\\udcff.png" in output
    assert "bad\\udcff.png" in errors
