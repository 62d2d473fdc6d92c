"""SanityResult: what a sanity check measured, as one array with named axes, and its verdicts."""

from __future__ import annotations

import base64
import csv
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from .arrays import Array
from .census import Coverage, Coverages
from .controls import ExplainedBy
from .errors import OptionError, unknown_option
from .maps import read_coverage, read_problem
from .problems import Problems
from .tables import lines_of
from .verdicts import Verdict

_FORMAT = "tfsaliency.SanityResult 1"
AXES = ("method", "step", "similarity", "image", "seed")


class StepRecord(NamedTuple):
    """One step of a check.

    Parameters
    ----------
    name
        Of the step: of the layer that it adds, or of the layers that it consists of.
    layers
        The layers that were randomized, from input to output.
    tensors
        How many weights were drawn anew. Each was found to differ from the trained one, but:
    unchanged
        Those for which the draw has one value only, which they had already.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> tfs.StepRecord("dense", ("dense",), 2, ("dense/bias",)).layers
    ('dense',)
    """

    name: str
    layers: tuple[str, ...]
    tensors: int
    unchanged: tuple[str, ...]


class Shown(NamedTuple):
    """One photo and its maps, kept for the figures.

    Parameters
    ----------
    image
        As it was given, (h, w, c).
    steps
        The indices of the steps that maps are kept of.
    maps
        (methods, 1 + steps, h, w), float16, each rescaled to [0, 1]: of the trained network and
        then of the first seed's at each of steps. A constant map is NaN.
    """

    image: Array
    steps: tuple[int, ...]
    maps: Array


@dataclass(frozen=True, eq=False)
class SanityResult:
    """What a sanity check measured, and its verdicts.

    Parameters
    ----------
    values : array
        Likeness of the trained and the randomized networks' maps of the same photo, with the axes
        method, step, similarity, image, seed; NaN where undefined.
    floors : array
        The same for maps of different photos: what a similarity is by chance.
    methods, similarities, images : tuple of str
        The names along these axes. "cosine" is what the verdict rests on, "cosine_signed" the
        same with its sign; "spearman (x != 0)" is over the pixels that differ from the baseline.
    steps : tuple of StepRecord
        What was randomized at each step.
    seeds : tuple of int
        The seeds.
    targets, scores : array
        The class that was explained for each image, and its score, (n,).
    verdicts : dict
        For each method, a Verdict for each step.
    headline : int or None
        The index of the step that the verdict is quoted of; None if no step stands out.
    explained_by : dict
        For each method, how near its maps come to what needs no network.
    coverage : dict
        For each method, how many ReLUs its rule governs.
    settings : dict
        What was asked for, in words.
    problems : Problems
        The causes for which maps of the trained network mean nothing.
    shown : Shown or None
        One photo and its maps, for the figures.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((12, 12, 3)),
    ...                           keras.layers.Conv2D(4, 3, activation="relu"),
    ...                           keras.layers.Flatten(), keras.layers.Dense(3, name="top")])
    >>> photos = np.random.default_rng(0).normal(size=(3, 12, 12, 3))
    >>> result = tfs.sanity_check(model, photos, "gradient", draw="matched", verbose=0)
    >>> result.values.shape
    (1, 2, 6, 3, 4)
    >>> result.select(method="gradient", step="top", similarity="spearman").shape
    (3, 4)
    >>> result.to_json("result.json")
    >>> tfs.SanityResult.load("result.json") == result
    True
    """

    values: Array
    floors: Array
    methods: tuple[str, ...]
    steps: tuple[StepRecord, ...]
    similarities: tuple[str, ...]
    images: tuple[str, ...]
    seeds: tuple[int, ...]
    targets: Array
    scores: Array
    verdicts: Mapping[str, tuple[Verdict, ...]]
    headline: int | None
    explained_by: Mapping[str, ExplainedBy]
    coverage: Mapping[str, Coverage]
    settings: Mapping[str, str]
    problems: Problems = field(default_factory=Problems)
    shown: Shown | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SanityResult) and _plain(self) == _plain(other)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.values.shape))
        return f"SanityResult({list(self.methods)}, {' x '.join(AXES)}: {size})"

    def __str__(self) -> str:
        return "\n".join(lines_of(self))

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The labels along each axis of values and floors."""
        steps = tuple(step.name for step in self.steps)
        labels = (self.methods, steps, self.similarities, self.images, self.seeds)
        return dict(zip(AXES, labels, strict=True))

    def select(self, *, floors: bool = False, **labels: Any) -> Array:
        """Return the values (or floors) of some labels; an axis that is named is gone.

        Parameters
        ----------
        floors
            Whether to return the floors.
        labels
            By axis: method, step, similarity, image, seed.

        Raises
        ------
        OptionError
            For an unknown axis or label.
        """
        for axis in labels:
            if axis not in AXES:
                raise unknown_option("axis", axis, AXES)
        index: list[Any] = []
        for axis, known in self.axes.items():
            if axis in labels and labels[axis] not in known:
                raise unknown_option(axis, labels[axis], map(str, known))
            index.append(known.index(labels[axis]) if axis in labels else slice(None))
        return (self.floors if floors else self.values)[tuple(index)]

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write one row for each number: the labels of the axes, value, floor.

        Parameters
        ----------
        path
            Where to write; an existing file is replaced.
        """
        labels = list(self.axes.values())
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*AXES, "value", "floor"])
            for place in np.ndindex(self.values.shape):
                row = [names[i] for names, i in zip(labels, place, strict=True)]
                writer.writerow([*row, float(self.values[place]), float(self.floors[place])])

    def to_json(self, path: str | PathLike[str]) -> None:
        """Write everything; NaN is written as null.

        Parameters
        ----------
        path
            Where to write; an existing file is replaced.
        """
        with open(path, "w", encoding="utf-8") as file:
            json.dump(_plain(self), file, allow_nan=False)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SanityResult:
        """Read what to_json wrote.

        Raises
        ------
        OptionError
            If the file is not one that to_json wrote.
        FileNotFoundError
            If there is none.
        """
        try:
            with open(path, encoding="utf-8") as file:
                return _read(json.load(file))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
            raise OptionError(
                f"Expected a file that SanityResult.to_json wrote. Received: {path} ({error})."
            ) from error


