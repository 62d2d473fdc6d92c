"""Files of SaliencyMaps: their arrays and header, and the joining of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from .. import storage
from ..arrays import Array
from ..diagnostics import read_problems, shift_problems
from ..engine.coverage import Coverage, Coverages
from ..engine.heads import Meaning
from ..errors import ResultError
from ..records import Record

MAP, DETAIL = "map:", "detail:"  # prefixes of the names of arrays in a file


def positions(images: Array) -> tuple[int, ...]:
    """Return the axes of a map of images (n, ..., c), or of features (n, f)."""
    return images.shape[1:-1] or images.shape[1:]


def read_fields(arrays: Mapping[str, Array], header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of SaliencyMaps from the arrays and the header of a file.

    Raises
    ------
    ResultError
        If they do not fit together.
    """
    methods = storage.from_plain(tuple[str, ...], header["methods"])
    names = storage.from_plain(tuple[str, ...], header["names"])
    coverage = storage.from_plain(Mapping[str, Coverage], header["coverage"])
    images = storage.read_array(arrays, "images", "buif")
    n, spatial = len(images), positions(images)
    maps = {name: storage.read_array(arrays, MAP + name, "f") for name in methods}
    details: dict[str, dict[str, Array]] = {}
    for key in arrays:
        if key.startswith(DETAIL):
            name, _, method = key.removeprefix(DETAIL).partition(":")
            details.setdefault(method, {})[name] = storage.read_array(arrays, key, "fU", (n,))
    expected = {"images", "targets", "scores", "outputs", *(MAP + name for name in methods)}
    strangers = {key for key in arrays if not key.startswith(DETAIL)} - expected
    if not methods or strangers or set(details) - set(methods) or set(coverage) != set(methods):
        raise ResultError(f"arrays or coverage of other methods than {list(methods)}")
    for name, array in maps.items():
        sizes = [spatial, *(grid.cells for grid in coverage[name].grids)]  # or one for each cell
        if array.shape[: 1 + len(spatial)] not in [(n, *size) for size in sizes]:
            raise ResultError(f"maps of another shape than the images {images.shape}")
    if len(names) not in (0, n):
        raise ResultError(f"names of other images than {n}")
    outputs = storage.read_array(arrays, "outputs", "f")
    if outputs.shape[:1] != (n,):
        raise ResultError(f"outputs {outputs.shape} of {n} images")
    return {
        "maps": maps,
        "images": images,
        "targets": storage.read_array(arrays, "targets", "i", (n,)),
        "scores": storage.read_array(arrays, "scores", "f", (n,)),
        "score": storage.from_plain(str, header["score"]),
        "outputs": outputs,
        "coverage": Coverages(coverage),
        "names": names,
        "problems": read_problems(header["problems"], n),
        "details": details,
        "meaning": storage.from_plain(Meaning, header.get("meaning", "outputs")),
        "class_names": storage.from_plain(tuple[str, ...], header.get("class_names", [])),
        "settings": storage.from_plain(Mapping[str, str], header.get("settings", {})),
        "record": storage.from_plain(Record | None, header.get("record")),
    }


def join_files(paths: Sequence[str | PathLike[str]], path: str | PathLike[str]) -> Coverages:
    """Join files of maps of the same model and methods along the images.

    No more than one array of one file is in memory.

    Returns
    -------
    The number of ReLUs that each method's rule governs.
    """
    headers = [storage.read_header(each) for each in paths]
    starts = np.cumsum([0, *(len(header["names"]) for header in headers)])
    problems = [
        problem
        for header, start in zip(headers, starts, strict=False)
        for problem in shift_problems(
            read_problems(header["problems"], len(header["names"])), int(start)
        )
    ]
    scores = {header["score"] for header in headers}
    joined = {
        **headers[0],
        "names": [name for header in headers for name in header["names"]],
        "problems": storage.to_plain(problems),
        "score": scores.pop() if len(scores) == 1 else "output",  # of several outputs
    }
    storage.join(paths, path, "SaliencyMaps", joined)
    return Coverages(storage.from_plain(Mapping[str, Coverage], headers[0]["coverage"]))
