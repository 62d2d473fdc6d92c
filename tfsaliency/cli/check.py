"""The command `tfsaliency check`: dependence of maps on the network's weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..engine.targets import resolve_targets
from ..errors import TfSaliencyError
from ..models.loading import LoadedModel
from ..prepared import Prepared
from ..sanity import SanityResult, sanity_check
from ..sanity.plans import PLANS, Plan
from ..visualization.sanity_figures import plot_similarities, tile_cascade
from .options import choose_methods, load, load_class_names, parse_target
from .output import claimed_folder, complain, say, tell, write_figure
from .photos import Photo, check_pictures, find_photos, name_images, picture_names, read_photos

_PICTURES = ("curves", "maps")
_FILES = ("result.npz", "result.json", "curves.png", "maps.png")


def run(arguments: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    arguments.photos = find_photos(arguments.photos)
    check_pictures(arguments.out, arguments.photos, _PICTURES)
    problems: list[TfSaliencyError] = []
    with claimed_folder(arguments, _FILES) as out:
        loaded, prepared = load(arguments)
        photos = list(picture_names(arguments.photos).items())
        if len(photos) < len(arguments.photos):
            say("warning: repeated photos are used once")
        read = read_photos(photos, prepared, arguments.fit, arguments.size, problems)
        if read:
            result = check_photos(arguments, loaded, prepared, read)
            tell(f"{result}\n")
            for problem in result.problems:
                say(f"warning: {problem.describe(name_images(problem, result.images))}")
            _write(result, out)
            tell(f"Wrote {', '.join(_FILES[:-1])} and {_FILES[-1]} to {arguments.out}")
    return max([complain(problem) for problem in problems], default=0)


def check_photos(
    arguments: argparse.Namespace, loaded: LoadedModel, prepared: Prepared, read: Sequence[Photo]
) -> SanityResult:
    """Run the sanity check that the options choose."""
    target = parse_target(arguments)
    names = load_class_names(arguments, loaded) if isinstance(target, str) else None
    result = sanity_check(
        prepared,
        np.concatenate([photo.pixels for photo in read]),
        choose_methods(arguments),
        plan=_plan(arguments.plan),
        randomizer=arguments.randomizer,
        similarities=arguments.similarities,
        seeds=arguments.seeds,
        targets=None if target is None else resolve_targets(target, len(read), names),
        on_problem="ignore",  # printed with the names of the photos
    )
    return replace(result, images=tuple(photo.path for photo in read))


def _write(result: SanityResult, out: Path) -> None:
    result.save(out / "result.npz")
    result.to_json(out / "result.json")
    for name, draw in zip(_PICTURES, (plot_similarities, tile_cascade), strict=True):
        write_figure(draw(result), out / f"{name}.png", bbox_inches="tight")


def _plan(words: list[str]) -> Plan:
    """Parse a plan: one of PLANS, or a list of layers for each step.

    >>> _plan(["cascade"]), _plan(["fc1+fc2", "fc2"])
    ('cascade', [['fc1', 'fc2'], ['fc2']])
    """
    if len(words) == 1 and words[0] in PLANS:
        return words[0]
    return [word.split("+") for word in words]
