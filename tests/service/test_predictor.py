import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.portraits import parse
from model.runtime import Feeds, Provider, ProviderError
from service.errors import FaceCutForAnotherModel, Overloaded, UnknownFace
from service.media import Pixels
from service.observability import Metrics, Stage
from service.predictor import Predictor, TakenFace, _open_parser, open_predictor
from service.settings import Settings
from service.targets import between, chosen
from tests.bundles import ANCHORS, GROUPS, STEP, write_tiny_bundle


def run(
    test: Callable[[Predictor], Awaitable[None]], metrics: Metrics | None = None, **settings: object
) -> None:
    async def opened() -> None:
        values = {"provider": "cpu", **settings}
        async with open_predictor(Settings.load(values), metrics or Metrics()) as predictor:
            await predictor.warm_up()
            await test(predictor)

    asyncio.run(opened())


async def anchors_of(predictor: Predictor, name: str, taken: TakenFace) -> list[Pixels]:
    model = predictor.model(name)
    targets = chosen(model.manifest, ["all"], [], [])
    pictures = predictor.pictures(taken, model, GROUPS[2], targets, lambda picture: picture)
    return [picture async for _, picture in pictures]


def test_models_of_other_sizes_and_scales_serve_the_same_face(
    tmp_path: Path, parser_file: Path, photo: bytes
):
    write_tiny_bundle(tmp_path / "a", name="near")
    write_tiny_bundle(tmp_path / "b", name="wide", resolution=32, portrait={"scale": 1.25})

    async def test(predictor: Predictor) -> None:
        taken = await predictor.take_in(photo)
        near, wide = predictor.model("near"), predictor.model("wide")
        ratio = (
            predictor.alignment(taken.face, wide).side_px
            / predictor.alignment(taken.face, near).side_px
        )
        assert ratio == pytest.approx(1.25)
        assert (await anchors_of(predictor, "near", taken))[0].shape == (64, 64, 3)
        assert (await anchors_of(predictor, "wide", taken))[0].shape == (32, 32, 3)

    run(test, models=tmp_path, parser=parser_file, default_model="near")


def test_a_photo_is_held_where_it_is_asked_for_and_while_there_is_room(
    models_folder: Path, parser_file: Path, photo: bytes
):
    async def test(predictor: Predictor) -> None:
        assert (await predictor.take_in(photo)).photo is None
        taken = await predictor.take_in(photo, with_photo=True, keep_photo=True)
        assert taken.photo is not None
        # One photo of 512 px fits into a MiB, two do not.
        assert taken.photo.shape == (512, 512, 3)
        with pytest.raises(Overloaded):
            await predictor.take_in(photo, with_photo=True)
        with pytest.raises(Overloaded):
            await predictor.look_up(taken.face_id, with_photo=True)
        taken = replace(taken, photo=None)
        assert (await predictor.look_up(taken.face_id, with_photo=True)).photo is not None

    run(test, models=models_folder, parser=parser_file, max_photos_bytes=1024 * 1024)


def test_a_face_is_not_served_by_a_model_that_it_was_not_cut_for(
    tmp_path: Path, models_folder: Path, parser_file: Path, portrait: bytes
):
    write_tiny_bundle(tmp_path / "wide", name="wide", portrait={"scale": 1.25})
    faces: list[TakenFace] = []

    async def take_in(predictor: Predictor) -> None:
        faces.append(await predictor.take_in(portrait, aligned=True))

    async def serve(predictor: Predictor) -> None:
        with pytest.raises(FaceCutForAnotherModel):
            await anchors_of(predictor, "wide", faces[0])

    run(take_in, models=models_folder, parser=parser_file)
    run(serve, models=tmp_path, parser=parser_file)


