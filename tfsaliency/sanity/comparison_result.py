"""ModelComparison: the result of compare_models."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import storage
from ..arrays import Array
from ..display.drawing import draw, plot
from ..errors import ResultError, unknown_option
from ..records import ModelDigest, Record
from ..records.saved import SavedResult
from ..tables import UNPRINTED, align, as_text, short
from .verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ARRAYS = ("values", "chance", "targets", "top_classes", "scores", "shown")
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class ShownPair:
    """The photos whose maps changed most.

    Parameters
    ----------
    places
        The indices of the photos, the one that changed most first.
    images
        The photos before preprocessing, (k, h, w, c).
    old, new
        The maps of both models, (methods, k, h, w), float32.
    """

    places: Array
    images: Array
    old: Array
    new: Array


@dataclass(frozen=True, eq=False)
class ModelComparison(SavedResult):
    """The comparison of two versions of a model, photo by photo.

    Parameters
    ----------
    values : array
        The similarity of the two models' maps of the same photo, (methods, images), 0 to 1: the
        absolute cosine of the centered and clipped maps. NaN if a map is constant.
    chance : array
        The same for maps of different photos.
    methods, images : tuple of str
        The names along these axes.
    targets : array
        The explained class of each image, (n,).
    top_classes : array
        The top classes of the old and the new model, (2, n); -1 if outputs are no classes.
    scores : array
        The scores of the explained class by the old and the new model, (2, n).
    verdicts : dict
        A Verdict for each method.
    settings : dict
        The settings of the comparison in words.
    shown : ShownPair
        The photos whose maps changed most.
    record : Record
        What it was computed from; record.model is the old one.
    new_model : ModelDigest
        The identity of the new model.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> model, photos = synthetic.shapes_model(), synthetic.make_shapes(8, seed=0).images
    >>> result = tfs.compare_models(model, model, photos)
    >>> print(result.verdicts["gradient"])
    the same: invariance 1.00 [1.00, 1.00]
    >>> result.save("comparison.npz")
    >>> bool((tfs.ModelComparison.load("comparison.npz").values == result.values).all())
    True
    """

    values: Array
    chance: Array
    methods: tuple[str, ...]
    images: tuple[str, ...]
    targets: Array
    top_classes: Array
    scores: Array
    verdicts: Mapping[str, Verdict]
    settings: Mapping[str, str]
    shown: ShownPair
    record: Record
    new_model: ModelDigest

    def __repr__(self) -> str:
        return f"ModelComparison({list(self.methods)}, {len(self.images)} images)"

    def __str__(self) -> str:
        lines = [f"{key}: {value}" for key, value in self.settings.items() if key not in _LONG]
        return "\n".join([*lines, "", *align(verdict_rows(self)), "", *self.notes()])

    def _repr_html_(self) -> str:
        return str(draw("pages.comparison_page", self))

    @property
    def agreement(self) -> float:
        """The share of photos for which both models have the same top class."""
        return float(np.mean(self.top_classes[0] == self.top_classes[1]))

    def notes(self) -> list[str]:
        """Return sentences on predictions, and on the photos that changed most."""
        lines = []
        if (self.top_classes >= 0).all():
            lines.append(f"Both models have the same top class for {self.agreement:.0%} of photos.")
        if (self.values > 1 - _ROUNDING).all():
            return [*lines, "No map changed."]
        names = [f"{as_text(self.images[i])} ({short(self._mean(i))})" for i in self.shown.places]
        return [*lines, f"Photos whose maps changed most (similarity): {', '.join(names)}."]

    def _mean(self, image: int) -> float:
        values = self.values[:, image]
        return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else np.nan

    def changed(self, method: str | None = None) -> list[int]:
        """Return the indices of all photos, the one whose map changed most first.

        Photos with a constant map, whose similarity is undefined, come first of all.

        Parameters
        ----------
        method
            The method; by default, the mean of all.

        Raises
        ------
        OptionError
            If the method is unknown.
        """
        if method is not None and method not in self.methods:
            raise unknown_option("method", method, self.methods)
        values = [self._mean(i) for i in range(len(self.images))]
        if method is not None:
            values = self.values[self.methods.index(method)].tolist()
        return np.argsort(np.nan_to_num(values, nan=-1.0), kind="stable").tolist()

    def plot(self) -> Figure:
        """Draw the photos whose maps changed most, with the maps of both models.

        Returns
        -------
        matplotlib.figure.Figure. A notebook shows it, and plt.show() does if pyplot is in use.

        Examples
        --------
        >>> import tfsaliency as tfs
        >>> from tfsaliency import synthetic
        >>> model, photos = synthetic.shapes_model(), synthetic.make_shapes(8, seed=0).images
        >>> other = synthetic.permuted_label_models()[0]
        >>> figure = tfs.compare_models(model, other, photos, "grad_cam").plot()
        >>> len(figure.axes)  # 6 photos and 2 maps of each
        18
        """
        return plot("comparison_figure.plot_comparison", self)

    def _to_file(self) -> tuple[Mapping[str, Array], Mapping[str, Any]]:
        arrays = {name: getattr(self, name) for name in _ARRAYS if name != "shown"}
        for part in fields(ShownPair):
            arrays[f"shown_{part.name}"] = getattr(self.shown, part.name)
        header = {
            f.name: storage.to_plain(getattr(self, f.name))
            for f in fields(self)
            if f.name not in _ARRAYS
        }
        return arrays, header

    @classmethod
    def _from_file(cls, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> ModelComparison:
        return _read(arrays, header)

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Export to CSV: one row for each method and image.

        Parameters
        ----------
        path
            Path of the file. An existing file is replaced once the new one is complete.
        """
        with storage.replacing(path, newline="") as file:
            writer = csv.writer(file)
            names = ("target", "old_top_class", "new_top_class", "old_score", "new_score")
            writer.writerow(["method", "image", "similarity", "chance", *names])
            for m, method in enumerate(self.methods):
                for i, image in enumerate(self.images):
                    numbers = float(self.values[m, i]), float(self.chance[m, i])
                    classes = (int(self.targets[i]), *map(int, self.top_classes[:, i]))
                    scores = map(float, self.scores[:, i])
                    writer.writerow([method, as_text(image), *numbers, *classes, *scores])


