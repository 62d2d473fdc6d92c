"""SanityResult: the numbers of a sanity check in one array with named axes, and verdicts."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import storage
from ..arrays import Array
from ..diagnostics import Problems, read_problems
from ..display.drawing import draw, plot
from ..engine.coverage import Coverage, Coverages
from ..errors import ResultError, unknown_option
from ..evaluation.controls import ExplainedBy
from ..records import Record
from ..records.saved import SavedResult
from ..similarity import RESERVED
from .text import format_result
from .verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES = ("method", "step", "similarity", "image", "seed")
# The fields in the header of a file; the others are arrays.
_ARRAYS = ("values", "chance", "targets", "scores", "shown")


@dataclass(frozen=True)
class StepRecord:
    """One step of a check.

    Parameters
    ----------
    name
        The name of the step: the layer that it adds, or the layers that it consists of.
    layers
        The randomized layers, from input to output.
    tensors
        The number of newly drawn weights. Each differs from the trained one, except those in
        `unchanged`.
    unchanged
        Weights that kept their values, because the randomizer has only one value for them.

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


@dataclass(frozen=True, eq=False)
class Shown:
    """One photo and its maps, for figures.

    Parameters
    ----------
    image
        The photo before preprocessing, (h, w, c).
    steps
        The indices of the steps that have maps.
    maps
        Maps (methods, 1 + steps, h, w), float16, each rescaled to [0, 1]: the trained network's,
        then those of the first seed at each step. A constant map is NaN.
    """

    image: Array
    steps: tuple[int, ...]
    maps: Array