def test_a_model_with_a_decoder_per_anchor_runs_each_for_its_own(
    tmp_path: Path, parser_file: Path, portrait: bytes
):
    write_tiny_bundle(tmp_path / "cycle", name="cycle", decoder_per_anchor=True)

    async def test(predictor: Predictor) -> None:
        taken = await predictor.take_in(portrait, aligned=True)
        pictures = await anchors_of(predictor, "cycle", taken)
        greys = [picture[0, 0, 0] for picture in pictures]
        assert len(greys) == len(ANCHORS)
        assert np.diff(greys).tolist() == [2 * STEP] * 5

    run(test, models=tmp_path, parser=parser_file)


def test_warming_up_runs_every_shape_that_will_be_run(models_folder: Path, parser_file: Path):
    async def test(predictor: Predictor) -> None:
        model = predictor.model(None)
        graph = model._decoders[0]
        shapes, run_graph = set(), graph.run

        def remember(feeds: Feeds) -> list[np.ndarray]:
            shapes.add((len(feeds["identity"]), len(feeds["index"])))
            return run_graph(feeds)

        graph.run = remember
        await predictor.warm_up()
        assert shapes == {(1, 1), (2, 2), (1, 2), (4, 4), (1, 4)}
        assert predictor.costs(model)[Stage.DECODE].best == 4

    run(test, models=models_folder, parser=parser_file, max_batch=4, batch=4, measuring_s=0)


def test_a_model_without_an_encoder_decodes_portraits(
    tmp_path: Path, parser_file: Path, portrait: bytes
):
    write_tiny_bundle(tmp_path / "tiny")
    metrics = Metrics()

    async def test(predictor: Predictor) -> None:
        taken = await predictor.take_in(portrait, aligned=True)
        model = predictor.model(None)
        # The tiny decoder takes blocks of 4 px; a method without encoder takes them as they are.
        blocks = model.encode([predictor.masked_portrait(taken.face, model)], 1)[0]
        model._encoder = None
        predictor.masked_portrait = lambda face, model: blocks  # type: ignore[method-assign]
        runs = metrics.encoder_runs.labels("tiny")._value.get()
        assert len(await anchors_of(predictor, "tiny", taken)) == len(ANCHORS)
        assert metrics.encoder_runs.labels("tiny")._value.get() == runs

    run(test, metrics, models=tmp_path, parser=parser_file)


def test_a_slow_reader_of_a_sequence_holds_few_pictures(
    models_folder: Path, parser_file: Path, portrait: bytes
):
    finished = []

    async def test(predictor: Predictor) -> None:
        taken = await predictor.take_in(portrait, aligned=True)
        model = predictor.model(None)
        targets = between(model.manifest, None, None, 200)
        pictures = predictor.pictures(taken, model, "neutral", targets, finished.append)
        async with aclosing(pictures):
            await anext(pictures)
            await asyncio.sleep(0.3)
            assert 4 <= len(finished) <= 2 * 4

    run(test, models=models_folder, parser=parser_file, max_batch=4, batch=4)
    assert len(finished) <= 2 * 4


def test_forgetting_a_face_forgets_what_was_encoded_of_it(
    models_folder: Path, parser_file: Path, portrait: bytes
):
    async def test(predictor: Predictor) -> None:
        taken = await predictor.take_in(portrait, aligned=True)
        await anchors_of(predictor, "tiny", taken)
        assert predictor._identities.used_bytes > 0
        await predictor.forget(taken.face_id)
        assert predictor._identities.used_bytes == 0
        with pytest.raises(UnknownFace):
            await predictor.look_up(taken.face_id)

    run(test, models=models_folder, parser=parser_file)


def test_a_parser_that_does_not_open_where_the_models_run_is_opened_elsewhere_unless_demanded(
    parser_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def closed(path: Path, threads: int | None) -> None:
        raise ProviderError(f"{path.name} does not open on cuda")

    monkeypatch.setattr(parse, "CudaGraph", closed)
    auto, demanded = (
        Settings.load({"provider": name, "parser": parser_file}) for name in ("auto", "cuda")
    )
    assert _open_parser(auto, Provider.CUDA).resolution > 0
    assert "the parser runs on the CPU" in caplog.text
    with pytest.raises(ProviderError, match="does not open on cuda"):
        _open_parser(demanded, Provider.CUDA)
