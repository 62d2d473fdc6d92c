"""The command `tfsaliency compare`: what two versions of a model look at."""

from __future__ import annotations

import argparse

import numpy as np

from ..engine.targets import resolve_targets
from ..errors import TfSaliencyError
from ..prepared import prepare
from ..sanity import compare_models
from ..visualization.comparison_figure import plot_comparison
from .options import choose_methods, load_class_names, load_with_preprocessing, parse_target
from .output import claimed_folder, complain, tell, write_figure
from .photos import check_pictures, find_photos, picture_names, read_photos

_FILES = ("comparison.npz", "comparison.csv", "comparison.png")


def run(arguments: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    arguments.photos = find_photos(arguments.photos)
    check_pictures(arguments.out, arguments.photos, ["comparison"])
    problems: list[TfSaliencyError] = []
    with claimed_folder(arguments, _FILES) as out:
        loaded = [load_with_preprocessing(arguments, n) for n in (arguments.old, arguments.new)]
        old, new = (
            prepare(each.model, score=arguments.score, preprocess=each.preprocess)
            for each in loaded
        )
        photos = list(picture_names(arguments.photos).items())
        read = read_photos(photos, old, arguments.fit, arguments.size, problems)
        if read:
            names = load_class_names(arguments, loaded[0])
            target = parse_target(arguments)
            result = compare_models(
                old,
                new,
                np.concatenate([photo.pixels for photo in read]),
                choose_methods(arguments),
                targets=None if target is None else resolve_targets(target, len(read), names),
                names=[photo.path for photo in read],
                on_problem="ignore",
            )
            tell(f"{result}\n")
            result.save(out / _FILES[0])
            result.to_csv(out / _FILES[1])
            write_figure(plot_comparison(result), out / _FILES[2])
            tell(f"Wrote {', '.join(_FILES[:-1])} and {_FILES[-1]} to {arguments.out}")
    return max([complain(problem) for problem in problems], default=0)
