"""The parser of the command line; it knows the names of all options without TensorFlow."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from ..errors import unknown_option
from ..tables import (
    DEFAULT_METHODS,
    Fit,
    MethodName,
    PlanName,
    PreprocessMode,
    RandomizerName,
    ReductionName,
    ScoreName,
    SimilarityName,
)
from ..version import __version__

ALL = "all"  # methods
_DEFAULTS = {"methods": DEFAULT_METHODS, "similarities": ("spearman", "ssim")}


class _Parser(argparse.ArgumentParser):
    """A parser with one-line errors, which suggest the nearest name for an unknown one."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            kind = str(action.metavar or action.dest).lower()
            raise argparse.ArgumentError(action, str(unknown_option(kind, value, action.choices)))

    @property
    def options(self) -> list[str]:
        """The names of the long options."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.rstrip('.')}; see {self.prog} --help\n")


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
            own.error("the following arguments are required: PHOTO")
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


def is_pattern(word: str) -> bool:
    """Return whether a word has a wildcard."""
    return bool(set(word) & set("*?["))


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
    return list(dict.fromkeys(names)) or list(_DEFAULTS[option])


def _make_parsers() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(prog="tfsaliency", description="Saliency maps of Keras image networks.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    adders = {
        "demo": _add_demo,
        "map": _add_map,
        "check": _add_check,
        "evaluate": _add_evaluate,
        "report": _add_report,
    }
    return parser, {name: add(commands) for name, add in adders.items()}


def _add_demo(commands: Any) -> _Parser:
    parser = _add_command(
        commands,
        "demo",
        "show all features on generated pictures, offline",
        "Explain generated pictures with known relevant pixels, check whether the maps depend on "
        "the network's weights and labels, measure them against the true masks, and write "
        "pictures, tables and numbers to a folder. Takes about a minute.",
    )
    parser.add_argument(
        "--out", type=_folder, default=Path("demo"), metavar="DIR",
        help="output folder; by default, demo",
    )  # fmt: skip
    return _with_overwrite(parser)


def _add_map(commands: Any) -> _Parser:
    parser = _add_command(
        commands,
        "map",
        "draw the saliency maps of photos",
        "Classify photos, compute their saliency maps, and write a picture of each photo and all "
        "the maps as numbers (maps.npz) to a folder. What is done is written every few photos.",
    )
    _add_photo_options(parser)
    parser.add_argument(
        "--reduction",
        choices=get_args(ReductionName),
        help="reduction of channels; by default, each method's own",
    )
    parser.add_argument("--top", type=_number, default=1, metavar="N", help="classes to print")
    parser.add_argument(
        "--overlay", action="store_true", help="draw the maps over the photos, which turn gray"
    )
    _add_out(parser)
    return _with_overwrite(parser)


def _add_check(commands: Any) -> _Parser:
    parser = _add_command(
        commands,
        "check",
        "check whether maps depend on the network's weights",
        "Randomize the weights of a network layer by layer, compare the maps with those of the "
        "trained network, print a verdict on each method, and write result.npz, result.json, "
        "curves.png and maps.png to a folder. Give at least 8 photos of different things.",
    )
    _add_photo_options(parser)
    _add_check_options(parser)
    _add_out(parser)
    return _with_overwrite(parser)


def _add_evaluate(commands: Any) -> _Parser:
    parser = _add_command(
        commands,
        "evaluate",
        "measure maps against masks of the relevant pixels",
        "Explain photos whose relevant pixels are known, measure the maps beside controls that use "
        "no network, and write metrics.npz, metrics.csv, metrics.png and pictures.png to a folder. "
        "Give at least 8 photos.",
    )
    _add_photo_options(parser)
    parser.add_argument(
        "--masks", type=Path, required=True, metavar="DIR",
        help="folder of masks, images with the photos' names and sizes; pixels other than 0 are "
        "relevant",
    )  # fmt: skip
    _add_out(parser)
    return _with_overwrite(parser)


def _add_report(commands: Any) -> _Parser:
    parser = _add_command(
        commands,
        "report",
        "write one HTML file of maps, verdicts and metrics",
        "Write a report to one HTML file that can be mailed. Give the folders that map, check and "
        "evaluate wrote, or their .npz files; or give photos, which are explained and checked now.",
    )
    _add_photo_options(parser, "RESULT or PHOTO", "folders of results, .npz files, or photos")
    _add_check_options(parser)
    parser.add_argument(
        "--no-check", action="store_true", help="leave out the check of photos, which takes longest"
    )
    parser.add_argument("--title", default="Saliency report", help="title of the page")
    parser.add_argument(
        "--out", type=_path, default=Path("report.html"), metavar="FILE",
        help="output file; by default, report.html",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser


def _add_check_options(parser: _Parser) -> None:
    """Add the options of sanity checks."""
    parser.add_argument(
        "--plan", nargs="+", default=["cascade"], metavar="PLAN",
        help=f"{', '.join(get_args(PlanName))}, or names of layers, one per step; a+b for two in "
        "one step; by default, cascade",
    )  # fmt: skip
    parser.add_argument(
        "--randomizer", choices=get_args(RandomizerName), default="initializer",
        help="distribution of the new weights; by default, initializer",
    )  # fmt: skip
    parser.add_argument(
        "--similarities", nargs="+", default=list(_DEFAULTS["similarities"]), metavar="SIMILARITY",
        help="similarities to report with the verdict; by default, spearman and ssim; any of "
        f"{', '.join(get_args(SimilarityName))}",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=_number, default=4, metavar="N",
        help="random networks per step; by default, 4",
    )  # fmt: skip


def _add_command(commands: Any, name: str, brief: str, text: str) -> _Parser:
    added: _Parser = commands.add_parser(name, help=brief, description=text)
    return added


def _add_photo_options(
    parser: _Parser,
    name: str = "PHOTO",
    what: str = "image files, folders of them, or patterns such as 'photos/*.jpg'",
) -> None:
    """Add the options of commands on photos."""
    parser.add_argument("photos", nargs="*", metavar=name, help=what)
    parser.add_argument(
        "--model",
        default="squeezenet",
        help="squeezenet (the default), efficientnetlite0, the name of a keras.applications model, "
        "or a .keras or .h5 file",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights file of a model by name; by default, ImageNet weights",
    )
    parser.add_argument(
        "--preprocess",
        choices=get_args(PreprocessMode),
        help="preprocessing; by default, the model's own, and none for a file",
    )
    parser.add_argument(
        "--methods", nargs="+", default=list(DEFAULT_METHODS), metavar="METHOD",
        help=f"by default, {', '.join(DEFAULT_METHODS)}; any of "
        f"{', '.join(get_args(MethodName))}, or {ALL}",
    )  # fmt: skip
    parser.add_argument(
        "--layer", help="layer of class activation maps, a name or a path; by default, the best"
    )
    parser.add_argument(
        "--score", choices=get_args(ScoreName),
        help="score to differentiate; by default, the logit, if the outputs are classes",
    )  # fmt: skip
    parser.add_argument(
        "--class-names", type=Path, metavar="FILE",
        help="names of the classes, one per line; by default, ImageNet's",
    )  # fmt: skip
    parser.add_argument("--target", help="class index or name; by default, each photo's top class")
    parser.add_argument(
        "--fit", choices=get_args(Fit), default="crop",
        help="way to resize photos to the model's input; by default, crop",
    )  # fmt: skip
    parser.add_argument(
        "--size", nargs=2, type=_number, metavar=("H", "W"),
        help="size of the photos in pixels, for a model of any size",
    )  # fmt: skip


def _add_out(parser: _Parser) -> None:
    parser.add_argument("--out", type=_folder, required=True, metavar="DIR", help="output folder")


def _with_overwrite(parser: _Parser) -> _Parser:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files of an earlier run with other options",
    )
    return parser


def _folder(text: str) -> Path:
    """Parse the path of a folder."""
    return _path(text, "folder")


def _path(text: str, what: str = "file") -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a {what}, received an empty name")
    return Path(text)


def _number(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, received {text}")
    return int(text)
