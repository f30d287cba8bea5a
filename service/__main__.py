"""The command `anchorage`: serve, or age photographs without a server, by the same engine."""

import argparse
import asyncio
import importlib.util
import logging
import math
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from model.ages import Pace
from model.bundle import BundleError, Manifest
from model.runtime import ProviderError
from service.album import Ageing, Album, Interpolation, Making, Together
from service.app import create_app
from service.draining import DrainingServer
from service.errors import Problem
from service.heads import PromptProtocol
from service.logs import configure_logging
from service.media import AnimationFormat, PictureFormat
from service.observability import Metrics
from service.photographs import Photograph, PhotographsError, find_photographs
from service.predictor import Predictor, open_predictor
from service.reports import Report
from service.settings import Settings, SettingsError
from service.targets import Target, between, chosen, group_of, of_faces

ENGINE_FLAGS = (
    "models",
    "parser",
    "provider",
    "threads",
    "workers",
    "max_batch",
    "max_pixels",
    "min_face_px",
    "c2pa_certificate",
    "c2pa_key",
)
FILMS: dict[str, AnimationFormat | None] = {
    ".webp": AnimationFormat.WEBP,
    ".gif": AnimationFormat.GIF,
    ".png": AnimationFormat.APNG,
    ".apng": AnimationFormat.APNG,
    ".mp4": None,
}
EXIT_CODES = (
    "exit status: 0 all photos done, 1 some failed, 2 the call or the installation is wrong and "
    "nothing was done, 130 interrupted"
)

_log = logging.getLogger("service")


class CallError(ValueError):
    """Arguments that do not go together."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    The exit status is 0 where all went well, 1 where a photo failed, 2 for a bad call, 130 where
    it was interrupted.
    """
    parser = _parser()
    asked = parser.parse_args(arguments)
    try:
        settings = Settings.load(_given(asked))
        return asked.run(settings, asked)
    except KeyboardInterrupt:
        return 130
    except Problem as problem:
        print(f"anchorage: {problem.detail} ({problem.code})", file=sys.stderr)
    except (
        SettingsError,
        BundleError,
        ProviderError,
        PhotographsError,
        CallError,
        OSError,
    ) as error:
        print(f"anchorage: {error}", file=sys.stderr)
    return 2


def serve(settings: Settings, _: argparse.Namespace) -> int:
    """Serves until it is told to stop."""
    configure_logging(settings.log_level, settings.log_format)
    try:
        app = create_app(settings)
    except SettingsError as error:
        _log.critical("cannot start: %s", error)
        return 2
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=PromptProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=settings.proxies,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )
    server = DrainingServer(config, app, settings.drain_s)
    # The server finishes its requests, then raises the signal again: a wanted end is exit status 0.
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, lambda *_: sys.exit(0))
    server.run()
    return 0 if server.started else 3


def cluster(settings: Settings, asked: argparse.Namespace) -> int:
    """Serves in replicas until it is told to stop."""
    if importlib.util.find_spec("ray") is None:
        raise SettingsError("cluster needs an extra: pip install 'anchorage[cluster]'")
    from service.cluster import Scale, run

    scale = Scale(
        asked.replicas, asked.most_replicas or asked.replicas, asked.gpus, asked.processors
    )
    run(settings, _given(asked), scale)
    return 0


def _given(asked: argparse.Namespace) -> dict[str, str]:
    return {
        name: value
        for name in Settings.model_fields
        if (value := getattr(asked, f"setting_{name}", None)) is not None
    }


def age(settings: Settings, asked: argparse.Namespace) -> int:
    """Writes pictures of each photo, one per target, or one with several faces."""
    if asked.face_target and (
        asked.view != "photo"
        or asked.to
        or asked.age
        or asked.aligned
        or asked.face_index is not None
    ):
        raise CallError(
            "--face-target goes with --view photo, and without --to, --age, --face-index, --aligned"
        )

    def making(predictor: Predictor) -> Making:
        model, picture_format = predictor.model(asked.model), PictureFormat(asked.format)
        group = group_of(model.manifest, asked.group)
        if asked.face_target:
            targets = of_faces(model.manifest, asked.face_target)
            return Together(predictor, model, group, targets, picture_format)
        return Ageing(
            predictor,
            model,
            group,
            _distinct(model.manifest, asked.to, asked.age),
            picture_format,
            in_photo=asked.view == "photo",
        )

    photographs = find_photographs(asked.photos, asked.output, recursive=asked.recursive)
    return _work(settings, asked, photographs, asked.output, making)


