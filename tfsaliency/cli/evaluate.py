"""The command `tfsaliency evaluate`: maps measured against masks of the relevant pixels."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..arrays import Array
from ..engine.targets import resolve_targets
from ..errors import ImageError, OptionError, TfSaliencyError
from ..evaluation import evaluate
from ..image_io import load_images
from ..maps import saliency_map
from ..prepared import Prepared
from ..synthetic import GroundTruth
from ..tables import Fit
from ..visualization.evaluation_figures import plot_evaluation, tile_ground_truth
from .options import choose_methods, load, load_class_names, parse_target
from .output import claimed_folder, complain, say, tell, write_figure
from .photos import (
    Photo,
    check_pictures,
    find_photos,
    is_image,
    name_images,
    picture_names,
    read_photos,
)

_PICTURES = ("metrics", "pictures")
_FILES = ("metrics.npz", "metrics.csv", "metrics.png", "pictures.png")
_SHOWN = 8
_HALF = 127.5  # of 255, at the edges of a resized mask
_ONE_CHANNEL = ("1", "L", "P", "I", "I;16", "F")  # a palette's numbers are classes


def run(arguments: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    arguments.photos = find_photos(arguments.photos)
    check_pictures(arguments.out, arguments.photos, _PICTURES)
    problems: list[TfSaliencyError] = []
    with claimed_folder(arguments, _FILES) as out:
        masks = _list_masks(arguments.masks)
        loaded, prepared = load(arguments)
        photos = list(picture_names(arguments.photos).items())
        read, shown = [], []
        for photo in read_photos(photos, prepared, arguments.fit, arguments.size, problems):
            try:
                shown.append(_read_mask(photo, masks, arguments.fit))
                read.append(photo)
            except TfSaliencyError as error:
                problems.append(error)
        if read:
            names = load_class_names(arguments, loaded)
            images = np.concatenate([photo.pixels for photo in read])
            labels = _labels(arguments, prepared, images, names)
            data = GroundTruth(images, labels, np.stack(shown))
            _evaluate(arguments, prepared, data, [photo.path for photo in read], out)
    return max([complain(problem) for problem in problems], default=0)


def _labels(
    arguments: argparse.Namespace, prepared: Prepared, images: Array, names: list[str] | None
) -> Array:
    """Return the class to explain for each photo, (n,)."""
    target = parse_target(arguments)
    if target is not None:
        return resolve_targets(target, len(images), names)
    say("no --target: the top class of each photo is explained, and counts as correct")
    return saliency_map(prepared, images, on_problem="ignore").targets


def _evaluate(
    arguments: argparse.Namespace,
    prepared: Prepared,
    data: GroundTruth,
    photos: Sequence[str],
    out: Path,
) -> None:
    """Measure the maps, print the result, and write the files."""
    methods = choose_methods(arguments)
    result = evaluate(prepared, data, methods, on_problem="ignore")
    tell(f"{result}\n")
    for problem in result.problems:
        say(f"warning: {problem.describe(name_images(problem, photos))}")
    result.save(out / "metrics.npz")
    result.to_csv(out / "metrics.csv")
    write_figure(plot_evaluation(result), out / "metrics.png")
    few = GroundTruth(data.images[:_SHOWN], data.labels[:_SHOWN], data.masks[:_SHOWN])
    maps = saliency_map(prepared, few.images, methods, targets=few.labels, on_problem="ignore")
    captions = [Path(photo).name for photo in photos[:_SHOWN]]
    title = "Photos and their maps; blue: outline of the relevant pixels"
    write_figure(tile_ground_truth(few, maps, captions, title), out / "pictures.png")
    tell(f"Wrote {', '.join(_FILES[:-1])} and {_FILES[-1]} to {arguments.out}")


def _list_masks(folder: Path) -> dict[str, Path]:
    """Return the masks in a folder by their names, without suffix."""
    if not folder.is_dir():
        raise OptionError(f"Expected --masks as a folder of images. Received: {folder}.")
    return {path.stem: path for path in sorted(folder.iterdir()) if is_image(path)}


def _read_mask(photo: Photo, masks: Mapping[str, Path], fit: Fit) -> Array:
    """Read the mask of a photo, cut and resized as the photo is, (h, w)."""
    path = masks.get(Path(photo.path).stem)
    if path is None:
        raise ImageError(f"{photo.path}: no mask. Expected an image of its name in --masks.")
    with Image.open(photo.path) as image:
        size = ImageOps.exif_transpose(image).size
    try:
        with Image.open(path) as mask:
            pixels = np.asarray(mask if mask.mode in _ONE_CHANNEL else mask.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{path}: cannot be read as an image ({error}).") from error
    relevant = pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(axis=-1)
    if relevant.shape[::-1] != size:
        raise ImageError(
            f"{path}: Expected a mask of the photo's size, {size[0]} x {size[1]} pixels. Received: "
            f"{relevant.shape[1]} x {relevant.shape[0]}."
        )
    whole = Image.fromarray(np.uint8(255) * relevant.astype(np.uint8))
    resized = load_images(whole.convert("RGB"), size=photo.pixels.shape[1:3], fit=fit)
    return np.asarray(resized[0, ..., 0] > _HALF)
