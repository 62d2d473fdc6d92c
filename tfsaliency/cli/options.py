"""The model, methods, target and class names that the options of the command line choose."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import OptionError, WeightsError
from ..methods.table import METHODS, Method, resolve_methods, with_layer
from ..models.imagenet import imagenet_class_names
from ..models.loading import LoadedModel, load_model, preprocess_mode
from ..prepared import Prepared, prepare
from .arguments import ALL
from .output import complain


def choose_methods(arguments: argparse.Namespace) -> tuple[Method, ...]:
    """Return the chosen methods, at the chosen layer."""
    names = list(METHODS) if ALL in arguments.methods else arguments.methods
    return with_layer(resolve_methods(names), arguments.layer)


def load(arguments: argparse.Namespace) -> tuple[LoadedModel, Prepared]:
    """Load the chosen model, and prepare it with its preprocessing and score."""
    loaded = load_with_preprocessing(arguments)
    return loaded, prepare(loaded.model, score=arguments.score, preprocess=loaded.preprocess)


def load_with_preprocessing(arguments: argparse.Namespace, name: str | None = None) -> LoadedModel:
    """Load the chosen model, or another one, with the chosen preprocessing or its own."""
    loaded = load_model(name or arguments.model, arguments.weights)
    if arguments.preprocess:
        return loaded._replace(preprocess=preprocess_mode(arguments.preprocess))
    return loaded


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
            return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise OptionError(
                f"Cannot read --class-names {path} ({reason}). Expected a text file of one name "
                "per line."
            ) from error
    if not loaded.imagenet:
        return None
    try:
        return imagenet_class_names()
    except WeightsError as error:
        complain(f"{error}. Classes are printed as numbers.")
        return None
