"""The command `tfsaliency evaluate`: maps measured beside controls, with or without masks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..arrays import Array
from ..engine.targets import resolve_targets
from ..errors import ImageError, OptionError, TfSaliencyError
from ..evaluation import evaluate
from ..image_io import load_mask
from ..maps import saliency_map
from ..prepared import Prepared
from ..synthetic import GroundTruth
from ..tables import Fit
from ..visualization.evaluation_figures import plot_evaluation, tile_ground_truth
from ..visualization.maps_figure import short_name
from .options import choose_methods, load, load_class_names, parse_target
from .output import claimed_folder, complain, say, tell, write_figure
from .photos import (
    Photo,
    check_pictures,
    find_photos,
    name_images,
    picture_names,
    read_photos,
)

_PICTURES = ("metrics", "pictures")
_FILES = ("metrics.npz", "metrics.csv", "metrics.png", "pictures.png")
_SHOWN = 8
_LOSSLESS = (".png", ".bmp", ".gif", ".tif", ".tiff")


def run(arguments: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    arguments.photos = find_photos(arguments.photos)
    check_pictures(arguments.out, arguments.photos, _PICTURES)
    problems: list[TfSaliencyError] = []
    with claimed_folder(arguments, _FILES) as out:
        masks = None
        if arguments.masks is not None:
            masks = list_masks(arguments.masks)
            _check_names(arguments.photos)
        loaded, prepared = load(arguments)
        photos = list(picture_names(arguments.photos).items())
        read, shown = [], []
        for photo in read_photos(photos, prepared, arguments.fit, arguments.size, problems):
            try:
                if masks is not None:
                    shown.append(mask_of(photo, masks, arguments.fit))
                read.append(photo)
            except TfSaliencyError as error:
                problems.append(error)
        if read:
            names = load_class_names(arguments, loaded)
            images = np.concatenate([photo.pixels for photo in read])
            labels = _labels(arguments, prepared, images, names)
            relevant = np.stack(shown) if shown else None
            paths = [photo.path for photo in read]
            _evaluate(arguments, prepared, images, labels, relevant, paths, names, out)
    return max([complain(problem) for problem in problems], default=0)


def _labels(
    arguments: argparse.Namespace, prepared: Prepared, images: Array, names: list[str] | None
) -> Array:
    """Return the class to explain for each photo, (n,)."""
    target = parse_target(arguments)
    if target is not None:
        return resolve_targets(target, len(images), names)
    say("no --target: the top class of each photo is explained, right or wrong")
    return saliency_map(prepared, images, on_problem="ignore").targets


def _evaluate(
    arguments: argparse.Namespace,
    prepared: Prepared,
    images: Array,
    labels: Array,
    masks: Array | None,
    photos: Sequence[str],
    names: list[str] | None,
    out: Path,
) -> None:
    """Measure the maps, print the result, and write the files."""
    methods = choose_methods(arguments)
    known = None if masks is None else GroundTruth(images, labels, masks)
    result = evaluate(
        prepared,
        images if known is None else known,
        methods,
        metrics=arguments.metrics,
        targets=labels if known is None else None,
        on_problem="ignore",
    )
    # Nobody said what is right: --target only says what to explain.
    result = replace(result, correct=None, images=tuple(photos))
    tell(f"{result}\n")
    for problem in result.problems:
        say(f"warning: {problem.describe(name_images(problem, photos))}")
    result.save(out / "metrics.npz")
    result.to_csv(out / "metrics.csv")
    write_figure(plot_evaluation(result), out / "metrics.png")
    shown, labels = images[:_SHOWN], labels[:_SHOWN]
    maps = saliency_map(prepared, shown, methods, targets=labels, on_problem="ignore")
    maps = replace(maps, class_names=tuple(names or ()))
    captions = [
        f"{short_name(photo)}: {maps.class_name(int(maps.targets[i]))}"
        for i, photo in enumerate(photos[:_SHOWN])
    ]
    left = f"the first {_SHOWN} of {len(photos)}; " if len(photos) > _SHOWN else ""
    title = f"Photos, the explained class, and its maps; {left}"
    if masks is None:
        write_figure(maps.plot(title=title.rstrip("; ")), out / "pictures.png")
    else:
        few = GroundTruth(shown, labels, masks[:_SHOWN])
        title += "blue: outline of the relevant pixels"
        write_figure(tile_ground_truth(few, maps, captions, title), out / "pictures.png")
    tell(f"Wrote {', '.join(_FILES[:-1])} and {_FILES[-1]} to {arguments.out}")


def list_masks(folder: Path) -> dict[str, Path]:
    """Return the masks in a folder by their names, without suffix."""
    if not folder.is_dir():
        raise OptionError(f"Expected --masks as a folder of images. Received: {folder}.")
    masks: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _LOSSLESS and path.is_file():
            _claim(masks, path)
    return masks


def _check_names(photos: Sequence[str]) -> None:
    """Raise OptionError if two photos have the same name, and so the same mask."""
    seen: dict[str, Path] = {}
    for photo in dict.fromkeys(photos):
        _claim(seen, Path(photo))


def _claim(table: dict[str, Path], path: Path) -> None:
    """Add a path to a table by its name, or raise OptionError if another one has it."""
    if path.stem in table:
        raise OptionError(
            "Expected photos and masks of different names, without suffix, to match them. "
            f"Received: {table[path.stem]} and {path}."
        )
    table[path.stem] = path


def mask_of(photo: Photo, masks: Mapping[str, Path], fit: Fit) -> Array:
    """Read the mask of a photo, (h, w)."""
    path = masks.get(Path(photo.path).stem)
    if path is None or path.resolve() == Path(photo.path).resolve():
        raise ImageError(
            f"{photo.path}: no mask. Expected an image of its name in --masks, in a lossless "
            f"format: {', '.join(_LOSSLESS)}."
        )
    mask = load_mask(path, photo.path, photo.pixels.shape[1:3], fit)
    if not mask.any():
        raise ImageError(f"{path}: no relevant pixels in the part of the photo that is explained.")
    return mask
