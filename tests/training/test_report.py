import json
from html.parser import HTMLParser

import pytest
import torch

from tests.bundles import write_tiny_bundle
from tests.training.test_evaluate import BrightnessLandmarker
from training.config import FitConfig
from training.data import PortraitSet
from training.evaluate import FRAMES, measure
from training.figures import figures
from training.report import STRIP, WORST, write_report

PORTRAITS = 3


class Page(HTMLParser):
    """Sources of a page, its headings, and whether every element that was opened was closed."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.headings, self.opened = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "line", "circle", "rect", "polyline"):
            self.opened.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag

    def handle_data(self, data):
        if self.opened[-1:] == ["h2"]:
            self.headings.append(data)


@pytest.fixture(scope="module")
def written(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    bundle = write_tiny_bundle(folder / "tiny", resolution=32)
    config = FitConfig(resolution=32)
    portraits = PortraitSet(prepared, config, prepared.rows, torch.device("cpu"), balanced=False)
    seen = measure(bundle, portraits, "neutral", PORTRAITS, BrightnessLandmarker())
    found = {"split": "test", **figures(seen)}
    write_report(folder / "out", seen, portraits, found)
    return folder / "out", found


def test_the_page_needs_no_other_file_and_is_closed(written):
    page = Page((written[0] / "report.html").read_text())
    assert page.opened == []
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    rows = PORTRAITS + 2 * min(WORST, PORTRAITS)
    assert len(page.sources) == rows * 7 + 2 * STRIP


def test_every_part_of_the_figures_has_its_place(written):
    page = Page((written[0] / "report.html").read_text())
    for part in ("age", "cluster", "Identity", "Group", "cycle", "Distribution", "Sharpness"):
        assert any(part in heading for heading in page.headings)
    for part in ("Interpolation", "head turn", "judge"):
        assert any(part in heading for heading in page.headings)


def test_the_judges_error_stands_on_the_page(written):
    folder, found = written
    text = (folder / "report.html").read_text()
    assert f"<b>{found['judge_mae_years']} years</b>" in text


def test_the_json_holds_the_figures_and_no_number_that_is_none(written):
    folder, found = written
    text = (folder / "report.json").read_text()
    assert json.loads(text) == found
    assert "NaN" not in text
    assert found["details"]["interpolation"]["frames"] == FRAMES
