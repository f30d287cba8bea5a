"""The command line `anchorage-train`: prepare, validate, fit, export, evaluate, judge and more."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from importlib import resources
from pathlib import Path

import torch

from model.ages import LIFESPAN_CLUSTERS
from model.bundle import BundleError, open_bundle
from model.runtime import available_threads
from training.config import ConfigError, FitConfig, config_of, load_config, preset_names
from training.data import DataError, PortraitSet, PreparedSet, open_prepared, split_rows
from training.export import (
    ExportError,
    Trained,
    export,
    trained_of_checkpoint,
    trained_of_published,
    warm_start_bytes,
    with_quality,
)
from training.health import CollapseError
from training.pool import LostProcess
from training.styles import latents_leaned, latents_reached

DATA, RUN, BUNDLE = Path("data"), Path("run"), Path("bundle")
PARSER = Path(str(resources.files("model") / "bundles" / "parser" / "parser.onnx"))
WIDE_CROP = 2.2 / 1.8
"""Side of the published in-the-wild crop in units of FFHQ's."""


def _prepare(arguments: argparse.Namespace) -> int:
    from training.prepare import PrepareConfig, prepare

    config = PrepareConfig(
        arguments.resolution,
        arguments.aligned,
        arguments.scale,
        arguments.minimum_px,
        arguments.limit,
        arguments.landmarks,
    )
    report = prepare(
        arguments.source,
        arguments.output,
        arguments.parser,
        config,
        arguments.labels,
        arguments.processes,
    )
    if report is None:
        print("stopped; the same command goes on", file=sys.stderr)
        return 1
    print(json.dumps(report, indent=2))
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from training.validation import validate_collection, validate_prepared

    config = load_config(arguments.preset, arguments.set)
    if any((arguments.source / name).exists() for name in ("begun.json", "data.json")):
        validation = validate_prepared(arguments.source, config)
    else:
        validation = validate_collection(
            arguments.source,
            config,
            labels=arguments.labels,
            aligned=arguments.aligned,
            minimum_px=arguments.minimum_px,
            limit=arguments.limit,
            processes=arguments.processes,
        )
    print(validation)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(validation.to_dict(), indent=2) + "\n")
    return 0 if validation.passed else 1


def _fit(arguments: argparse.Namespace) -> int:
    from training.judge import BUNDLED
    from training.loop import Run, fit
    from training.processes import join_processes

    config = load_config(arguments.preset, arguments.set)
    data = open_prepared(arguments.data)
    with closing(join_processes()) as processes:
        judge = arguments.judge or BUNDLED
        run = Run(config, data, arguments.output, arguments.device, processes, judge)
        if arguments.warm_start is not None and not run.resumed:
            run.warm_start(torch.load(arguments.warm_start, map_location="cpu", weights_only=True))
        if run.images_seen >= config.images:
            print(f"{run.images_seen} images were seen already; raise `images` to go on")
            return 0
        word = "finished" if fit(run) else "stopped; the same command goes on"
        if processes.first:
            print(f"{word}: {run.images_seen} images seen, checkpoint in {arguments.output}")
    return 0


def _held_out(data: PreparedSet, config: FitConfig, split: str) -> PortraitSet:
    _, selection, test = split_rows(data, config.held_out)
    rows = test if split == "test" else selection
    return PortraitSet(data, config, rows, torch.device("cpu"), balanced=False)


def _moved(
    trained: Trained, config: FitConfig, reach: Sequence[float] | None, lean: Sequence[float] | None
) -> Trained:
    """With every anchor's latent where --reach and then --lean want it."""
    latents = trained.parts.latents
    for option, factors, move in (
        ("--reach", reach, latents_reached),
        ("--lean", lean, latents_leaned),
    ):
        if not factors:
            continue
        if getattr(config, "style_norm", True):
            raise ConfigError(f"{option}: needs a run of Lifespan without style_norm")
        if len(factors) != len(config.clusters):
            raise ConfigError(f"{option}: {len(config.clusters)} numbers are needed, one an anchor")
        latents = move(latents, factors)
    return replace(trained, parts=replace(trained.parts, latents=latents))


def _detailed(config: FitConfig, factor: int) -> FitConfig:
    """The configuration of the same weights for portraits `factor` times as large."""
    if factor == 1:
        return config
    if not getattr(config, "overlay", False):
        raise ConfigError("--detail: needs a run of Lifespan with overlay")
    values = config.to_dict()
    return config_of(values | {name: values[name] * factor for name in ("resolution", "detail")})


