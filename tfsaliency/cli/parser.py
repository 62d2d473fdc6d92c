"""The parser of the command line; it knows the names of all options without TensorFlow."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from ..errors import unknown_option
from ..tables import MethodName, MetricName, PlanName, SimilarityName, is_pattern
from ..version import __version__
from .arguments import (
    ALL,
    DEFAULTS,
    Parser,
    add_check_options,
    add_command,
    add_fit_options,
    add_method_options,
    add_model_options,
    add_out,
    add_photo_options,
    add_reduction,
    as_count,
    as_folder,
    as_number,
    as_path,
    with_overwrite,
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments of the command line, or exit with one line on standard error."""
    parser, commands = _make_parsers()
    arguments, unknown = parser.parse_known_args(argv)
    own = commands[arguments.command]
    if unknown:
        hint = unknown_option("option", unknown[0], own.options)
        own.error(f"unrecognized arguments: {' '.join(unknown)}. {hint}")
    if "photos" in arguments:
        try:
            _sort_methods_and_photos(arguments)
        except argparse.ArgumentTypeError as error:
            own.error(str(error))
        if not arguments.photos:
            own.error(f"the following arguments are required: {own.photos_name}")
    return arguments


def _sort_methods_and_photos(arguments: argparse.Namespace) -> None:
    """Split methods at commas, and take files behind --methods for photos."""
    arguments.methods = _names(arguments, "methods", "method", (*get_args(MethodName), ALL))
    if "similarities" in arguments:
        known = get_args(SimilarityName)
        arguments.similarities = _names(arguments, "similarities", "similarity", known)
    if "plan" in arguments:  # of names that only the model knows
        photos = [word for word in arguments.plan if _is_path(word)]
        arguments.photos += photos
        arguments.plan = [word for word in arguments.plan if word not in photos] or ["cascade"]


def _is_path(word: str) -> bool:
    """Return whether a word behind --plan is a file, a folder or a pattern, and not a layer."""
    return word not in get_args(PlanName) and (os.path.lexists(word) or is_pattern(word))


def _names(
    arguments: argparse.Namespace, option: str, kind: str, known: Sequence[str]
) -> list[str]:
    """Return the names of an option, and move the paths among them to the photos."""
    names: list[str] = []
    for word in getattr(arguments, option):
        parts = [part for part in word.split(",") if part]
        if all(part in known for part in parts):
            names += parts
        elif Path(word).suffix or os.sep in word or os.path.lexists(word):
            arguments.photos.append(word)
        else:
            strange = next(part for part in parts if part not in known)
            raise argparse.ArgumentTypeError(str(unknown_option(kind, strange, known)))
    return list(dict.fromkeys(names)) or list(DEFAULTS[option])


def _make_parsers() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(prog="tfsaliency", description="Saliency maps of Keras image networks.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    adders = {
        "demo": _add_demo,
        "map": _add_map,
        "check": _add_check,
        "compare": _add_compare,
        "evaluate": _add_evaluate,
        "report": _add_report,
        "run": _add_run,
        "verify": _add_verify,
    }
    return parser, {name: add(commands) for name, add in adders.items()}


def _add_demo(commands: Any) -> Parser:
    parser = add_command(
        commands,
        "demo",
        "show all features on generated pictures, offline",
        "Explain generated pictures with known relevant pixels, check whether the maps depend on "
        "the network's weights and labels, measure them against the true masks, and write "
        "pictures, tables and numbers to a folder. Takes about a minute.",
    )
    parser.add_argument(
        "--out", type=as_folder, default=Path("demo"), metavar="DIR",
        help="output folder; by default, demo",
    )  # fmt: skip
    return with_overwrite(parser)


def _add_map(commands: Any) -> Parser:
    parser = add_command(
        commands,
        "map",
        "draw the saliency maps of photos",
        "Classify photos, compute their saliency maps, and write a picture of each photo and all "
        "the maps as numbers (maps.npz) to a folder. What is done is written every few photos.",
    )
    add_photo_options(parser)
    add_reduction(parser)
    parser.add_argument("--top", type=as_number, default=1, metavar="N", help="classes to print")
    parser.add_argument(
        "--overlay", action="store_true", help="draw the maps over the photos, which turn gray"
    )
    add_out(parser)
    return with_overwrite(parser)


def _add_check(commands: Any) -> Parser:
    parser = add_command(
        commands,
        "check",
        "check whether maps depend on the network's weights",
        "Randomize the weights of a network layer by layer, compare the maps with those of the "
        "trained network, print a verdict on each method, and write result.npz, result.json, "
        "curves.png and maps.png to a folder. Give at least 8 photos of different things.",
    )
    add_photo_options(parser)
    add_check_options(parser)
    add_out(parser)
    return with_overwrite(parser)


