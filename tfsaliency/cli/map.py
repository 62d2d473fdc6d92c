"""The command `tfsaliency map`: saliency maps of photos, as pictures and numbers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array, batches
from ..diagnostics import Problem, shift_problems
from ..display.progress import Progress
from ..errors import TfSaliencyError
from ..maps import name_methods, saliency_map
from ..methods.table import Method
from ..prepared import Prepared
from ..records import ModelDigest, digest_model
from ..saliency_maps import SaliencyMaps
from ..saliency_maps.files import join_files
from ..tables import DEFAULT_METHODS, Fit
from ..visualization.maps_figure import plot_maps
from ..visualization.tiles import tile_input_and_maps
from .options import choose_methods, load, load_class_names, parse_target
from .output import claimed_folder, complain, say, tell, write_figure
from .photos import Photo, check_pictures, find_photos, name_images, picture_names, read_photos

_BATCH = 8
_MAPS = "maps.npz"
_SIGNS = {"sum": "; red raises it, blue lowers it"}


@dataclass(eq=False)
class _Job:
    """The options that all batches of photos share, and what is done."""

    prepared: Prepared
    identity: ModelDigest
    class_names: list[str] | None
    methods: Sequence[Method]
    target: Any
    reduction: Any
    fit: Fit
    size: Any
    top: int
    overlay: bool
    out: Path
    finished: bool = False
    parts: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    errors: list[TfSaliencyError] = field(default_factory=list)


def run(arguments: argparse.Namespace) -> int:
    """Run the command, and return its exit code.

    The maps of each batch are written when it is done, and joined at the end or after Ctrl-C.
    """
    arguments.photos = find_photos(arguments.photos)
    photos = list(picture_names(arguments.photos).items())
    names = [name for _, name in photos]
    check_pictures(arguments.out, [path for path, _ in photos], names)
    parts = [_part_name(part.start) for part in batches(len(photos), _BATCH)]
    with claimed_folder(arguments, [*(f"{name}.png" for name in names), _MAPS, *parts]) as out:
        loaded, prepared = load(arguments)
        job = _Job(
            prepared,
            digest_model(loaded.model),
            load_class_names(arguments, loaded),
            choose_methods(arguments),
            parse_target(arguments),
            arguments.reduction,
            arguments.fit,
            arguments.size,
            arguments.top,
            arguments.overlay,
            out,
        )
        try:
            _explain_all(job, photos)
            _finish(job, len(photos), arguments.out)
        except KeyboardInterrupt as interrupt:
            _finish(job, len(photos), arguments.out)
            kept = f"{len(job.names)} of {len(photos)} photos are done, in {arguments.out}"
            raise KeyboardInterrupt(kept) from interrupt
        except BaseException:
            if job.parts and not job.finished:
                files = ", ".join(part.name for part in job.parts)
                say(f"The maps of {len(job.names)} photos are in {arguments.out}: {files}.")
            raise
    return max([complain(problem) for problem in job.errors], default=0)


def _explain_all(job: _Job, photos: list[tuple[str, str]]) -> None:
    # Lines are printed at the end, so that they do not interrupt the progress bar.
    with Progress("auto", len(photos), "photo", name_methods(job.methods)) as progress:
        for part in batches(len(photos), _BATCH):
            with progress.part(len(photos[part])):
                read = read_photos(photos[part], job.prepared, job.fit, job.size, job.errors)
                if read:
                    _explain(job, read, job.out / _part_name(part.start))


def _part_name(start: int) -> str:
    return f"maps-{start // _BATCH + 1:04d}.npz"


def _finish(job: _Job, photos: int, out: Path) -> None:
    """Join the maps that are done, and print what was found; once."""
    if job.finished:
        return
    if job.parts:
        coverage = join_files(job.parts, job.out / _MAPS)
        job.finished = True
        for part in job.parts:
            part.unlink()
        job.lines.append(str(coverage))
        job.lines.append(f"Wrote {len(job.names)} of {photos} pictures, and {_MAPS}, to {out}")
    for problem in _merged(job.problems):
        say(f"warning: {problem.describe(name_images(problem, job.names))}")
    if job.lines:
        tell("\n".join(job.lines))


def _merged(problems: Sequence[Problem]) -> list[Problem]:
    """Join problems of the same cause, methods and detail in several batches."""
    images: dict[tuple[Any, ...], tuple[int, ...]] = {}
    for each in problems:
        key = each.cause, each.methods, each.detail
        images[key] = images.get(key, ()) + each.images
    return [Problem(cause, found, *rest) for (cause, *rest), found in images.items()]


def _explain(job: _Job, photos: list[Photo], part: Path) -> None:
    """Explain a batch of photos, and write its maps and pictures."""
    images = np.concatenate([photo.pixels for photo in photos])
    maps = replace(
        saliency_map(
            job.prepared,
            images,
            job.methods,
            targets=job.target,
            class_names=job.class_names,
            reduction=job.reduction,
            batch_size=_BATCH,
            on_problem="ignore",  # printed at the end, with the names of the photos
        ),
        names=tuple(photo.path for photo in photos),
    )
    settings = {**maps.settings, "weights": f"sha256 {job.identity.weights}"}
    record = maps.record and replace(maps.record, model=job.identity)
    maps = replace(maps, settings=settings, record=record)
    maps.save(part)
    job.parts.append(part)
    job.problems += shift_problems(maps.problems, len(job.names))
    job.names += maps.names
    signs = _SIGNS.get(job.reduction or "", "")
    for i, photo in enumerate(photos):
        renamed = "" if Path(photo.path).stem == photo.name else f" (drawn in {photo.name}.png)"
        job.lines.append(f"{photo.path}: {_answers(job, maps, i)}{renamed}")
        what = "Gradient attribution maps" if set(maps) <= set(DEFAULT_METHODS) else "Maps"
        title = f"{what} of the {maps.score}{signs}"
        figure = _draw(job, maps.select(i), images[i], title)
        write_figure(figure, job.out / f"{photo.name}.png", bbox_inches="tight")


def _draw(job: _Job, maps: SaliencyMaps, image: Array, title: str) -> Any:
    """Draw the maps of one photo beside it, or over it."""
    if job.overlay:
        return plot_maps(maps, overlay=True, title=title)
    return tile_input_and_maps(image, maps, [maps.caption(0), *maps], title=title)


def _answers(job: _Job, maps: SaliencyMaps, i: int) -> str:
    """Name the top classes of an image, and the explained one if it was chosen."""
    values = maps.class_values(i)
    captions = [maps.caption(i, int(k)) for k in np.argsort(values)[::-1][: job.top]]
    return ", ".join(captions) + ("" if job.target is None else f"; explained: {maps.caption(i)}")
