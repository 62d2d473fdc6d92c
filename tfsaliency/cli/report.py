"""The command `tfsaliency report`: maps, verdicts and metrics in one HTML file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.manifest import FILE as MANIFEST
from ..errors import OptionError, ResultError, TfSaliencyError
from ..evaluation import Evaluation
from ..maps import saliency_map
from ..saliency_maps import SaliencyMaps
from ..sanity import CSCProfile, InputInvariance, ModelComparison, SanityResult
from ..storage import read_kind
from ..tables import is_pattern
from ..visualization.report import load_template, write_report
from .check import check_photos
from .options import choose_methods, load, load_class_names, parse_target
from .output import complain, refuse_link, say, tell
from .photos import find_photos, name_images, picture_names, read_photos

_SUFFIX = ".npz"
_CHECKS: tuple[Any, ...] = (SanityResult, CSCProfile, InputInvariance)
_KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (SaliencyMaps, *_CHECKS, Evaluation, ModelComparison)
}


def run(arguments: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    out = Path(arguments.out)
    if os.path.lexists(out) and not arguments.overwrite:
        raise OptionError(f"{out} exists. Choose another file as --out, or pass --overwrite.")
    refuse_link(out)
    if not out.absolute().parent.is_dir():
        raise OptionError(f"Expected --out in a folder that exists. Received: {out}.")
    load_template()  # an error of it comes now, and not behind a long run
    files, photos = _sort(arguments.photos)
    problems: list[TfSaliencyError] = []
    if files and photos:
        raise OptionError(
            f"Expected results or photos. Received: both, such as {files[0]} and {photos[0]}."
        )
    parts = _read(files) if files else _explain(arguments, photos, problems)
    if parts:
        write_report(out, **parts, title=arguments.title)
        tell(f"Wrote {arguments.out}, {out.stat().st_size / 1e6:.1f} MB")
    return max([complain(problem) for problem in problems], default=0)


def _sort(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the result files that words name, also in folders of a run, and the photos."""
    files: list[Path] = []
    others: list[str] = []
    for word in words:
        path = Path(word)
        if (path / MANIFEST).is_file():
            raise OptionError(
                "Expected results of map, check, evaluate or compare, or photos. Received: "
                f"{path}, a data set of run. Its maps are read by tfsaliency.open_dataset."
            )
        if is_pattern(word) and word.endswith(_SUFFIX):
            inside = sorted(map(Path, glob(word, recursive=True)))
        else:
            inside = sorted(path.glob(f"*{_SUFFIX}")) if path.is_dir() else []
        if inside or path.suffix == _SUFFIX:
            files += inside or [path]
        elif os.path.lexists(word) or is_pattern(word):
            others.append(word)
        else:
            raise OptionError(f"Expected a result or a photo. Received: {word}, no file.")
    return files, find_photos(others)


def _read(files: Sequence[Path]) -> dict[str, Any]:
    """Read results, of all but checks at most one."""
    found: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
    for path in dict.fromkeys(files):
        kind = read_kind(path)
        if kind not in _KINDS:
            what = "a damaged file, or one of another program" if path.is_file() else "no file"
            raise ResultError(
                "Expected maps.npz, result.npz, metrics.npz or comparison.npz of a command. "
                f"Received: {path}, {what}."
            )
        found[kind].append(_KINDS[kind].load(path))
    for kind in ("SaliencyMaps", "Evaluation", "ModelComparison"):
        if len(found[kind]) > 1:
            raise OptionError(
                f"Expected at most one file of {kind} in a report. Received: {len(found[kind])}."
            )
    return {
        "maps": next(iter(found["SaliencyMaps"]), None),
        "sanity": [check for kind in _CHECKS for check in found[kind.__name__]],
        "evaluation": next(iter(found["Evaluation"]), None),
        "comparison": next(iter(found["ModelComparison"]), None),
    }


def _explain(
    arguments: argparse.Namespace, photos: Sequence[str], problems: list[TfSaliencyError]
) -> dict[str, Any]:
    """Explain photos, and check the methods unless the options say otherwise."""
    loaded, prepared = load(arguments)
    listed = list(picture_names(photos).items())
    read = read_photos(listed, prepared, arguments.fit, arguments.size, problems)
    if not read:
        return {}
    maps = saliency_map(
        prepared,
        np.concatenate([photo.pixels for photo in read]),
        choose_methods(arguments),
        targets=parse_target(arguments),
        class_names=load_class_names(arguments, loaded),
        on_problem="ignore",  # the report has them
    )
    maps = replace(maps, names=tuple(photo.path for photo in read))
    for problem in maps.problems:
        say(f"warning: {problem.describe(name_images(problem, maps.names))}")
    check = None if arguments.no_check else check_photos(arguments, loaded, prepared, read)
    return {"maps": maps, "sanity": check, "model": loaded.model}
