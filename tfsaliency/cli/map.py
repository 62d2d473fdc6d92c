"""The command `tfsaliency map`: saliency maps of photos, as pictures and numbers."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..arrays import REDUCTIONS, Array, batches
from ..errors import TfSaliencyError
from ..image_io import Fit
from ..maps import saliency_map
from ..methods.table import Method
from ..prepared import Prepared
from ..saliency_maps import SaliencyMaps, concatenate
from ..visualization.tiles import tile_input_and_maps
from .options import (
    PNG_DPI,
    add_photo_options,
    choose_methods,
    complain,
    load,
    load_class_names,
    number,
    parse_target,
    say,
)
from .photos import Photo, check_out, name_images, picture_names, read_photos

_BATCH = 8
_SIGNS = {"sum": "; red raises it, blue lowers it"}
_ONE_PERCENT = 0.005  # the smallest probability that rounds to 1 %
_ROUNDING = 1e-3  # tolerance of the sum of probabilities


@dataclass(frozen=True, eq=False)
class _Job:
    """The options that all batches of photos share."""

    prepared: Prepared
    class_names: list[str] | None
    methods: Sequence[Method]
    target: Any
    reduction: Any
    fit: Fit
    top: int
    out: Path


def add_command(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = commands.add_parser(
        "map",
        help="draw the saliency maps of photos",
        description="Classify photos, compute their saliency maps, and write a picture of each "
        "photo and all the maps as numbers (maps.npz) to a folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_photo_options(parser)
    parser.add_argument(
        "--reduction",
        choices=REDUCTIONS,
        help="reduction of channels; by default, each method's own",
    )
    parser.add_argument("--top", type=number, default=1, metavar="N", help="classes to print")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    loaded, prepared = load(arguments)
    job = _Job(
        prepared,
        load_class_names(arguments, loaded),
        choose_methods(arguments),
        parse_target(arguments),
        arguments.reduction,
        arguments.fit,
        arguments.top,
        arguments.out,
    )
    photos = list(picture_names(arguments.photos).items())
    check_out(job.out, photos)
    job.out.mkdir(parents=True, exist_ok=True)
    done: list[SaliencyMaps] = []
    lines: list[str] = []
    problems: list[TfSaliencyError] = []
    # Lines are printed at the end, so that they do not interrupt the progress bar.
    with _progress(len(photos)) as advance:
        for part in batches(len(photos), _BATCH):
            read = read_photos(photos[part], job.prepared, job.fit, problems)
            if read:
                maps, found = _explain(job, read)
                done.append(maps)
                lines += found
            advance(part.stop)
    if done:
        joined = concatenate(done)
        joined.save(job.out / "maps.npz")
        lines.append(str(joined.coverage))
        lines.append(
            f"Wrote {len(joined.names)} of {len(photos)} pictures, and maps.npz, to {job.out}"
        )
        for problem in joined.problems:
            say(f"warning: {problem.describe(name_images(problem, joined.names))}")
    print("\n".join(lines), end="\n" if lines else "")
    return max([complain(problem) for problem in problems], default=0)


def _explain(job: _Job, photos: list[Photo]) -> tuple[SaliencyMaps, list[str]]:
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
    lines, signs = [], _SIGNS.get(job.reduction or "", "")
    for i, photo in enumerate(photos):
        outputs = maps.outputs[i]
        ranked = np.argsort(outputs)[::-1][: job.top]
        captions = (_caption(job.class_names, outputs, k) for k in ranked)
        lines.append(f"{photo.path}: {', '.join(captions)}")
        figure = tile_input_and_maps(
            images[i],
            [maps[method][i] for method in maps],
            [_caption(job.class_names, outputs, maps.targets[i]), *maps],
            title=f"Gradient attribution maps of the {maps.score}{signs}",
        )
        figure.savefig(job.out / f"{photo.name}.png", dpi=PNG_DPI, bbox_inches="tight")
    return maps, lines


def _caption(class_names: Sequence[str] | None, outputs: Array, index: int) -> str:
    """Name a class with its confidence, as in the original: "English setter (64%)"."""
    name = class_names[index] if class_names else f"class {index}"
    value = float(outputs[index])
    if len(outputs) == 1:  # a single output is not a class
        return f"output {value:.4g}"
    if outputs.min() < 0 or abs(float(outputs.sum()) - 1) > _ROUNDING:  # not a softmax
        return f"{name} ({value:.4g})"
    return f"{name} (<1%)" if value < _ONE_PERCENT else f"{name} ({value:.0%})"


@contextlib.contextmanager
def _progress(photos: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for many photos, if standard error is a terminal."""
    if photos <= _BATCH or not sys.stderr.isatty():
        yield lambda done: None
        return
    with contextlib.redirect_stdout(sys.stderr):
        bar = keras.utils.Progbar(photos, unit_name="photo")
        yield bar.update
