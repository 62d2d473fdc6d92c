"""SaliencyMaps: maps of several methods for the same images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from . import storage
from .arrays import Array, rescale
from .diagnostics import Problems, read_problems, shift_problems
from .engine.coverage import Coverage, Coverages
from .engine.heads import Meaning
from .errors import ResultError

_MAP, _DETAIL = "map:", "detail:"  # prefixes of the names of arrays in a file


@dataclass(frozen=True, eq=False)
class SaliencyMaps(Mapping[str, Array]):
    """Maps of several methods for the same images and targets: a mapping of names to arrays.

    Parameters
    ----------
    maps : dict
        Maps (n, h, w) by method, or (n, f) of features, in units of the score per unit of the
        model's input; (n, h, w, c) from attributions; (n, rows, columns) of cells from
        CAM(resize=False).
    images : array
        The images before preprocessing, (n, h, w, c).
    targets : array
        The explained class index of each image, (n,); -1 if the outputs are not classes.
    scores : array
        The differentiated score of each image, (n,).
    score : str
        The score in words.
    outputs : array
        The model's outputs, (n, classes) for a classifier.
    coverage : dict
        The number of ReLUs that each method's rule governs.
    names : tuple of str
        Names of the images, such as their paths; may be empty.
    problems : Problems, a tuple of Problem
        The causes of meaningless maps.
    details : dict
        Details of each method's composition, arrays (n,) by name. Integrated gradients have the
        completeness "gap", the number of "steps", and "unconverged" (1 or 0). Class activation maps
        have the "layer", the number of cells, the center of the first and the step between them, in
        pixels, and "negative" (1 if all evidence is).
    meaning : str
        The meaning of the outputs: "classes", "labels" (each may be right), "binary" (one
        probability, the classes 0 and 1), "binary_logit" (its logit), "outputs" (unknown) or
        "vector" (an embedding).

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2, activation="softmax")])
    >>> maps = tfs.saliency_map(model, np.ones((2, 4, 4, 3)), targets=1)
    >>> maps
    SaliencyMaps(['gradient'], 2 images of 4 x 4, score='logit (before the final softmax)')
    >>> maps.save("maps.npz")
    >>> bool((tfs.SaliencyMaps.load("maps.npz")["gradient"] == maps["gradient"]).all())
    True
    """

    maps: Mapping[str, Array]
    images: Array
    targets: Array
    scores: Array
    score: str
    outputs: Array
    coverage: Mapping[str, Coverage]
    names: tuple[str, ...] = ()
    problems: Problems = field(default_factory=Problems)
    details: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    meaning: Meaning = "outputs"

    # Compared by identity: comparing arrays gives no single truth value.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, method: str) -> Array:
        if method not in self.maps:
            raise KeyError(f"No map {method!r}. There are: {', '.join(self.maps)}.")
        return self.maps[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def __repr__(self) -> str:
        size = " x ".join(map(str, _positions(self.images)))
        plural = "" if len(self.images) == 1 else "s"
        return (
            f"SaliencyMaps({list(self.maps)}, {len(self.images)} image{plural} of {size}, "
            f"score={self.score!r})"
        )

    def rescaled(self, method: str) -> Array:
        """Return the maps of a method, each rescaled to [0, 1]; a constant map becomes NaN."""
        return rescale(self[method])

    def class_values(self, image: int) -> Array:
        """Return the outputs of an image for each class, (classes,).

        They are means over positions, if there are any; of a single sigmoid, the probabilities of
        the classes 0 and 1.
        """
        outputs = self.outputs[image]
        values = outputs.reshape(-1, outputs.shape[-1]).mean(axis=0) if outputs.ndim else outputs
        if self.meaning not in ("binary", "binary_logit"):
            return np.atleast_1d(values)
        one = np.ravel(values)[0]
        if self.meaning == "binary_logit":
            one = 0.5 * (1 + np.tanh(0.5 * one))  # a sigmoid that does not overflow
        return np.array([1 - one, one])

    def save(self, path: str | PathLike[str]) -> None:
        """Save to a NumPy .npz file.

        Parameters
        ----------
        path
            Path of the file; no suffix is added. An existing file is replaced once the new one is
            complete.
        """
        arrays = {
            "images": self.images,
            "targets": self.targets,
            "scores": self.scores,
            "outputs": self.outputs,
            **{_MAP + name: array for name, array in self.maps.items()},
            **{
                f"{_DETAIL}{name}:{method}": array
                for method, details in self.details.items()
                for name, array in details.items()
            },
        }
        header = {
            "methods": list(self.maps),
            "score": self.score,
            "coverage": storage.to_plain(self.coverage),
            "names": list(self.names),
            "problems": storage.to_plain(self.problems),
            "meaning": self.meaning,
        }
        storage.save(path, "SaliencyMaps", arrays, header)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SaliencyMaps:
        """Load maps that save wrote.

        Raises
        ------
        ResultError
            If the file is damaged or of another kind.
        FileNotFoundError
            If the file does not exist.
        """
        return storage.load(path, "SaliencyMaps", _from_file)


def _positions(images: Array) -> tuple[int, ...]:
    """Return the axes of a map of images (n, ..., c), or of features (n, f)."""
    return images.shape[1:-1] or images.shape[1:]


def _from_file(arrays: Mapping[str, Array], header: Mapping[str, Any]) -> SaliencyMaps:
    """Build maps from the arrays and the header of a file, or raise ResultError."""
    methods = storage.from_plain(tuple[str, ...], header["methods"])
    names = storage.from_plain(tuple[str, ...], header["names"])
    coverage = storage.from_plain(Mapping[str, Coverage], header["coverage"])
    images = storage.read_array(arrays, "images", "buif")
    n, spatial = len(images), _positions(images)
    maps = {name: storage.read_array(arrays, _MAP + name, "f") for name in methods}
    details: dict[str, dict[str, Array]] = {}
    for key in arrays:
        if key.startswith(_DETAIL):
            name, _, method = key.removeprefix(_DETAIL).partition(":")
            details.setdefault(method, {})[name] = storage.read_array(arrays, key, "fU", (n,))
    expected = {"images", "targets", "scores", "outputs", *(_MAP + name for name in methods)}
    strangers = {key for key in arrays if not key.startswith(_DETAIL)} - expected
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
    return SaliencyMaps(
        maps,
        images,
        storage.read_array(arrays, "targets", "i", (n,)),
        storage.read_array(arrays, "scores", "f", (n,)),
        storage.from_plain(str, header["score"]),
        outputs,
        Coverages(coverage),
        names,
        read_problems(header["problems"], n),
        details,
        storage.from_plain(Meaning, header.get("meaning", "outputs")),
    )


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
