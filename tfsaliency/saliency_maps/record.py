"""SaliencyMaps: maps of several methods for the same images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .. import storage
from ..arrays import Array, rescale, resolve_indices
from ..diagnostics import Problems
from ..display.drawing import draw, plot
from ..engine.coverage import Coverage
from ..engine.heads import Meaning
from ..engine.targets import resolve_targets
from ..errors import OptionError
from ..records import Record
from ..records.saved import SavedResult
from .files import DETAIL, MAP, positions, read_fields

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ONE_PERCENT = 0.005  # the smallest probability that rounds to 1 %
_ROUNDING = 1e-3  # tolerance of the sum of probabilities


@dataclass(frozen=True, eq=False)
class SaliencyMaps(SavedResult, Mapping[str, Array]):
    """Maps of several methods for the same images and targets: a mapping of names to arrays.

    A slice selects images: maps[:4] holds all methods for the first four; see select.

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
    class_names : tuple of str
        The names of the classes, if they were given.
    settings : dict
        The model, its preprocessing and the versions in words.
    record : Record or None
        What the maps were computed from, for verify.

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
    class_names: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    record: Record | None = None

    # Compared by identity: comparing arrays gives no single truth value.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @overload
    def __getitem__(self, key: str) -> Array: ...
    @overload
    def __getitem__(self, key: slice) -> SaliencyMaps: ...
    def __getitem__(self, key: str | slice) -> Array | SaliencyMaps:
        if isinstance(key, slice):
            chosen = range(len(self.images))[key]
            if not chosen:
                raise OptionError(
                    f"Expected a slice of {len(self.images)} images, at least one. "
                    f"Received: [{key.start}:{key.stop}:{key.step}], none."
                )
            return self.select(chosen)
        if key not in self.maps:
            one = isinstance(key, Integral)
            hint = f" For one image, use select({key})." if one else ""
            raise KeyError(f"No map {key!r:.100}. There are: {', '.join(self.maps)}.{hint}")
        return self.maps[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def __repr__(self) -> str:
        size = " x ".join(map(str, positions(self.images)))
        plural = "" if len(self.images) == 1 else "s"
        return (
            f"SaliencyMaps({list(self.maps)}, {len(self.images)} image{plural} of {size}, "
            f"score={self.score!r})"
        )

    def _repr_html_(self) -> str:
        return str(draw("pages.maps_page", self))

    def select(self, images: int | Sequence[int] | Array) -> SaliencyMaps:
        """Return the maps of some images, in the given order.

        Parameters
        ----------
        images
            One index, several, or a boolean mask (n,); negative indices count from the end.

        Raises
        ------
        OptionError
            If there is no such image, or none is selected.

        Examples
        --------
        >>> import tfsaliency as tfs
        >>> from tfsaliency import synthetic
        >>> images = synthetic.make_shapes(4, seed=3).images
        >>> maps = tfs.saliency_map(synthetic.shapes_model(), images)
        >>> maps.targets, maps.select([0, -1]).targets, maps[1:3].targets
        (array([1, 0, 7, 3], dtype=int32), array([1, 3], dtype=int32), array([0, 7], dtype=int32))
        """
        n = len(self.images)
        places = resolve_indices(images, n)
        new = {int(old): tuple(np.flatnonzero(places == old)) for old in places}
        moved = [
            replace(each, images=tuple(sorted(int(k) for i in kept for k in new[i])))
            for each in self.problems
            if (kept := [i for i in each.images if i in new])
        ]
        return replace(
            self,
            maps={name: array[places] for name, array in self.maps.items()},
            images=self.images[places],
            targets=self.targets[places],
            scores=self.scores[places],
            outputs=self.outputs[places],
            names=tuple(self.names[i] for i in places) if self.names else (),
            problems=Problems(moved),
            details={
                method: {name: array[places] for name, array in each.items()}
                for method, each in self.details.items()
            },
        )

    def images_of(self, target: int | str) -> SaliencyMaps:
        """Return the maps of all images whose explained class is a class, by its index or name.

        Raises
        ------
        OptionError
            If the class is unknown, or explained for no image.

        Examples
        --------
        >>> import tfsaliency as tfs
        >>> from tfsaliency import synthetic
        >>> images = synthetic.make_shapes(4, seed=3).images
        >>> names = synthetic.CLASSES
        >>> maps = tfs.saliency_map(synthetic.shapes_model(), images, class_names=names)
        >>> maps.images_of("disk").targets
        array([0], dtype=int32)
        """
        (index,) = resolve_targets(target, 1, self.class_names or None)
        found = np.flatnonzero(self.targets == index)
        if not len(found):
            explained = ", ".join(map(self.class_name, np.unique(self.targets)))
            raise OptionError(
                f"Expected an explained class: {explained:.300}. Received: {target!r:.100}."
            )
        return self.select(found)

    def class_name(self, index: int) -> str:
        """Return the name of a class, or "class 7" if names are not known."""
        known = 0 <= index < len(self.class_names)
        return self.class_names[index] if known else f"class {index}"

    def caption(self, image: int, index: int | None = None) -> str:
        """Return a class and its confidence, such as "English setter (64%)".

        Parameters
        ----------
        image
            The index of the image.
        index
            The class; by default, the explained one.

        Examples
        --------
        >>> import tfsaliency as tfs
        >>> from tfsaliency import synthetic
        >>> images = synthetic.make_shapes(1, seed=3).images
        >>> names = synthetic.CLASSES
        >>> maps = tfs.saliency_map(synthetic.shapes_model(), images, class_names=names)
        >>> maps.caption(0), maps.caption(0, 2)
        ('ring (100%)', 'square (<1%)')
        """
        values = self.class_values(image)
        index = int(self.targets[image]) if index is None else index
        if self.meaning == "vector" or not 0 <= index < len(values):
            return self.score
        value, name = float(values[index]), self.class_name(index)
        if self.meaning == "outputs" and not self.class_names:
            return f"output {value:.4g}" if len(values) == 1 else f"output {index} ({value:.4g})"
        share = self.confidence(image, index)
        if share is None:
            return f"{name} ({value:.4g})"
        return f"{name} (<1%)" if share < _ONE_PERCENT else f"{name} ({share:.0%})"

    def confidence(self, image: int, index: int | None = None) -> float | None:
        """Return the probability of a class, by default the explained one; None if it is none."""
        values = self.class_values(image)
        index = int(self.targets[image]) if index is None else index
        whole = self.meaning == "labels" or abs(float(values.sum()) - 1) <= _ROUNDING
        known = self.meaning != "vector" and 0 <= index < len(values) and whole
        return float(values[index]) if known and 0 <= values.min() <= values.max() <= 1 else None

    def plot(
        self,
        methods: str | Sequence[str] | None = None,
        *,
        overlay: bool = False,
        percentile: float = 99.0,
        cmap: Any = None,
        columns: int | None = None,
        title: str | None = None,
    ) -> Figure:
        """Draw the images beside their maps.

        Each image is drawn with the explained class and its confidence, and the top class if it is
        another one. Sequences and features are drawn as lines on their maps, volumes as the plane
        with the largest values of the first map.

        Parameters
        ----------
        methods
            The methods to draw; by default, all.
        overlay
            Whether to draw the maps over the images, as tfsaliency.overlay does.
        percentile
            Values from this percentile of a map's (absolute) values get full color; 100 scales to
            the maximum. Each map has its own scale: from its minimum, white, to red; a map with
            negative values from blue to red, white at zero. A constant map is gray.
        cmap
            The colors of a map without negative values, a Matplotlib colormap or its name; by
            default, white to red.
        columns
            The largest number of tiles side by side, by default 7, or 3 for sequences. The maps of
            an image wrap; images with few maps stand beside each other.
        title
            The title; by default, the score.

        Returns
        -------
        matplotlib.figure.Figure. A notebook shows it, and plt.show() does if pyplot is in use.

        Raises
        ------
        ImageError
            If the images cannot be drawn.
        OptionError
            If a method or an option is unknown.

        Examples
        --------
        >>> import tfsaliency as tfs
        >>> from tfsaliency import synthetic
        >>> images = synthetic.make_shapes(2, seed=3).images
        >>> maps = tfs.saliency_map(synthetic.shapes_model(), images, "grad_cam")
        >>> [axes.get_title() for axes in maps.plot(overlay=True).axes]
        ['class 1 (100%)', 'grad_cam', 'class 0 (100%)', 'grad_cam']
        """
        return plot(
            "maps_figure.plot_maps",
            self,
            methods,
            overlay=overlay,
            percentile=percentile,
            cmap=cmap,
            columns=columns,
            title=title,
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

    def _to_file(self) -> tuple[Mapping[str, Array], Mapping[str, Any]]:
        arrays = {
            "images": self.images,
            "targets": self.targets,
            "scores": self.scores,
            "outputs": self.outputs,
            **{MAP + name: array for name, array in self.maps.items()},
            **{
                f"{DETAIL}{name}:{method}": array
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
            "class_names": list(self.class_names),
            "settings": dict(self.settings),
            "record": storage.to_plain(self.record),
        }
        return arrays, header

    @classmethod
    def _from_file(cls, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> SaliencyMaps:
        return cls(**read_fields(arrays, header))