def _add_compare(commands: Any) -> Parser:
    parser = add_command(
        commands,
        "compare",
        "compare what two versions of a model look at",
        "Explain photos with two models, print how much of the maps both have in common, and write "
        "comparison.npz, comparison.csv and comparison.png to a folder. Give at least 8 photos of "
        "different things. A method that check calls independent says nothing here.",
    )
    what = "squeezenet, efficientnetlite0, a model of keras.applications, or a .keras or .h5 file"
    parser.add_argument("old", metavar="OLD", help=f"the old model: {what}")
    parser.add_argument("new", metavar="NEW", help="the new model")
    parser.add_argument(
        "--images", nargs="+", dest="photos", default=[], metavar="PHOTO",
        help="image files, folders of them, or patterns such as 'photos/*.jpg'",
    )  # fmt: skip
    add_model_options(parser, named=False)
    add_method_options(parser)
    add_fit_options(parser)
    add_out(parser)
    return with_overwrite(parser)


def _add_evaluate(commands: Any) -> Parser:
    parser = add_command(
        commands,
        "evaluate",
        "measure maps by what the network says, or against masks of the relevant pixels",
        "Explain photos, measure the maps beside controls that use no network, and write "
        "metrics.npz, metrics.csv, metrics.png and pictures.png to a folder. Give at least 8 "
        "photos. With --masks, metrics compare maps with the pixels that are known to be relevant; "
        "without, with the network's scores of perturbed photos.",
    )
    add_photo_options(parser)
    parser.add_argument(
        "--masks", type=Path, metavar="DIR",
        help="folder of masks, images with the photos' names and sizes; pixels other than 0 are "
        "relevant",
    )  # fmt: skip
    parser.add_argument(
        "--metrics", nargs="+", choices=get_args(MetricName), metavar="METRIC",
        help=f"{', '.join(get_args(MetricName))} (default: the first four with --masks, else "
        "insertion pixel_flipping_gap)",
    )  # fmt: skip
    add_out(parser)
    return with_overwrite(parser)


def _add_report(commands: Any) -> Parser:
    parser = add_command(
        commands,
        "report",
        "write one HTML file of maps, verdicts and metrics",
        "Write a report to one HTML file that can be mailed. Give the folders that map, check and "
        "evaluate wrote, or their .npz files; or give photos, which are explained and checked now.",
    )
    add_photo_options(parser, "RESULT or PHOTO", "folders of results, .npz files, or photos")
    add_check_options(parser)
    parser.add_argument(
        "--no-check", action="store_true", help="leave out the check of photos, which takes longest"
    )
    parser.add_argument("--title", default="Saliency report", help="title of the page")
    parser.add_argument(
        "--out", type=as_path, default=Path("report.html"), metavar="FILE",
        help="output file; by default, report.html",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser


def _add_run(commands: Any) -> Parser:
    parser = add_command(
        commands,
        "run",
        "explain a data set of any size, in parts; stop and continue at will",
        "Compute the maps of all images of a source, and write them with the answers of the model "
        "to a folder of Parquet files. The same command continues a run that was stopped. An "
        "image that fails is a row with its error. Needs the extra store.",
    )
    add_photo_options(
        parser,
        "SOURCE",
        "a folder, a pattern, image files, or a text, CSV or Parquet file",
    )
    add_reduction(parser)
    parser.add_argument(
        "--batch-size", type=as_number, default=32, metavar="N", help="images at a time"
    )
    parser.add_argument(
        "--part-size", type=as_number, default=256, metavar="N",
        help="images of a part, at most what a stop loses; by default, 256",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=("uint8", "float16"), default="uint8",
        help="code of the values of a map; by default, uint8",
    )  # fmt: skip
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local",
        help="local computes in this process, ray in several",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=as_number, metavar="N",
        help="threads that read (by default 2), or processes of ray (by default 1)",
    )  # fmt: skip
    parser.add_argument("--address", help="address of a Ray cluster; by default, this machine")
    parser.add_argument(
        "--gpus", type=float, default=0, metavar="N", help="GPUs of each process of ray"
    )
    parser.add_argument(
        "--retry-errors", action="store_true", help="compute the rows with errors again"
    )
    parser.add_argument(
        "--max-errors", type=as_count, metavar="N",
        help="end with exit code 3 if more images fail in this call; what is done is kept",
    )  # fmt: skip
    add_out(parser)
    return parser


def _add_verify(commands: Any) -> Parser:
    parser = add_command(
        commands,
        "verify",
        "compute a result again, and name what differs",
        "Compare a folder of run, or a .npz file of map, check or evaluate, with the same "
        "computation done again. The exit code is 0 if it is confirmed, 1 if something differs.",
    )
    parser.add_argument(
        "result", type=as_path, metavar="RESULT", help="folder of run, or .npz file"
    )
    add_model_options(parser)
    add_fit_options(parser)
    parser.add_argument(
        "--source", metavar="SOURCE",
        help="the images of a run or a check; by default, those at the recorded paths",
    )  # fmt: skip
    parser.add_argument(
        "--masks", type=Path, metavar="DIR", help="folder of masks, for a result of evaluate"
    )
    some = parser.add_mutually_exclusive_group()
    some.add_argument(
        "--sample", type=as_number, default=64, metavar="N",
        help="images of a run to compute again; by default, 64",
    )  # fmt: skip
    some.add_argument("--all", action="store_true", help="compute all images of a run again")
    return parser
