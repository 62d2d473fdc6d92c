"""Evaluation: the metrics of methods and controls on images."""

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
from ..errors import OptionError, ResultError, unknown_option
from ..records import Record
from ..records.saved import SavedResult
from ..statistics import bootstrap, interval, nanmean
from ..tables import as_text
from .text import judging_metrics, lines
from .verdict import CHANCE, FEWEST, OTHER_PHOTO, MetricVerdict, judge_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ARRAYS = ("values", "chance", "correct", "other_photo")


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
class Evaluation(SavedResult):
    """The metrics of methods and controls on images.

    Parameters
    ----------
    values : array
        Values with axes (method, metric, image); NaN if undefined.
    chance : array
        The mean value for a map with shuffled pixels, (metrics, images); NaN if it is not known.
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
    other_photo : array or None
        The values of each method's maps of another photo, (methods, metrics, images).
    directions : tuple of int
        For each metric, 1 if a higher value is better, -1 if a lower one is, 0 if it judges not;
        empty if higher is better in all.

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
    other_photo: Array | None = None
    directions: tuple[int, ...] = ()

    def __repr__(self) -> str:
        images = self.values.shape[-1]
        return f"Evaluation({list(self.methods)}, {list(self.metrics)}, {images} images)"

    def __str__(self) -> str:
        return "\n".join(lines(self))

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
        """The methods, the controls, and chance, if it is known for any metric."""
        known = (CHANCE,) if np.isfinite(self.chance).any() else ()
        return (*self.methods, *self.controls, *known)

    def direction(self, metric: str) -> int:
        """Return 1 if higher values are better, -1 if lower ones are, 0 if neither is."""
        return self.directions[self.metrics.index(metric)] if self.directions else 1

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

    def verdict(self, method: str, metric: str) -> MetricVerdict:
        """Return whether a method is better than its controls, by a metric.

        The controls are those of the table, and the method's own maps of another photo.

        Raises
        ------
        OptionError
            If the method or metric is unknown, or the metric judges not.
        """
        if method not in self.methods:
            raise unknown_option("method", method, self.methods)
        direction = self.direction(metric) if metric in self.metrics else 1
        values = self.of(method, metric)
        if not direction:
            judging = ", ".join(judging_metrics(self)) or "none"
            raise OptionError(
                f"Expected a metric that tells better from worse: {judging}. Received: {metric!r}."
            )
        controls = {name: self.of(name, metric) for name in self.controls}
        if self.other_photo is not None:
            place = self.methods.index(method), self.metrics.index(metric)
            controls[OTHER_PHOTO] = self.other_photo[place]
        return judge_metric(values, controls, direction > 0)

    def ranking(self, metric: str) -> list[tuple[str, ...]]:
        """Return the names from the best mean to the worst, in groups.

        A metric that does not judge is ordered from the highest mean to the lowest.

        Each name is compared with the first name of the last group, and joins that group if the
        interval of their difference contains zero. Names without an interval are omitted.
        """
        known = [name for name in self.names if np.isfinite(self.interval(name, metric)).all()]
        sign = self.direction(metric) or 1
        ordered = sorted(known, key=lambda name: -sign * self.mean(name, metric))
        groups: list[tuple[str, ...]] = []
        for name in ordered:
            if groups and not self.difference(groups[-1][0], name, metric).sign:
                groups[-1] = (*groups[-1], name)
            else:
                groups.append((name,))
        return groups

    def _to_file(self) -> tuple[Mapping[str, Array], Mapping[str, Any]]:
        return {n: getattr(self, n) for n in _ARRAYS if getattr(self, n) is not None}, _plain(self)

    @classmethod
    def _from_file(cls, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> Evaluation:
        return _read(arrays, header)

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


def _plain(result: Evaluation) -> dict[str, Any]:
    """Return the fields that are not arrays as JSON values."""
    names = (f.name for f in fields(result) if f.name not in _ARRAYS)
    return {name: storage.to_plain(getattr(result, name)) for name in names}


def _read(arrays: Mapping[str, Array], header: Mapping[str, Any]) -> Evaluation:
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
    other_photo = None
    if "other_photo" in arrays:
        shape = (len(methods), len(metrics), n)
        other_photo = storage.read_array(arrays, "other_photo", "f", shape)
    directions = storage.from_plain(tuple[int, ...], header.get("directions", []))
    if len(directions) not in (0, len(metrics)) or not set(directions) <= {-1, 0, 1}:
        raise ResultError(f"directions {directions} of {len(metrics)} metrics")
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
        other_photo,
        directions,
    )
