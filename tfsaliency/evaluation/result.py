"""Evaluation: the metrics of methods and controls on images with a known answer."""

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
from ..records import Record
from ..statistics import bootstrap, interval, nanmean
from ..tables import UNPRINTED, align, as_text, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANCE = "chance"
FEWEST = 8  # images; with fewer, intervals contain the mean too rarely
FEW = f"means; intervals and a ranking need at least {FEWEST} images"
MEANS = "means, with 95 % intervals over images"
RANKED = (
    "From highest to lowest; = marks a difference from the first of the group that may be chance:"
)
_ARRAYS = ("values", "chance", "correct")


@dataclass(frozen=True)
class Difference:
    """The mean difference of a metric between two methods, on the same images.

    Parameters
    ----------
    mean
        The mean difference.
    low, high
        Its 95 % interval over images; NaN if both are defined for fewer than 8.

    Examples
    --------
    >>> from tfsaliency.evaluation import Difference
    >>> Difference(.2, .1, .3).sign, Difference(.1, -.1, .3).sign
    (1, 0)
    """

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes zero, else 0; 0 without an interval."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of methods and controls on images with a known answer.

    Parameters
    ----------
    values : array
        Values with axes (method, metric, image); NaN if undefined.
    chance : array
        The mean value for a map with shuffled pixels, (metrics, images).
    methods, controls, metrics : tuple of str
        The names; the first axis of values has the methods, then the controls.
    correct : array or None
        Whether the model's top class is the label of each image, (n,); None for a model with one
        output.
    coverage : dict
        The number of ReLUs that each method's rule governs.
    settings : dict
        The settings of the evaluation in words.
    problems : Problems
        The causes of meaningless maps.
    images : tuple of str
        Names of the images, such as their paths; may be empty.
    record : Record or None
        What the evaluation was computed from, for verify.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> known = synthetic.closed_form_model("linear")
    >>> result = tfs.evaluate(known.model, known.ground_truth(8, seed=0), "gradient")
    >>> result.mean("gradient", "relevance_mass")
    1.0
    >>> result.difference("gradient", "edge_map", "relevance_mass").sign
    1
    """

    values: Array
    chance: Array
    methods: tuple[str, ...]
    controls: tuple[str, ...]
    metrics: tuple[str, ...]
    correct: Array | None
    coverage: Mapping[str, Coverage]
    settings: Mapping[str, str]
    problems: Problems = field(default_factory=Problems)
    images: tuple[str, ...] = ()
    record: Record | None = None

    def __repr__(self) -> str:
        images = self.values.shape[-1]
        return f"Evaluation({list(self.methods)}, {list(self.metrics)}, {images} images)"

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def _repr_html_(self) -> str:
        return str(draw("pages.evaluation_page", self))

    def plot(self) -> Figure:
        """Draw the numbers with their intervals, as plot_evaluation does.

        Returns
        -------
        matplotlib.figure.Figure. A notebook shows it, and plt.show() does if pyplot is in use.

        Examples
        --------
        >>> import tfsaliency as tfs
        >>> from tfsaliency import synthetic
        >>> known = synthetic.closed_form_model("linear")
        >>> result = tfs.evaluate(known.model, known.ground_truth(8, seed=0), "gradient")
        >>> len(result.plot().axes) == len(result.metrics)
        True
        """
        return plot("evaluation_figures.plot_evaluation", self)

    @property
    def names(self) -> tuple[str, ...]:
        """The methods, the controls, and chance."""
        return (*self.methods, *self.controls, CHANCE)

    def of(self, name: str, metric: str) -> Array:
        """Return the values (n,) of a method, a control or chance.

        Raises
        ------
        OptionError
            If the method or metric is unknown.
        """
        if metric not in self.metrics:
            raise unknown_option("metric", metric, self.metrics)
        if name not in self.names:
            raise unknown_option("method", name, self.names)
        k = self.metrics.index(metric)
        return self.chance[k] if name == CHANCE else self.values[self.names.index(name), k]

    def mean(self, name: str, metric: str) -> float:
        """Return the mean over images with a defined metric."""
        return nanmean(self.of(name, metric))

    def interval(self, name: str, metric: str) -> tuple[float, float]:
        """Return the 95 % interval of the mean over images; NaN with fewer than 8."""
        return _interval(self.of(name, metric))

    def difference(self, name: str, other: str, metric: str) -> Difference:
        """Return the mean difference of two methods on images where both are defined."""
        gaps = self.of(name, metric) - self.of(other, metric)
        return Difference(nanmean(gaps), *_interval(gaps))

    def ranking(self, metric: str) -> list[tuple[str, ...]]:
        """Return the names from the highest mean to the lowest, in groups.

        Each name is compared with the first name of the last group, and joins that group if the
        interval of their difference contains zero. Names without an interval are omitted.
        """
        known = [name for name in self.names if np.isfinite(self.interval(name, metric)).all()]
        ordered = sorted(known, key=lambda name: -self.mean(name, metric))
        groups: list[tuple[str, ...]] = []
        for name in ordered:
            if groups and not self.difference(groups[-1][0], name, metric).sign:
                groups[-1] = (*groups[-1], name)
            else:
                groups.append((name,))
        return groups

    def save(self, path: str | PathLike[str]) -> None:
        """Save to a NumPy .npz file.

        Parameters
        ----------
        path
            Path of the file; no suffix is added. An existing file is replaced once the new one is
            complete.
        """
        arrays = {n: getattr(self, n) for n in _ARRAYS if getattr(self, n) is not None}
        storage.save(path, "Evaluation", arrays, _plain(self))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Evaluation:
        """Load an evaluation that save wrote.

        Raises
        ------
        ResultError
            If the file is damaged or of another kind.
        FileNotFoundError
            If the file does not exist.
        """
        return storage.load(path, "Evaluation", _from_file)

    def to_json(self, path: str | PathLike[str]) -> None:
        """Export to JSON, with null for NaN.

        Parameters
        ----------
        path
            Path of the file. An existing file is replaced once the new one is complete.
        """
        arrays = {name: storage.to_plain(getattr(self, name)) for name in _ARRAYS}
        with storage.replacing(path) as file:
            json.dump({**_plain(self), **arrays}, file, allow_nan=False)

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Export to CSV, with columns method, metric, image, value, chance.

        Parameters
        ----------
        path
            Path of the file. An existing file is replaced once the new one is complete.
        """
        with storage.replacing(path, newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["method", "metric", "image", "value", "chance"])
            for m, k, i in np.ndindex(self.values.shape):
                numbers = float(self.values[m, k, i]), float(self.chance[k, i])
                image = as_text(self.images[i]) if self.images else i
                writer.writerow([self.names[m], self.metrics[k], image, *numbers])