def interpolate(settings: Settings, asked: argparse.Namespace) -> int:
    """Writes a frame sequence of each photo."""
    photographs, output, suffix = _films(asked)

    def making(predictor: Predictor) -> Making:
        model = predictor.model(asked.model)
        return Interpolation(
            predictor,
            model,
            group_of(model.manifest, asked.group),
            between(model.manifest, asked.start, asked.stop, asked.frames, Pace(asked.pace)),
            asked.fps,
            FILMS[suffix.lower()],
            suffix,
        )

    return _work(settings, asked, photographs, output, making)


def _films(asked: argparse.Namespace) -> tuple[list[Photograph], Path, str]:
    """Photos, the folder of their films, and the films' suffix. Raises CallError.

    One photo's film may be named; those of several go to a folder, by their photos' names.
    """
    named: Path | None = asked.output
    one = len(asked.photos) == 1 and not asked.photos[0].is_dir()
    if one and (named is None or not named.is_dir()):
        file = named or Path(f"life.{asked.format or 'webp'}")
        if file.suffix.lower() not in FILMS:
            raise CallError(f"{file}: the name must end in one of {', '.join(FILMS)}")
        if asked.format and file.suffix.lower() != f".{asked.format}":
            raise CallError(f"{file}: the name says another format than --format {asked.format}")
        (photograph,) = find_photographs(asked.photos, file)
        return [Photograph(photograph.path, Path(file.stem))], file.parent, file.suffix
    folder = named or Path()
    if folder.suffix.lower() in FILMS and not folder.is_dir():
        raise CallError(f"{folder}: films of several photos need a folder, and --format")
    photographs = find_photographs(asked.photos, folder, recursive=asked.recursive)
    films = [
        Photograph(each.path, each.stem.with_name(f"{each.stem.name}_life")) for each in photographs
    ]
    return films, folder, f".{asked.format or 'webp'}"


def _distinct(manifest: Manifest, names: Sequence[str], ages: Sequence[float]) -> list[Target]:
    """Targets, each once. Raises CallError where two would have one file."""
    found: dict[str, Target] = {}
    for target in chosen(manifest, names, ages, []):
        first = found.setdefault(target.label, target)
        if first.weights != target.weights:
            raise CallError(f"{first.age_years} and {target.age_years} years would be one file")
    return list(found.values())


