"""The command `tfsaliency check`: dependence of maps on the network's weights."""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from ..engine.scores import resolve_targets
from ..errors import TfSaliencyError
from ..sanity import RANDOMIZERS, sanity_check
from ..sanity.plans import PLANS, Plan
from ..similarity import SIMILARITIES
from ..visualization.sanity_figures import plot_similarities, tile_cascade
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
from .photos import check_out, name_images, picture_names, read_photos

_PICTURES = ("curves", "maps")


def add_command(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = commands.add_parser(
        "check",
        help="check whether maps depend on the network's weights",
        description="Randomize the weights of a network layer by layer, compare the maps with "
        "those of the trained network, print a verdict on each method, and write result.npz, "
        "result.json, curves.png and maps.png to a folder. Give at least 8 photos of different "
        "things.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_photo_options(parser)
    parser.add_argument(
        "--plan", nargs="+", default=["cascade"], metavar="PLAN",
        help=f"{', '.join(PLANS)}, or names of layers, one per step; a+b for two in one step",
    )  # fmt: skip
    parser.add_argument(
        "--randomizer",
        choices=RANDOMIZERS,
        default="initializer",
        help="distribution of the new weights",
    )
    parser.add_argument(
        "--similarities", nargs="+", choices=SIMILARITIES, default=["spearman", "ssim"],
        metavar="SIMILARITY", help="similarities to report with the verdict; "
        f"any of {', '.join(SIMILARITIES)}",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=number, default=4, metavar="N", help="random networks per step"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    loaded, prepared = load(arguments)
    out = arguments.out
    check_out(out, [(photo, name) for photo in arguments.photos for name in _PICTURES])
    problems: list[TfSaliencyError] = []
    photos = list(picture_names(arguments.photos).items())
    if len(photos) < len(arguments.photos):
        say("warning: repeated photos are used once")
    read = read_photos(photos, prepared, arguments.fit, problems)
    if read:
        target = parse_target(arguments)
        names = load_class_names(arguments, loaded) if isinstance(target, str) else None
        with contextlib.redirect_stdout(sys.stderr):
            result = sanity_check(
                prepared,
                np.concatenate([photo.pixels for photo in read]),
                choose_methods(arguments),
                plan=_plan(arguments.plan),
                randomizer=arguments.randomizer,
                similarities=arguments.similarities,
                seeds=arguments.seeds,
                targets=None if target is None else resolve_targets(target, len(read), names),
                on_problem="ignore",  # printed below, with the names of the photos
                verbose=int(sys.stderr.isatty()),
            )
        result = replace(result, images=tuple(photo.path for photo in read))
        out.mkdir(parents=True, exist_ok=True)
        result.save(out / "result.npz")
        result.to_json(out / "result.json")
        for name, draw in zip(_PICTURES, (plot_similarities, tile_cascade), strict=True):
            draw(result).savefig(out / f"{name}.png", dpi=PNG_DPI, bbox_inches="tight")
        for problem in result.problems:
            say(f"warning: {problem.describe(name_images(problem, result.images))}")
        print(f"{result}\n\nWrote result.npz, result.json, curves.png and maps.png to {out}")
    return max([complain(problem) for problem in problems], default=0)


def _plan(words: list[str]) -> Plan:
    """Parse a plan: one of PLANS, or a list of layers for each step.

    >>> _plan(["cascade"]), _plan(["fc1+fc2", "fc2"])
    ('cascade', [['fc1', 'fc2'], ['fc2']])
    """
    if len(words) == 1 and words[0] in PLANS:
        return words[0]
    return [word.split("+") for word in words]