def _export(arguments: argparse.Namespace) -> int:
    from training.checkpoints import BEST, CHECKPOINT, load_checkpoint

    name = BEST if arguments.best else CHECKPOINT
    state = load_checkpoint(arguments.run, name)
    if state is None:
        hint = "fit keeps one with its first selection score" if arguments.best else "run fit first"
        raise DataError(f"{arguments.run} holds no {name}; {hint}")
    config = _detailed(config_of(state["config"]), arguments.detail)
    trained = trained_of_checkpoint({**state, "config": config.to_dict()})
    trained = _moved(trained, config, arguments.reach, arguments.lean)
    data = open_prepared(arguments.data)
    portraits = _held_out(data, config, "selection").images[:64].permute(0, 2, 3, 1).numpy()
    bundle = export(
        trained,
        arguments.output,
        portraits.copy(),
        name=arguments.name or trained.method,
        version=arguments.version,
        precision=arguments.precision,
        portrait={"scale": arguments.scale},
        provenance={
            "data": tuple(arguments.trained_on_data),
            "licence": arguments.licence,
            "trained_on": arguments.hardware,
        },
    )
    if arguments.warm_start is not None:
        arguments.warm_start.write_bytes(warm_start_bytes(state))
    print(f"{arguments.output}: {bundle.manifest.name} {bundle.manifest.version}")
    print(bundle.manifest.parity.model_dump_json())
    return 0


def _sample(arguments: argparse.Namespace) -> int:
    from training.checkpoints import load_checkpoint
    from training.recipes import recipe_of
    from training.sheets import save_sheet

    state = load_checkpoint(arguments.run)
    if state is None:
        raise DataError(f"{arguments.run} holds no checkpoint; run fit first")
    recipe = recipe_of(config_of(state["config"]))
    recipe.generator.load_state_dict(state["averaged"])
    drawn = recipe.sample(recipe.generator.eval(), arguments.rows**2, arguments.seed)
    save_sheet(arguments.output, drawn.unflatten(0, (arguments.rows, arguments.rows)))
    print(f"{arguments.output}: {arguments.rows**2} portraits after {state['images_seen']} images")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from training.evaluate import measure
    from training.figures import figures
    from training.judge import BUNDLED, Judge
    from training.report import write_report

    bundle = open_bundle(arguments.bundle)
    group = arguments.group or bundle.manifest.default_group
    config = FitConfig(
        resolution=bundle.manifest.resolution,
        clusters=tuple((c.low_years, c.high_years) for c in bundle.manifest.clusters),
        groups=tuple(name for name in bundle.manifest.groups if name != "neutral") or ("neutral",),
    )
    portraits = _held_out(open_prepared(arguments.data), config, arguments.split)
    judge = Judge(arguments.judge or BUNDLED)
    measurement = measure(bundle, portraits, group, arguments.limit, judge=judge)
    found = {"split": arguments.split, **figures(measurement)}
    chief = {name: value for name, value in found.items() if name != "details"}
    print(json.dumps(chief, indent=2))
    if arguments.report is not None:
        write_report(arguments.report, measurement, portraits, found)
        print(f"{arguments.report / 'report.html'} shows all of it; it holds photographs of people")
    if arguments.write:
        with_quality(arguments.bundle, chief)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from model.portraits.detect import DlibLandmarker
    from model.portraits.parse import Parser
    from training.comparison import read_sitter, rendered, write_comparison
    from training.page import text

    bundles = [open_bundle(path) for path in arguments.bundle]
    names = [bundle.manifest.name for bundle in bundles]
    if len(set(names)) < len(names):
        raise DataError(f"two bundles have one name: {', '.join(sorted(names))}")
    landmarker, parser = DlibLandmarker(), Parser.open(arguments.parser)
    photos = [(path, False) for path in arguments.photos]
    photos += [(path, True) for path in arguments.aligned]
    if not photos:
        raise DataError("no photograph is given")
    sitters = [read_sitter(path, landmarker, aligned) for path, aligned in photos]
    renderings = [rendered(bundle, sitters, parser, landmarker) for bundle in bundles]
    found = write_comparison(arguments.output, renderings, sitters)
    for one in found["bundles"]:
        print(
            f"{one['name']}: landmarks moved by {text(one['displacement_percent'])} %, pixels by "
            f"{one['change_levels']} levels, {one['picture_ms']} ms a picture"
        )
    if found["finding"]:
        print(found["finding"])
    print(f"{arguments.output / 'comparison.html'} shows all of it; it holds the photographs")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from training.published import published_generator

    state = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    trained = trained_of_published(
        published_generator(state), arguments.group, arguments.resolution
    )
    side = arguments.resolution
    noise = torch.randint(0, 256, (8, side, side, 3), dtype=torch.uint8)
    export(
        trained,
        arguments.output,
        noise.numpy(),
        name=arguments.name or f"lifespan-{arguments.group}",
        version="published",
        precision=arguments.precision,
        portrait={"scale": WIDE_CROP},
        provenance={
            "data": ("FFHQ-Aging",),
            "licence": "CC BY-NC-SA 4.0, as published by Or-El et al.",
            "trained_on": "imported",
        },
    )
    print(f"{arguments.output}: {len(LIFESPAN_CLUSTERS)} anchors, group {arguments.group}")
    return 0


