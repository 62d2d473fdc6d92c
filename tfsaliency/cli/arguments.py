"""Arguments that several commands share, their types, and the parser with its errors."""

from __future__ import annotations

import argparse
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

ALL = "all"  # methods
DEFAULTS = {"methods": DEFAULT_METHODS, "similarities": ("spearman", "ssim")}


class Parser(argparse.ArgumentParser):
    """A parser with one-line errors, which suggest the nearest name for an unknown one."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            kind = str(action.metavar or action.dest).lower()
            raise argparse.ArgumentError(action, str(unknown_option(kind, value, action.choices)))

    @property
    def photos_name(self) -> str:
        """The name of the photos in the usage."""
        return next(str(action.metavar) for action in self._actions if action.dest == "photos")

    @property
    def options(self) -> list[str]:
        """The names of the long options."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def error(self, message: str) -> NoReturn:
        """Exit with one line on standard error, and the code 2."""
        self.exit(2, f"{self.prog}: {message.rstrip('.')}; see {self.prog} --help\n")


def add_check_options(parser: Parser) -> None:
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
        "--similarities", nargs="+", default=list(DEFAULTS["similarities"]), metavar="SIMILARITY",
        help="similarities to report with the verdict; by default, spearman and ssim; any of "
        f"{', '.join(get_args(SimilarityName))}",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=as_number, default=4, metavar="N",
        help="random networks per step; by default, 4",
    )  # fmt: skip


def add_command(commands: Any, name: str, brief: str, text: str) -> Parser:
    """Add a command with its help and its description."""
    added: Parser = commands.add_parser(name, help=brief, description=text)
    return added


def add_photo_options(
    parser: Parser,
    name: str = "PHOTO",
    what: str = "image files, folders of them, or patterns such as 'photos/*.jpg'",
) -> None:
    """Add the options of commands on photos."""
    parser.add_argument("photos", nargs="*", metavar=name, help=what)
    add_model_options(parser)
    add_method_options(parser)
    add_fit_options(parser)


def add_method_options(parser: Parser) -> None:
    """Add the options of what is explained, and how."""
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


def add_fit_options(parser: Parser) -> None:
    """Add the options of reading photos."""
    parser.add_argument(
        "--fit", choices=get_args(Fit), default="crop",
        help="way to resize photos to the model's input; by default, crop",
    )  # fmt: skip
    parser.add_argument(
        "--size", nargs=2, type=as_number, metavar=("H", "W"),
        help="size of the photos in pixels, for a model of any size",
    )  # fmt: skip


def add_model_options(parser: Parser, named: bool = True) -> None:
    """Add the options of the model; its name too, if it is an option."""
    if named:
        parser.add_argument(
            "--model",
            default="squeezenet",
            help="squeezenet (the default), efficientnetlite0, the name of a keras.applications "
            "model, or a .keras or .h5 file",
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


def add_reduction(parser: Parser) -> None:
    """Add the reduction of channels."""
    parser.add_argument(
        "--reduction", choices=get_args(ReductionName),
        help="reduction of channels; by default, each method's own",
    )  # fmt: skip


def add_out(parser: Parser) -> None:
    """Add the output folder."""
    parser.add_argument("--out", type=as_folder, required=True, metavar="DIR", help="output folder")


def with_overwrite(parser: Parser) -> Parser:
    """Return a parser with the option to replace files."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files of an earlier run with other options",
    )
    return parser


def as_folder(text: str) -> Path:
    """Parse the path of a folder."""
    return as_path(text, "folder")


def as_path(text: str, what: str = "file") -> Path:
    """Parse the path of a file."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a {what}, received an empty name")
    return Path(text)


def as_count(text: str) -> int:
    """Parse an integer of at least 0."""
    return 0 if text == "0" else as_number(text)


def as_number(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, received {text}")
    return int(text)
