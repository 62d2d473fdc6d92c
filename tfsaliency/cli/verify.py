"""The command `tfsaliency verify`: a result computed again, and what differs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array
from ..datasets import verify
from ..errors import OptionError, TfSaliencyError
from ..evaluation import Evaluation
from ..models.loading import LoadedModel
from ..prepared import Prepared, prepare
from ..sanity import SanityResult
from ..storage import read_kind
from ..synthetic import GroundTruth
from .evaluate import list_masks, mask_of
from .options import load_with_preprocessing
from .output import tell
from .photos import Photo, find_photos, read_photos

DIFFERS = 1  # exit code
_NAMED = 3  # photos in an error


def run(arguments: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    loaded = load_with_preprocessing(arguments)
    result, data = _open(arguments, loaded)
    sample = None if arguments.all else arguments.sample
    found = verify(result, loaded.model, data, preprocess=loaded.preprocess, sample=sample)
    tell(str(found))
    return 0 if found.confirmed else DIFFERS


def _open(arguments: argparse.Namespace, loaded: LoadedModel) -> tuple[Any, Any]:
    """Return the result, and the images that it does not contain."""
    path: Path = arguments.result
    kind = "" if path.is_dir() else read_kind(path)
    prepared = prepare(loaded.model, preprocess=loaded.preprocess)
    if kind == "SanityResult":
        check = SanityResult.load(path)
        photos = _read(arguments, prepared, check.images)
        return check, np.concatenate([photo.pixels for photo in photos])
    if kind == "Evaluation":
        evaluation = Evaluation.load(path)
        photos = _read(arguments, prepared, evaluation.images)
        images = np.concatenate([photo.pixels for photo in photos])
        record = evaluation.record
        if record is not None and record.parameters.get("masks", "") is None:
            return evaluation, images
        if arguments.masks is None:
            raise OptionError("Expected --masks, the folder of evaluate. Received: none.")
        masks = list_masks(arguments.masks)
        inside = np.stack([mask_of(photo, masks, arguments.fit) for photo in photos])
        return evaluation, GroundTruth(images, _labels(evaluation), inside)
    if kind in ("CSCProfile", "InputInvariance"):  # which have no names of photos
        listed = [] if arguments.source is None else find_photos([arguments.source])
        photos = _read(arguments, prepared, listed)
        return path, np.concatenate([photo.pixels for photo in photos])
    return path, arguments.source


def _labels(evaluation: Evaluation) -> Array:
    record = evaluation.record
    return np.array([] if record is None else record.parameters["labels"])


def _read(
    arguments: argparse.Namespace, prepared: Prepared, recorded: Sequence[str]
) -> list[Photo]:
    """Read the recorded photos, at their paths or by their names in --source."""
    paths = list(recorded)
    if arguments.source is not None:
        found = {os.path.basename(path): path for path in find_photos([arguments.source])}
        paths = [found.get(os.path.basename(path), path) for path in paths]
    missing = [path for path in paths if not os.path.exists(path)]
    if missing or not paths:
        which = ", ".join(missing[:_NAMED]) or "a result without names of photos"
        raise OptionError(
            "Expected the photos of the result at their recorded paths, or a folder of them as "
            f"--source. Received: none for {which}."
        )
    problems: list[TfSaliencyError] = []
    photos = read_photos(
        [(path, path) for path in paths], prepared, arguments.fit, arguments.size, problems
    )
    if problems:
        raise problems[0]
    return photos
