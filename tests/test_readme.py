import re
from pathlib import Path

import pytest

from model.bundle import open_bundle
from service.settings import settings_table
from training.config import preset_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_settings_table_is_that_of_the_settings():
    table = README.split("<!-- settings -->\n")[1].split("<!-- /settings -->")[0]
    assert table == settings_table()


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_described(preset):
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `")]
    assert any(f"`{preset}`" in row for row in rows)


def test_every_linked_file_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_terms_of_the_weights_stand_in_the_first_screen():
    assert "for research only" in "\n".join(README.splitlines()[:15])


def test_a_bundled_model_of_too_few_images_is_called_a_preview():
    manifest = open_bundle(ROOT / "model" / "bundles" / "lifespan").manifest
    seen = manifest.provenance.images_seen
    assert manifest.preview == (seen < 500_000)
    assert ("preview" in README) == manifest.preview
    assert f"{seen:,}" in (ROOT / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("name", ["stargan", "s2gan", "cyclegan", "discogan"])
def test_a_model_for_comparison_is_whole_and_stands_in_the_card(name: str):
    manifest = open_bundle(ROOT / "model" / "bundles" / "compared" / name).manifest
    assert manifest.preview
    card = (ROOT / "MODEL_CARD.md").read_text().split("for comparison\n", 1)[1]
    assert f"{manifest.provenance.images_seen:,}" in card
    for figure in ("displacement_percent", "reconstruction_displacement_percent"):
        assert f"{manifest.quality[figure]:.2f} %" in card


def test_every_test_that_the_threat_model_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