def _plain(result: SanityResult) -> dict[str, Any]:
    """Return a result as what JSON can say."""
    shown = result.shown
    return {
        "format": _FORMAT,
        "settings": dict(result.settings),
        "verdicts": {
            name: [_null(asdict(verdict)) for verdict in verdicts]
            for name, verdicts in result.verdicts.items()
        },
        "headline": result.headline,
        "explained_by": {name: _null(e._asdict()) for name, e in result.explained_by.items()},
        "coverage": {name: asdict(coverage) for name, coverage in result.coverage.items()},
        "problems": [list(problem) for problem in result.problems],
        "methods": list(result.methods),
        "steps": [step._asdict() for step in result.steps],
        "similarities": list(result.similarities),
        "images": list(result.images),
        "seeds": list(result.seeds),
        "targets": result.targets.tolist(),
        "scores": _null(result.scores.astype(np.float64).tolist()),
        "values": _null(result.values.tolist()),
        "floors": _null(result.floors.tolist()),
        "shown": None
        if shown is None
        else {
            "image": _packed(shown.image),
            "steps": list(shown.steps),
            "maps": _packed(shown.maps),
        },
    }


def _read(stored: dict[str, Any]) -> SanityResult:
    if stored["format"] != _FORMAT:
        raise ValueError(f"format {stored['format']!r} instead of {_FORMAT!r}")
    verdicts = {
        name: tuple(Verdict(**_nan(verdict)) for verdict in listed)
        for name, listed in stored["verdicts"].items()
    }
    steps = tuple(
        StepRecord(s["name"], tuple(s["layers"]), s["tensors"], tuple(s["unchanged"]))
        for s in stored["steps"]
    )
    shown = stored["shown"]
    labels = (stored[key] for key in ("methods", "steps", "similarities", "images", "seeds"))
    shape = tuple(map(len, labels))
    values, floors = (np.array(_nan(stored[key]), np.float64) for key in ("values", "floors"))
    headline = stored["headline"]
    if values.shape != shape or floors.shape != shape:
        raise ValueError(f"values of shape {values.shape} for labels of {shape}")
    if set(verdicts) != set(stored["methods"]) or {len(v) for v in verdicts.values()} != {shape[1]}:
        raise ValueError("verdicts of other methods or steps than its values have")
    if headline is not None and not 0 <= headline < shape[1]:
        raise ValueError(f"headline {headline} of {shape[1]} steps")
    return SanityResult(
        values,
        floors,
        tuple(stored["methods"]),
        steps,
        tuple(stored["similarities"]),
        tuple(stored["images"]),
        tuple(stored["seeds"]),
        np.array(stored["targets"], np.int32),
        np.array(_nan(stored["scores"]), np.float64),
        verdicts,
        headline,
        {name: ExplainedBy(**_nan(e)) for name, e in stored["explained_by"].items()},
        Coverages({name: read_coverage(c) for name, c in stored["coverage"].items()}),
        stored["settings"],
        Problems(map(read_problem, stored["problems"])),
        shown and Shown(_unpacked(shown["image"]), tuple(shown["steps"]), _unpacked(shown["maps"])),
    )


def _null(value: Any) -> Any:
    """Replace what is not finite by None, in lists and dicts too."""
    if isinstance(value, dict):
        return {key: _null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_null(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nan(item) for item in value]
    return float("nan") if value is None else value


def _packed(array: Array) -> dict[str, Any]:
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes())).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "zlib_base64": data}


def _unpacked(stored: dict[str, Any]) -> Array:
    data = zlib.decompress(base64.b64decode(stored["zlib_base64"]))
    return np.frombuffer(data, stored["dtype"]).reshape(stored["shape"]).copy()
