import asyncio
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.album import Ageing, Album, Interpolation, Outcome
from service.media import AnimationFormat, PictureFormat
from service.observability import Metrics
from service.photographs import PhotographsError, find_photographs
from service.predictor import Predictor, open_predictor
from service.settings import Settings
from service.targets import between, chosen
from tests.bundles import ANCHORS, write_tiny_bundle
from tests.service.conftest import encoded, pixels


def ageing(predictor: Predictor, names: Sequence[str], *, in_photo: bool = False) -> Ageing:
    model = predictor.model(None)
    targets = chosen(model.manifest, names, [], [])
    return Ageing(predictor, model, "neutral", targets, PictureFormat.PNG, in_photo)


async def work(
    predictor: Predictor, making: Ageing | Interpolation, photos: Path, output: Path, jobs: int = 3
) -> dict[str, Outcome]:
    """The outcome of each photograph of a folder, by its name."""
    outcomes: list[Outcome] = []
    album = Album(predictor, making, output, aligned=True)
    await album.work(find_photographs([photos], output), jobs, outcomes.append)
    return {outcome.photo.name: outcome for outcome in outcomes}


@pytest.fixture
def photos(tmp_path: Path, portrait: bytes) -> Path:
    """Twelve portraits, each of a brightness of its own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    image = np.asarray(Image.open(io.BytesIO(portrait)))
    for number in range(12):
        darker = Image.fromarray((image * (1 - number / 24)).astype(np.uint8))
        (folder / f"{number:02}.png").write_bytes(encoded(darker, "PNG"))
    return folder


def settings(models: Path, parser: Path, **more: object) -> Settings:
    return Settings.load({"models": models, "parser": parser, "provider": "cpu", **more})


def test_photographs_share_runs_of_the_graphs_and_keep_their_own_pictures(
    working_models_folder: Path, parser_file: Path, photos: Path, tmp_path: Path
):
    metrics = Metrics()

    async def test() -> None:
        chosen_settings = settings(working_models_folder, parser_file, threads=1)
        async with open_predictor(chosen_settings, metrics) as predictor:
            outcomes = await work(predictor, ageing(predictor, ["0-2"]), photos, tmp_path, 12)
            assert len(outcomes) == 12
            assert not any(outcome.failure for outcome in outcomes.values())

    asyncio.run(test())
    assert metrics.decoder_runs.labels("tiny")._value.get() < 12
    centre = (slice(24, 40), slice(24, 40))
    shown = [pixels((tmp_path / f"{n:02}_0-2.png").read_bytes())[centre].mean() for n in range(12)]
    assert np.all(np.diff(shown) < -1)


def test_what_a_photograph_brought_is_forgotten_when_it_is_done(
    models_folder: Path, parser_file: Path, photos: Path, tmp_path: Path
):
    async def test() -> None:
        async with open_predictor(settings(models_folder, parser_file), Metrics()) as predictor:
            await work(predictor, ageing(predictor, ["all"]), photos, tmp_path)
            assert predictor.store.used_bytes == 0
            assert predictor._identities.used_bytes == 0

    asyncio.run(test())


def test_a_store_without_room_for_two_faces_is_enough(
    models_folder: Path, parser_file: Path, photos: Path, tmp_path: Path
):
    async def test() -> None:
        chosen_settings = settings(models_folder, parser_file, face_store_bytes=2**20)
        async with open_predictor(chosen_settings, Metrics()) as predictor:
            predictor.store.max_bytes = 20_000
            outcomes = await work(predictor, ageing(predictor, ["all"]), photos, tmp_path, 12)
            assert not any(outcome.failure for outcome in outcomes.values())

    asyncio.run(test())


def test_a_photograph_on_which_a_graph_fails_stops_no_other(
    parser_file: Path, photos: Path, tmp_path: Path
):
    write_tiny_bundle(tmp_path / "models" / "tiny", poison=True)
    (photos / "white.png").write_bytes(encoded(Image.new("RGB", (128, 128), "white"), "PNG"))

    async def test() -> None:
        chosen_settings = settings(tmp_path / "models", parser_file)
        async with open_predictor(chosen_settings, Metrics()) as predictor:
            # White everywhere, so that the portrait is too.
            predictor.masked_portrait = lambda face, model: (
                next(iter(face.portraits.values())).pixels
            )
            outcomes = await work(predictor, ageing(predictor, ["0-2"]), photos, tmp_path / "out")
            failed = {name: each.failure.code for name, each in outcomes.items() if each.failure}
            assert failed == {"white.png": "inference_failed"}
            assert len(outcomes) == 13

    asyncio.run(test())


def test_a_file_that_cannot_be_read_or_written_is_told_with_its_reason(
    models_folder: Path, parser_file: Path, photos: Path, tmp_path: Path
):
    (photos / "gone.png").symlink_to(tmp_path / "nowhere")
    output = tmp_path / "out"
    (output / "03_7-9.png").mkdir(parents=True)

    async def test() -> dict[str, Outcome]:
        async with open_predictor(settings(models_folder, parser_file), Metrics()) as predictor:
            return await work(predictor, ageing(predictor, ["all"]), photos, output)

    outcomes = asyncio.run(test())
    failed = {name: each for name, each in outcomes.items() if each.failure}
    assert set(failed) == {"gone.png", "03.png"}
    assert failed["gone.png"].failure.code == "unreadable_file"
    assert failed["03.png"].failure.code == "not_written"
    assert "03_7-9.png" in failed["03.png"].failure.detail
    assert [path.name for path in failed["03.png"].made] == ["03_0-2.png", "03_3-6.png"]
    assert failed["03.png"].outputs == failed["03.png"].made


def test_only_what_is_missing_is_made(
    models_folder: Path, parser_file: Path, photos: Path, tmp_path: Path
):
    output = tmp_path / "out"

    async def test() -> None:
        async with open_predictor(settings(models_folder, parser_file), Metrics()) as predictor:
            making = ageing(predictor, ["all"])
            await work(predictor, making, photos, output)
            first = {path.name: path.read_bytes() for path in output.iterdir()}
            for name in ("05_3-6.png", "05_50-69.png"):
                (output / name).unlink()
            outcomes = await work(predictor, making, photos, output)
            made = [path.name for each in outcomes.values() for path in each.made]
            assert made == ["05_3-6.png", "05_50-69.png"]
            assert [path.name for path in outcomes["05.png"].outputs] == [
                f"05_{name}.png" for name in ANCHORS
            ]
            assert {path.name: path.read_bytes() for path in output.iterdir()} == first

    asyncio.run(test())


def test_no_photograph_is_written_over(
    models_folder: Path, parser_file: Path, photos: Path, tmp_path: Path
):
    (photos / "01_0-2.png").write_bytes((photos / "01.png").read_bytes())

    async def test() -> None:
        async with open_predictor(settings(models_folder, parser_file), Metrics()) as predictor:
            album = Album(predictor, ageing(predictor, ["0-2"]), photos, overwrite=True)
            files = [photos / "01.png", photos / "01_0-2.png"]
            with pytest.raises(PhotographsError, match="written over"):
                await album.work(find_photographs(files, photos), 1, lambda _: None)

    asyncio.run(test())


def test_a_film_shows_the_frames_in_order(
    models_folder: Path, parser_file: Path, photos: Path, tmp_path: Path
):
    async def test() -> None:
        async with open_predictor(settings(models_folder, parser_file), Metrics()) as predictor:
            model = predictor.model(None)
            targets = between(model.manifest, None, None, 6)
            making = Interpolation(
                predictor, model, "neutral", targets, 10, AnimationFormat.APNG, ".png"
            )
            await work(predictor, making, photos, tmp_path / "films")

    asyncio.run(test())
    with Image.open(tmp_path / "films" / "00.png") as film:
        greys = []
        for number in range(film.n_frames):
            film.seek(number)
            greys.append(np.asarray(film.convert("RGB"))[:4, :4].mean())
    assert len(greys) == 6
    assert np.all(np.diff(greys) > 3)
