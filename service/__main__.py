"""The command `anchorage`: serve, or age photographs without a server, by the same engine."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

from model.bundle import BundleError
from model.runtime import ProviderError
from service.app import create_app
from service.errors import Problem
from service.marks import Mark
from service.media import AnimationFormat, Mp4Writer, PictureFormat, Pixels, animation
from service.observability import Metrics, configure_logging
from service.predictor import Predictor, open_predictor
from service.settings import Settings, SettingsError
from service.targets import between, chosen, group_of

ENGINE_FLAGS = ("models", "parser", "provider", "threads", "workers", "max_batch", "max_pixels")
SUFFIXES = {
    ".webp": AnimationFormat.WEBP,
    ".gif": AnimationFormat.GIF,
    ".png": AnimationFormat.APNG,
    ".apng": AnimationFormat.APNG,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status is 0, 1 where a photo failed, or 2 for a bad call."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    flags = {
        name: value
        for name in Settings.model_fields
        if (value := getattr(asked, f"setting_{name}", None)) is not None
    }
    try:
        settings = Settings.load(flags)
        return asked.run(settings, asked)
    except (SettingsError, BundleError, ProviderError, OSError) as error:
        print(f"anchorage: {error}", file=sys.stderr)
        return 2
    except Problem as problem:
        print(f"anchorage: {problem.detail} ({problem.code})", file=sys.stderr)
        return 1


def serve(settings: Settings, _: argparse.Namespace) -> int:
    """Serves until it is told to stop."""
    configure_logging(settings.log_level)
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )
    server = uvicorn.Server(config)
    # The server finishes its requests, then raises the signal again: a wanted end is exit status 0.
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, lambda *_: sys.exit(0))
    server.run()
    return 0 if server.started else 3


def age(settings: Settings, asked: argparse.Namespace) -> int:
    """Writes one picture per target."""
    return asyncio.run(_age(settings, asked))


def interpolate(settings: Settings, asked: argparse.Namespace) -> int:
    """Writes a frame sequence."""
    return asyncio.run(_interpolate(settings, asked))


async def _age(settings: Settings, asked: argparse.Namespace) -> int:
    picture_format = PictureFormat(asked.format)
    suffix = "jpg" if picture_format is PictureFormat.JPEG else picture_format.value
    async with _engine(settings) as predictor:
        model = predictor.model(asked.model)
        mark = Mark.of(model.manifest, in_photo=asked.view == "photo")
        group = group_of(model.manifest, asked.group)
        targets = chosen(model.manifest, asked.to, asked.age, [])
        taken = await predictor.take_in(
            asked.photo.read_bytes(), aligned=asked.aligned, face_index=asked.face_index
        )
        asked.output.mkdir(parents=True, exist_ok=True)

        def written(picture: Pixels) -> bytes:
            if asked.view == "photo":
                picture = predictor.in_photo(taken, model, picture)
            return predictor.encoded(picture, picture_format, mark)

        async for target, data in predictor.pictures(taken, model, group, targets, written):
            path = asked.output / f"{asked.photo.stem}_{target.label}.{suffix}"
            path.write_bytes(data)
            print(path)
    return 0


async def _interpolate(settings: Settings, asked: argparse.Namespace) -> int:
    suffix = asked.output.suffix.lower()
    if suffix != ".mp4" and suffix not in SUFFIXES:
        known = ", ".join([*SUFFIXES, ".mp4"])
        print(f"anchorage: {asked.output}: the name must end in one of {known}", file=sys.stderr)
        return 2
    async with _engine(settings) as predictor:
        model = predictor.model(asked.model)
        group = group_of(model.manifest, asked.group)
        targets = between(model.manifest, asked.start, asked.stop, asked.frames)
        taken = await predictor.take_in(
            asked.photo.read_bytes(), aligned=asked.aligned, face_index=asked.face_index
        )
        pictures = predictor.pictures(taken, model, group, targets, lambda picture: picture)
        frames = [picture async for _, picture in pictures]
        mark = Mark.of(model.manifest)
    if suffix == ".mp4":
        writer = Mp4Writer(asked.fps, mark)
        data = b"".join([*(writer.add(frame) for frame in frames), writer.finish()])
    else:
        data = animation(frames, asked.fps, SUFFIXES[suffix], mark)
    asked.output.write_bytes(data)
    print(asked.output)
    return 0


@asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[Predictor]:
    logging.basicConfig(level=logging.WARNING)
    async with open_predictor(settings, Metrics()) as predictor:
        yield predictor


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="anchorage", description="One photographed face at any age of a life."
    )
    commands = parser.add_subparsers(title="commands", required=True)

    serving = commands.add_parser(
        "serve",
        help="start the service",
        description="Starts the service. Each flag is also an environment variable: "
        "--max-batch is ANCHORAGE_MAX_BATCH.",
        allow_abbrev=False,
    )
    _add_settings(serving, tuple(Settings.model_fields))
    serving.set_defaults(run=serve)

    ageing = commands.add_parser(
        "age", help="write a photo's face at other ages", allow_abbrev=False
    )
    _add_photo(ageing)
    ageing.add_argument(
        "--to", action="append", default=[], metavar="ANCHOR", help="an anchor, or `all` (default)"
    )
    ageing.add_argument(
        "--age", action="append", default=[], type=float, metavar="YEARS", help="an age in years"
    )
    ageing.add_argument("-o", "--output", type=Path, default=Path(), help="folder to write to")
    ageing.add_argument("--view", choices=("face", "photo"), default="face")
    ageing.add_argument("--format", choices=[each.value for each in PictureFormat], default="png")
    ageing.set_defaults(run=age)

    interpolation = commands.add_parser(
        "interpolate", help="write a photo's face through the years"
    )
    _add_photo(interpolation)
    interpolation.add_argument("--start", metavar="ANCHOR|YEARS")
    interpolation.add_argument("--stop", metavar="ANCHOR|YEARS")
    interpolation.add_argument("--frames", type=int, default=24)
    interpolation.add_argument("--fps", type=float, default=12)
    interpolation.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("life.webp"),
        help="file to write: .webp, .gif, .png, .apng or .mp4",
    )
    interpolation.set_defaults(run=interpolate)
    return parser


def _add_photo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photo", type=Path)
    parser.add_argument("--model", help="the default model unless given")
    parser.add_argument("--group", help="the model's default group unless given")
    parser.add_argument("--face-index", type=int, help="which face, the largest first")
    parser.add_argument("--aligned", action="store_true", help="the photo is a portrait already")
    _add_settings(parser, ENGINE_FLAGS)


def _add_settings(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    group: Any = parser.add_argument_group("settings")
    for name in names:
        field = Settings.model_fields[name]
        about = f"{field.description} Default: {field.default}".replace("%", "%%")
        group.add_argument(
            f"--{name.replace('_', '-')}", dest=f"setting_{name}", metavar="VALUE", help=about
        )


if __name__ == "__main__":
    sys.exit(main())