def _parser(arguments: argparse.Namespace) -> int:
    from training.parser import ParserConfig, export_parser, fit_parser

    config = ParserConfig(images=arguments.images)
    report = fit_parser(arguments.maps, arguments.output, config)
    export_parser(arguments.output / "parser.pt", arguments.output, config.resolution, report)
    print(json.dumps(report, indent=2))
    return 0


def _judge(arguments: argparse.Namespace) -> int:
    from training.judge import JudgeConfig, export_judge, fit_judge

    config = JudgeConfig(resolution=arguments.resolution, images=arguments.images)
    data = open_prepared(arguments.data)
    provenance = {
        "data": arguments.trained_on_data,
        "licence": arguments.licence,
        "trained_on": arguments.hardware,
    }
    information = export_judge(fit_judge(data, config), data, arguments.output, config, provenance)
    print(json.dumps(information["error"], indent=2))
    return 0


def arguments_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser("anchorage-train", description="Makes generators and bundles.")
    commands = top.add_subparsers(required=True, metavar="command")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str):
        sub = commands.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.set_defaults(run_command=run)
        return sub

    sub = command("prepare", _prepare, "Align, parse and pack photographs with known ages.")
    sub.add_argument("source", type=Path, help="folder or zip of images")
    sub.add_argument("-o", "--output", type=Path, default=DATA)
    sub.add_argument("--labels", type=Path, help="table, if not labels.csv in the source")
    sub.add_argument("--resolution", type=int, default=128, help="side of the portraits, pixels")
    sub.add_argument("--aligned", action="store_true", help="the images are portraits already")
    sub.add_argument("--scale", type=float, default=1.0, help="crop, in units of FFHQ's")
    sub.add_argument("--minimum-px", type=int, default=64, help="smallest crop taken, pixels")
    sub.add_argument("--limit", type=int, default=0, help="pictures to take; 0 is all")
    sub.add_argument(
        "--landmarks",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="note each face's landmarks, which flow_images learns from",
    )
    sub.add_argument("--parser", type=Path, default=PARSER, help="face parser's graph")
    sub.add_argument("--processes", type=int, default=available_threads())

    sub = command(
        "validate",
        _validate,
        "Say what is wrong with a data set; exit status 1 where training would fail or mislead.",
    )
    sub.add_argument("source", type=Path, help="folder or zip of images, or what prepare wrote")
    sub.add_argument("--preset", default="lifespan-64", choices=preset_names())
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    sub.add_argument("--labels", type=Path, help="table, if not labels.csv in the source")
    sub.add_argument("--aligned", action="store_true", help="the images are portraits already")
    sub.add_argument("--minimum-px", type=int, default=64, help="smallest crop taken, pixels")
    sub.add_argument("--limit", type=int, default=1000, help="images to look at; 0 is all")
    sub.add_argument("--json", type=Path, help="write all findings here, with every file")
    sub.add_argument("--processes", type=int, default=available_threads())

    sub = command("fit", _fit, "Train a generator; the same command resumes.")
    sub.add_argument("--preset", default="lifespan-64", choices=preset_names())
    sub.add_argument("--data", type=Path, default=DATA, help="what prepare wrote")
    sub.add_argument("-o", "--output", type=Path, default=RUN)
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    sub.add_argument("--warm-start", type=Path, help="weights of an earlier run to begin from")
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    sub.add_argument("--judge", type=Path, help="age judge's graph; the bundled one unless given")

    sub = command("export", _export, "Write a bundle from a run's averaged weights.")
    sub.add_argument("run", type=Path, nargs="?", default=RUN)
    sub.add_argument("--data", type=Path, default=DATA, help="portraits for the numeric gate")
    sub.add_argument("-o", "--output", type=Path, default=BUNDLE)
    sub.add_argument(
        "--best", action="store_true", help="the checkpoint of the highest selection score"
    )
    sub.add_argument(
        "--reach",
        nargs="+",
        type=float,
        metavar="FACTOR",
        help="of each anchor: how many times as far its latent is to be from their mean",
    )
    sub.add_argument(
        "--lean",
        nargs="+",
        type=float,
        metavar="SHARE",
        help="of each anchor: how far of the way to the anchor before it its latent is to be, then",
    )
    sub.add_argument(
        "--detail",
        type=int,
        default=1,
        metavar="FACTOR",
        help="of a run with overlay: how many times as large the portraits are that it bends",
    )
    sub.add_argument("--name", help="the method's where not given")
    sub.add_argument("--version", default="0.1.0")
    sub.add_argument("--precision", choices=["float32", "float16"], default="float16")
    sub.add_argument("--scale", type=float, default=1.0, help="crop the data was prepared with")
    sub.add_argument("--licence", default="unknown; ask whoever trained it")
    sub.add_argument("--trained-on-data", nargs="+", default=["unnamed data"], metavar="NAME")
    sub.add_argument("--hardware", default="", help="what it was trained on, for the manifest")
    sub.add_argument("--warm-start", type=Path, help="also write half-precision weights here")

    sub = command("sample", _sample, "Draw portraits from noise; method gan alone.")
    sub.add_argument("run", type=Path, nargs="?", default=RUN)
    sub.add_argument("-o", "--output", type=Path, default=Path("sample.png"))
    sub.add_argument("--rows", type=int, default=8, help="rows and columns of the sheet")
    sub.add_argument("--seed", type=int, default=0)

    sub = command("evaluate", _evaluate, "Measure a bundle on prepared portraits.")
    sub.add_argument("bundle", type=Path)
    sub.add_argument("--data", type=Path, default=DATA)
    sub.add_argument("--split", choices=["selection", "test"], default="selection")
    sub.add_argument("--group", help="the bundle's default where not given")
    sub.add_argument("--limit", type=int, default=0, help="portraits; 0 is all")
    sub.add_argument("--judge", type=Path, help="age judge's graph; the bundled one unless given")
    sub.add_argument("--report", type=Path, help="folder for report.json and report.html")
    sub.add_argument("--write", action="store_true", help="write chief figures into the manifest")

    sub = command("compare", _compare, "Show what several bundles make of the same photographs.")
    sub.add_argument("photos", nargs="*", type=Path, help="the largest face of each is taken")
    sub.add_argument(
        "--aligned", nargs="+", type=Path, default=[], help="pictures that are portraits already"
    )
    sub.add_argument("--bundle", nargs="+", type=Path, required=True, help="bundle folders")
    sub.add_argument("-o", "--output", type=Path, default=Path("comparison"))
    sub.add_argument("--parser", type=Path, default=PARSER, help="face parser's graph")

    sub = command("import", _import, "Make a bundle of a published Lifespan checkpoint.")
    sub.add_argument("checkpoint", type=Path, help="latest_net_g_running.pth of one group")
    sub.add_argument("--group", required=True, help="female or male: what the file was trained on")
    sub.add_argument("--resolution", type=int, default=256)
    sub.add_argument("--name")
    sub.add_argument("--precision", choices=["float32", "float16"], default="float16")
    sub.add_argument("-o", "--output", type=Path, default=BUNDLE)

    sub = command("parser", _parser, "Train the face parser on CelebAMask-HQ label maps.")
    sub.add_argument("maps", type=Path, help="folder with images/ and masks/")
    sub.add_argument("-o", "--output", type=Path, default=Path("parser"))
    sub.add_argument("--images", type=int, default=72_000)

    sub = command("judge", _judge, "Train the age judge of evaluate on the training split.")
    sub.add_argument("--data", type=Path, default=DATA, help="what prepare wrote")
    sub.add_argument("-o", "--output", type=Path, default=Path("judge"))
    sub.add_argument("--resolution", type=int, default=64, help="side of what it sees, pixels")
    sub.add_argument("--images", type=int, default=600_000)
    sub.add_argument("--licence", default="unknown; ask whoever trained it")
    sub.add_argument("--trained-on-data", nargs="+", default=["unnamed data"], metavar="NAME")
    sub.add_argument("--hardware", default="", help="what it was trained on, for the record")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; one line explains 2, what the user can mend, and 3, a failed run."""
    arguments = arguments_parser().parse_args(argv)
    try:
        return arguments.run_command(arguments)
    except (ConfigError, DataError, BundleError, ExportError, LostProcess, OSError) as error:
        print(f"anchorage-train: {error}", file=sys.stderr)
        return 2
    except CollapseError as error:
        print(f"anchorage-train: the run failed: {error}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