_LONG = (*UNPRINTED, "new weights")


def verdict_rows(result: ModelComparison) -> list[list[str]]:
    """Return the table of verdicts, with a row of names above."""
    rows = [["method", "the maps of both models are", "invariance", "95 % interval", "by chance"]]
    for method, verdict in result.verdicts.items():
        spread = f"{short(verdict.low)} to {short(verdict.high)}"
        text = verdict.verdict + (f" ({verdict.reason})" if verdict.reason else "")
        rows.append([method, text, short(verdict.invariance), spread, short(verdict.other)])
    return rows


def _read(arrays: Mapping[str, Array], header: Mapping[str, Any]) -> ModelComparison:
    """Build a comparison from the arrays and the header of a file, or raise ResultError."""

    def read(name: str, kind: Any) -> Any:
        return storage.from_plain(kind, header[name])

    methods, images = read("methods", tuple[str, ...]), read("images", tuple[str, ...])
    shape, n = (len(methods), len(images)), len(images)
    verdicts = read("verdicts", Mapping[str, Verdict])
    if not all(shape) or set(verdicts) != set(methods):
        raise ResultError(f"values of shape {shape}, verdicts of {list(verdicts)}")
    places = storage.read_array(arrays, "shown_places", "i", (None,))
    k = len(places)
    if k and not 0 <= places.min() <= places.max() < n:
        raise ResultError(f"photos {places.tolist()} of {n}")
    maps = (storage.read_array(arrays, f"shown_{name}", "f") for name in ("old", "new"))
    pictures = storage.read_array(arrays, "shown_images", "buif")
    old, new = maps
    if old.shape[:2] != (shape[0], k) or new.shape != old.shape or len(pictures) != k:
        raise ResultError(f"maps {old.shape} and {new.shape} of {k} photos")
    return ModelComparison(
        storage.read_array(arrays, "values", "f", shape),
        storage.read_array(arrays, "chance", "f", shape),
        methods,
        images,
        storage.read_array(arrays, "targets", "i", (n,)),
        storage.read_array(arrays, "top_classes", "i", (2, n)),
        storage.read_array(arrays, "scores", "f", (2, n)),
        verdicts,
        read("settings", Mapping[str, str]),
        ShownPair(places, pictures, old, new),
        read("record", Record),
        read("new_model", ModelDigest),
    )
