"""Options that several commands share, and messages of the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..engine.scores import SCORES
from ..errors import OptionError, WeightsError
from ..image_io import FITS
from ..methods.table import DEFAULT_METHODS, METHODS, Method, resolve_methods, with_layer
from ..models.imagenet import imagenet_class_names
from ..models.loading import PREPROCESS_MODES, LoadedModel, load_model, preprocess_mode
from ..prepared import Prepared, prepare

ALL = "all"  # of METHODS
PNG_DPI = 150


def add_photo_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands on photos."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="image files")
    parser.add_argument(
        "--model",
        default="squeezenet",
        help="squeezenet, efficientnetlite0, the name of a keras.applications model, or a .keras "
        "or .h5 file",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights file of a model by name; by default, ImageNet weights",
    )
    parser.add_argument(
        "--preprocess",
        choices=PREPROCESS_MODES,
        help="preprocessing; by default, the model's own, and none for a file",
    )
    parser.add_argument(
        "--methods", nargs="+", choices=[*METHODS, ALL], default=DEFAULT_METHODS,
        metavar="METHOD", help=f"by default, {', '.join(DEFAULT_METHODS)}; any of "
        f"{', '.join(METHODS)}, or {ALL}; put the photos before this option",
    )  # fmt: skip
    parser.add_argument(
        "--layer", help="layer of class activation maps, a name or a path; by default, the best"
    )
    parser.add_argument("--score", choices=SCORES, default="logit", help="score to differentiate")
    parser.add_argument(
        "--class-names", type=Path, metavar="FILE",
        help="names of the classes, one per line; by default, ImageNet's",
    )  # fmt: skip
    parser.add_argument("--target", help="class index or name; by default, each photo's top class")
    parser.add_argument(
        "--fit", choices=FITS, default="crop", help="way to resize photos to the model's input"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")


def choose_methods(arguments: argparse.Namespace) -> tuple[Method, ...]:
    """Return the chosen methods, at the chosen layer."""
    names = list(METHODS) if ALL in arguments.methods else arguments.methods
    return with_layer(resolve_methods(names), arguments.layer)


def load(arguments: argparse.Namespace) -> tuple[LoadedModel, Prepared]:
    """Load the chosen model, and prepare it with its preprocessing and score."""
    loaded = load_model(arguments.model, arguments.weights)
    preprocess = loaded.preprocess
    if arguments.preprocess:
        preprocess = preprocess_mode(arguments.preprocess)
    return loaded, prepare(loaded.model, score=arguments.score, preprocess=preprocess)


def parse_target(arguments: argparse.Namespace) -> int | str | None:
    """Parse the target: an index, a name, or None."""
    text: str | None = arguments.target
    try:
        return None if text is None else int(text)
    except ValueError:
        return text


def load_class_names(arguments: argparse.Namespace, loaded: LoadedModel) -> list[str] | None:
    """Return the names of the classes; None if unknown."""
    path: Path | None = arguments.class_names
    if path is not None:
        try:
            return path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(
                f"Cannot read --class-names {path}: expected one name per line."
            ) from error
    if not loaded.imagenet:
        return None
    try:
        return imagenet_class_names()
    except WeightsError as error:
        complain(f"{error}. Classes are printed as numbers.")
        return None


def number(text: str) -> int:
    """Parse an integer of at least 1; argparse shows the name of this function."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, received {text}")
    return int(text)


def complain(problem: object) -> int:
    """Print a problem as one line on standard error, and return the exit code 2."""
    say(problem)
    return 2


def say(message: object) -> None:
    """Print a message as one line on standard error."""
    print("tfsaliency:", " ".join(str(message).split()), file=sys.stderr)