def _interval(values: Array) -> tuple[float, float]:
    if np.isfinite(values).sum() < FEWEST:
        return np.nan, np.nan
    return interval(bootstrap(values[np.newaxis])[0])


def _lines(result: Evaluation) -> list[str]:
    lines = [f"{key}: {value}" for key, value in result.settings.items() if key not in UNPRINTED]
    if result.correct is not None:
        lines.append(f"classified correctly: {np.mean(result.correct):.1%}")
    lines += ["", *align(metric_rows(result)), ""]
    if result.values.shape[-1] < FEWEST:
        lines.append(FEW)
    else:
        lines += [MEANS, "", RANKED, "", *align(ranking_rows(result))]
    undefined = say_undefined(result)
    return [*lines, "", undefined] if undefined else lines


def metric_rows(result: Evaluation, interval: str = "  {} to {}") -> list[list[str]]:
    """Return the table of metrics with their intervals, with a row of names above."""
    rows = [["", *result.metrics]]
    for name in result.names:
        cells = []
        for metric in result.metrics:
            low, high = result.interval(name, metric)
            known = name != CHANCE and np.isfinite((low, high)).all()
            spread = interval.format(short(low), short(high)) if known else ""
            cells.append(short(result.mean(name, metric)) + spread)
        rows.append([name, *cells])
    return rows


def ranking_rows(result: Evaluation) -> list[list[str]]:
    """Return the ranking by each metric."""
    groups = map(result.ranking, result.metrics)
    rankings = [" > ".join(map(" = ".join, each)) for each in groups]
    return [list(row) for row in zip(result.metrics, rankings, strict=True)]


def say_undefined(result: Evaluation) -> str:
    """Return the number of undefined values in words; "" if there are none."""
    undefined = int((~np.isfinite(result.values)).sum())
    what = "a map is constant or not finite, or a mask is empty"
    return f"Undefined, because {what}: {undefined} of {result.values.size}." if undefined else ""


def _plain(result: Evaluation) -> dict[str, Any]:
    """Return the fields that are not arrays as JSON values."""
    names = (f.name for f in fields(result) if f.name not in _ARRAYS)
    return {name: storage.to_plain(getattr(result, name)) for name in names}


def _from_file(arrays: Mapping[str, Array], header: Mapping[str, Any]) -> Evaluation:
    """Build an evaluation from the arrays and the header of a file, or raise ResultError."""
    methods, controls, metrics = (
        storage.from_plain(tuple[str, ...], header[name])
        for name in ("methods", "controls", "metrics")
    )
    coverage = storage.from_plain(Mapping[str, Coverage], header["coverage"])
    shape = (len(methods) + len(controls), len(metrics), None)
    values = storage.read_array(arrays, "values", "f", shape)
    n = values.shape[-1]
    if not values.size or set(coverage) != set(methods):
        raise ResultError(f"values {values.shape}, coverage of {list(coverage)}")
    images = storage.from_plain(tuple[str, ...], header.get("images", []))
    if len(images) not in (0, n):
        raise ResultError(f"names of other images than {n}")
    correct = None
    if "correct" in arrays:
        correct = storage.read_array(arrays, "correct", "b", (n,))
    return Evaluation(
        values,
        storage.read_array(arrays, "chance", "f", (len(metrics), n)),
        methods,
        controls,
        metrics,
        correct,
        Coverages(coverage),
        storage.from_plain(Mapping[str, str], header["settings"]),
        read_problems(header["problems"], n),
        images,
        storage.from_plain(Record | None, header.get("record")),
    )