def _work(
    settings: Settings,
    asked: argparse.Namespace,
    photographs: Sequence[Photograph],
    output: Path,
    making: Callable[[Predictor], Making],
) -> int:
    """Works through photos, and says what became of them; the exit status."""
    logging.basicConfig(level=logging.WARNING)
    # One more than are read at once, so that reading does not wait for what was read to be aged.
    jobs = asked.jobs or settings.pool_size + 1
    # Faces stay in this process, and its own queue is bounded by the jobs.
    engine = settings.model_copy(
        update={
            "face_store": "memory://",
            "max_queue": max(settings.max_queue, 2 * jobs * (settings.max_batch + 1)),
        }
    )

    async def work() -> None:
        async with open_predictor(engine, Metrics()) as predictor:
            album = Album(
                predictor,
                making(predictor),
                output,
                aligned=asked.aligned,
                face_index=asked.face_index,
                overwrite=asked.overwrite,
            )
            await album.work(photographs, jobs, report.add)

    interrupted = False
    with Report(len(photographs), as_json=asked.json) as report:
        try:
            asyncio.run(work())
        except KeyboardInterrupt:
            interrupted = True
    report.conclude(interrupted=interrupted)
    if interrupted:
        return 130
    return 1 if report.failed else 0


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

    clustering = commands.add_parser(
        "cluster",
        help="start the service in replicas on a Ray cluster",
        description="Starts replicas of the service on the Ray cluster that RAY_ADDRESS names, or "
        "on this machine alone; needs the extra `cluster`. More are started as requests queue up.",
        allow_abbrev=False,
    )
    clustering.add_argument("--replicas", type=int, default=1, help="fewest replicas (1)")
    clustering.add_argument("--most-replicas", type=int, help="most; as many unless given")
    clustering.add_argument("--gpus", type=float, default=0.0, help="of a GPU, a replica (0)")
    clustering.add_argument("--processors", type=float, default=1.0, help="a replica (1)")
    _add_settings(clustering, tuple(Settings.model_fields))
    clustering.set_defaults(run=cluster)

    ageing = commands.add_parser(
        "age",
        help="write photos' faces at other ages",
        description="Writes PHOTO_ANCHOR.png, or PHOTO_AGE.png, of each photo: one per target.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    )
    _add_photos(ageing)
    ageing.add_argument(
        "--to", action="append", default=[], metavar="ANCHOR", help="an anchor, or `all` (default)"
    )
    ageing.add_argument(
        "--age", action="append", default=[], type=float, metavar="YEARS", help="an age in years"
    )
    ageing.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        help="folder to write to; the current one unless given",
    )
    ageing.add_argument("--view", choices=("face", "photo"), default="face")
    ageing.add_argument(
        "--face-target",
        action="append",
        default=[],
        metavar="INDEX:TARGET",
        help="with --view photo: a face, the largest being 0, and its anchor or age (1:50-69); "
        "each of several its own, in one picture, PHOTO_together.png",
    )
    ageing.add_argument("--format", choices=[each.value for each in PictureFormat], default="png")
    ageing.set_defaults(run=age)

    interpolation = commands.add_parser(
        "interpolate",
        help="write photos' faces through the years",
        description="Writes a film of each photo: of one photo to a file, of several to "
        "PHOTO_life.webp in a folder.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    )
    _add_photos(interpolation)
    interpolation.add_argument("--start", metavar="ANCHOR|YEARS")
    interpolation.add_argument("--stop", metavar="ANCHOR|YEARS")
    interpolation.add_argument("--frames", type=_whole(2), default=24)
    interpolation.add_argument(
        "--pace",
        choices=[each.value for each in Pace],
        default=Pace.ANCHORS.value,
        help="as many frames between any two neighbouring anchors (the default), or for every year",
    )
    interpolation.add_argument("--fps", type=_number(1, 60), default=12)
    interpolation.add_argument(
        "-o",
        "--output",
        type=Path,
        help="of one photo the file to write, .webp, .gif, .png, .apng or .mp4 (life.webp unless "
        "given); of several the folder (the current one unless given)",
    )
    interpolation.add_argument(
        "--format", choices=[suffix.removeprefix(".") for suffix in FILMS], help="films in a folder"
    )
    interpolation.set_defaults(run=interpolate)
    return parser


def _add_photos(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "photos", type=Path, nargs="+", metavar="PHOTO", help="a photograph, or a folder of them"
    )
    parser.add_argument("-r", "--recursive", action="store_true", help="folders in folders too")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="make what is there already again; else a whole file is left as it is",
    )
    parser.add_argument(
        "--json", action="store_true", help="say what became of each photo in a line of JSON"
    )
    parser.add_argument(
        "--jobs",
        type=_whole(1),
        metavar="N",
        help="photos under way at once; one more than threads read photos unless given",
    )
    parser.add_argument("--model", help="the default model unless given")
    parser.add_argument("--group", help="the model's default group unless given")
    parser.add_argument("--face-index", type=_whole(0), help="which face, the largest (0) first")
    parser.add_argument("--aligned", action="store_true", help="the photos are portraits already")
    _add_settings(parser, ENGINE_FLAGS)


def _whole(least: int) -> Callable[[str], int]:
    """Reads an argument that is a whole number from `least`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return value

    return read


def _number(least: float, most: float) -> Callable[[str], float]:
    """Reads an argument that is a number from `least` to `most`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return value

    return read


def _add_settings(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    group: Any = parser.add_argument_group("settings")
    for name in names:
        field = Settings.model_fields[name]
        default = "" if field.default in ("", None) else f" Default: {field.default}"
        about = f"{field.description}{default}".replace("%", "%%")
        group.add_argument(
            f"--{name.replace('_', '-')}", dest=f"setting_{name}", metavar="VALUE", help=about
        )


if __name__ == "__main__":
    sys.exit(main())