@dataclass(frozen=True, eq=False)
class SanityResult(SavedResult):
    """The numbers of a sanity check, and its verdicts.

    Parameters
    ----------
    values : array
        Similarities of the trained and the randomized networks' maps of the same photo, with axes
        (method, step, similarity, image, seed); NaN if undefined.
    chance : array
        The same for maps of different photos: the value of a similarity by chance.
    methods, similarities, images : tuple of str
        The names along these axes. The verdict is based on "cosine"; "cosine_signed" is the same
        with its sign, and "spearman (x != 0)" covers the pixels that differ from the baseline.
    steps : tuple of StepRecord
        The randomized layers of each step.
    seeds : tuple of int
        The seeds.
    targets, scores : array
        The explained class of each image, and its score, (n,).
    verdicts : dict
        A Verdict for each step, by method.
    headline : int or None
        The index of the step to quote; None if no step stands out.
    explained_by : dict
        Correlations of each method's maps with controls that need no network.
    coverage : dict
        The number of ReLUs that each method's rule governs.
    settings : dict
        The settings of the check in words.
    problems : Problems
        The causes of meaningless maps of the trained network.
    shown : Shown or None
        One photo and its maps, for figures.
    record : Record or None
        What the result was computed from, for verify.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((12, 12, 3)),
    ...                           keras.layers.Conv2D(4, 3, activation="relu"),
    ...                           keras.layers.Flatten(),
    ...                           keras.layers.Dense(3, "softmax", name="top")])
    >>> photos = np.random.default_rng(0).normal(size=(3, 12, 12, 3))
    >>> result = tfs.sanity_check(model, photos, "gradient", randomizer="matched", verbose=0)
    >>> result.values.shape
    (1, 2, 6, 3, 4)
    >>> result.select(method="gradient", step="top", similarity="spearman").shape
    (3, 4)
    >>> result.save("result.npz")
    >>> tfs.SanityResult.load("result.npz") == result
    True
    """

    values: Array
    chance: Array
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
    record: Record | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SanityResult) and _plain(self) == _plain(other)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.values.shape))
        return f"SanityResult({list(self.methods)}, {' x '.join(AXES)}: {size})"

    def __str__(self) -> str:
        return "\n".join(format_result(self))

    def _repr_html_(self) -> str:
        return str(draw("pages.sanity_page", self))

    def plot(self) -> Figure:
        """Draw the numbers with their intervals, as plot_similarities does.

        Returns
        -------
        matplotlib.figure.Figure. A notebook shows it, and plt.show() does if pyplot is in use.

        Examples
        --------
        >>> import tfsaliency as tfs
        >>> from tfsaliency import synthetic
        >>> photos = synthetic.make_shapes(8, seed=0).images
        >>> result = tfs.sanity_check(synthetic.shapes_model(), photos, plan=["conv8"])
        >>> [axes.get_ylabel() for axes in result.plot().axes]
        ['invariance', 'spearman', 'ssim']
        """
        return plot("sanity_figures.plot_similarities", self)

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """The labels along each axis of values and chance."""
        steps = tuple(step.name for step in self.steps)
        labels = (self.methods, steps, self.similarities, self.images, self.seeds)
        return dict(zip(AXES, labels, strict=True))

    def select(self, *, chance: bool = False, **labels: Any) -> Array:
        """Return the values at the given labels, without their axes.

        Parameters
        ----------
        chance
            Whether to return chance instead of values.
        labels
            A label for some of the axes method, step, similarity, image, seed.

        Raises
        ------
        OptionError
            If an axis or label is unknown.
        """
        for axis in labels:
            if axis not in AXES:
                raise unknown_option("axis", axis, AXES)
        index: list[Any] = []
        for axis, known in self.axes.items():
            if axis in labels and labels[axis] not in known:
                raise unknown_option(axis, labels[axis], map(str, known))
            index.append(known.index(labels[axis]) if axis in labels else slice(None))
        return (self.chance if chance else self.values)[tuple(index)]

    def _to_file(self) -> tuple[Mapping[str, Array], Mapping[str, Any]]:
        arrays = {name: getattr(self, name) for name in _ARRAYS if name != "shown"}
        header = {
            f.name: storage.to_plain(getattr(self, f.name))
            for f in fields(self)
            if f.name not in _ARRAYS
        }
        if self.shown is not None:
            arrays |= {"shown_image": self.shown.image, "shown_maps": self.shown.maps}
            header["shown_steps"] = list(self.shown.steps)
        return arrays, header

    @classmethod
    def _from_file(cls, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> SanityResult:
        return _read(arrays, header)

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Export to CSV: one row per value, with the labels of its axes and chance.

        Parameters
        ----------
        path
            Path of the file. An existing file is replaced once the new one is complete.
        """
        labels = list(self.axes.values())
        with storage.replacing(path, newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*AXES, "value", "chance"])
            for place in np.ndindex(self.values.shape):
                row = [names[i] for names, i in zip(labels, place, strict=True)]
                writer.writerow([*row, float(self.values[place]), float(self.chance[place])])

    def to_json(self, path: str | PathLike[str]) -> None:
        """Export to JSON, with null for NaN, without the photo and maps for figures.

        Parameters
        ----------
        path
            Path of the file. An existing file is replaced once the new one is complete.
        """
        with storage.replacing(path) as file:
            json.dump(_plain(self), file, allow_nan=False)


def _plain(result: SanityResult) -> dict[str, Any]:
    """Return a result as JSON values, without the photo and maps for figures."""
    names = (f.name for f in fields(result) if f.name != "shown")
    return {name: storage.to_plain(getattr(result, name)) for name in names}


def _read(arrays: Mapping[str, Array], header: Mapping[str, Any]) -> SanityResult:
    """Build a result from the arrays and the header of a file, or raise ResultError."""

    def read(name: str, kind: Any) -> Any:
        return storage.from_plain(kind, header[name])

    names = tuple[str, ...]
    methods, steps = read("methods", names), read("steps", tuple[StepRecord, ...])
    similarities, images = read("similarities", names), read("images", names)
    seeds, headline = read("seeds", tuple[int, ...]), read("headline", int | None)
    shape = tuple(map(len, (methods, steps, similarities, images, seeds)))
    n = len(images)
    verdicts = read("verdicts", Mapping[str, tuple[Verdict, ...]])
    by_method = {
        "explained_by": read("explained_by", Mapping[str, ExplainedBy]),
        "coverage": read("coverage", Mapping[str, Coverage]),
    }
    plain = {name.partition(" (x != ")[0] for name in similarities}
    if not all(shape) or not {*RESERVED, "spearman", *plain} <= set(similarities):
        raise ResultError(f"values of shape {shape}, of similarities {list(similarities)}")
    if any(set(each) != set(methods) for each in (verdicts, *by_method.values())):
        raise ResultError(f"verdicts, controls or coverage of other methods than {list(methods)}")
    if any(len(each) != len(steps) for each in verdicts.values()):
        raise ResultError(f"verdicts of other steps than {len(steps)}")
    if headline is not None and not 0 <= headline < len(steps):
        raise ResultError(f"headline {headline} of {len(steps)} steps")
    return SanityResult(
        storage.read_array(arrays, "values", "f", shape),
        storage.read_array(arrays, "chance", "f", shape),
        methods,
        steps,
        similarities,
        images,
        seeds,
        storage.read_array(arrays, "targets", "i", (n,)),
        storage.read_array(arrays, "scores", "f", (n,)),
        verdicts,
        headline,
        by_method["explained_by"],
        Coverages(by_method["coverage"]),
        read("settings", Mapping[str, str]),
        read_problems(header["problems"], n),
        _shown_from_file(arrays, header, len(methods), len(steps)),
        storage.from_plain(Record | None, header.get("record")),
    )


def _shown_from_file(
    arrays: Mapping[str, Array], header: Mapping[str, Any], methods: int, steps: int
) -> Shown | None:
    if "shown_steps" not in header:
        return None
    shown = storage.from_plain(tuple[int, ...], header["shown_steps"])
    if any(not 0 <= step < steps for step in shown):
        raise ResultError(f"maps of steps {shown} of {steps}")
    image = storage.read_array(arrays, "shown_image", "buif", (None, None, None))
    shape = (methods, 1 + len(shown), None, None)
    return Shown(image, shown, storage.read_array(arrays, "shown_maps", "f", shape))
