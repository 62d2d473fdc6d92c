"""csc_profile: how fast a method forgets the layers above, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from ..arrays import Array, batches
from ..display.drawing import draw, plot
from ..display.progress import Progress, Verbose
from ..engine.backward_vectors import trace_backward_vectors
from ..engine.coverage import Coverage, Coverages
from ..engine.functions import Model
from ..engine.kept_traces import tracing
from ..errors import OptionError, check_int, unknown_option
from ..maps import name_methods
from ..methods.table import Method, MethodsArgument, resolve_methods
from ..prepared import Prepared, Preprocess, as_prepared
from ..records import Record
from ..records.making import describe_settings, make_record
from ..records.saved import SavedResult
from ..statistics import bootstrap, interval, nanmean
from ..tables import UNPRINTED, align, short
from .verdict import DEPENDS_BELOW, DOES_NOT_DEPEND_ABOVE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORGETS, REMEMBERS, IN_PART = "forgets the layers above", "remembers them", "inconclusive"
_FEWEST = 8  # images; with fewer, there is no interval
_PAIRS = 20_000  # of random vectors, for the chance level


@dataclass(frozen=True, eq=False)
class CSCProfile(SavedResult):
    """Cosines between random vectors that were passed back from one layer, at the layers below.

    Parameters
    ----------
    values : array
        The median absolute cosine of each image, over positions and pairs of vectors, (methods,
        layers, n); NaN if all vectors are zero.
    chance : array
        That of vectors of as many channels without any relation, (layers,).
    methods : tuple of str
        The methods.
    layers : tuple of str
        The layers, from the highest to the lowest.
    start : str
        The layer at which random vectors begin.
    coverage : dict
        The number of ReLUs on the way that each method's rule governs.
    settings : dict
        The settings in words.
    record : Record
        What the profile was computed from, for verify.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> photos = synthetic.make_shapes(8, seed=0).images
    >>> profile = tfs.csc_profile(synthetic.shapes_model(), photos,
    ...                           ["gradient", "guided_backprop"], verbose=0)
    >>> profile.verdict("guided_backprop")
    'forgets the layers above'
    """

    values: Array
    chance: Array
    methods: tuple[str, ...]
    layers: tuple[str, ...]
    start: str
    coverage: Mapping[str, Coverage]
    settings: Mapping[str, str]
    record: Record

    def mean(self, method: str, layer: str) -> float:
        """Return the mean over images of their median absolute cosines.

        Raises
        ------
        OptionError
            If the method or layer is unknown.
        """
        return nanmean(self._of(method, layer))

    def interval(self, method: str, layer: str) -> tuple[float, float]:
        """Return the 95 % interval of the mean over images; NaN with fewer than 8."""
        values = self._of(method, layer)
        if np.isfinite(values).sum() < _FEWEST:
            return np.nan, np.nan
        return interval(bootstrap(values[np.newaxis])[0])

    def verdict(self, method: str) -> str:
        """Return whether a method forgets the layers above, at the lowest layer.

        A cosine of 1 means that whatever the layers above say arrives as the same vector. "forgets
        the layers above": the interval of (cosine - chance) / (1 - chance) lies above the threshold
        of the verdict "does not depend" of sanity_check. "remembers them": it lies below that of
        "depends". Else, and with fewer than 8 images, "inconclusive".
        """
        low, high = (
            (end - self.chance[-1]) / (1 - self.chance[-1])
            for end in self.interval(method, self.layers[-1])
        )
        if low > DOES_NOT_DEPEND_ABOVE:
            return FORGETS
        return REMEMBERS if high < DEPENDS_BELOW else IN_PART

    def plot(self) -> Figure:
        """Draw the cosines from layer to layer, with their intervals and chance.

        Returns
        -------
        matplotlib.figure.Figure. A notebook shows it, and plt.show() does if pyplot is in use.
        """
        return plot("csc_figure.plot_csc", self)

    def __repr__(self) -> str:
        return (
            f"CSCProfile({list(self.methods)}, {list(self.layers)}, {self.values.shape[-1]} images)"
        )

    def __str__(self) -> str:
        lines = [f"{k}: {v}" for k, v in self.settings.items() if k not in UNPRINTED]
        return "\n".join([*lines, "", *align(self.rows()), "", *self.verdict_lines()])

    def _repr_html_(self) -> str:
        return str(draw("pages.csc_page", self))

    def rows(self) -> list[list[str]]:
        """Return the cosines of each layer with their intervals, with a row of names above."""
        rows = [["", *self.methods, "chance"]]
        for place, layer in enumerate(self.layers):
            cells = []
            for method in self.methods:
                low, high = self.interval(method, layer)
                spread = f" [{short(low)}, {short(high)}]" if np.isfinite(low) else ""
                cells.append(short(self.mean(method, layer)) + spread)
            rows.append([layer, *cells, short(float(self.chance[place]))])
        return rows

    def verdict_lines(self) -> list[str]:
        """Return the verdict of each method as a line."""
        return [f"{method}: {self.verdict(method)}" for method in self.methods]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        size = len(self.methods), len(self.layers)
        return {"values": (*size, self.values.shape[-1]), "chance": size[1:]}

    def _of(self, method: str, layer: str) -> Array:
        for kind, name, known in (
            ("method", method, self.methods),
            ("layer", layer, self.layers),
        ):
            if name not in known:
                raise unknown_option(kind, name, known)
        return self.values[self.methods.index(method), self.layers.index(layer)]


def csc_profile(
    model: Model | Prepared,
    images: Any,
    methods: MethodsArgument = "gradient",
    *,
    start: Any = None,
    layers: Sequence[Any] | None = None,
    draws: int = 5,
    seed: int = 0,
    preprocess: Preprocess | None = None,
    batch_size: int = 8,
    verbose: Verbose = "auto",
) -> CSCProfile:
    """Measure how fast a method forgets the layers above: cosine similarity convergence.

    Several random vectors take the place of the gradient at a layer's outputs, and are passed back
    under the rule of each method. If the rule maps all of them to the same direction, the map
    cannot show what the layers above say.

    Parameters
    ----------
    model, images, preprocess
        As for saliency_map; a keras.Model, and images (n, h, w, c), at least 8 for a verdict.
    methods
        Methods that are a rule of ReLUs, such as "gradient", "guided_backprop", "zeiler_fergus".
    start
        The layer at whose outputs (n, h, w, c) vectors begin: its name, path, index or the layer
        itself. By default, the last layer of more than one position.
    layers
        The layers at which vectors are compared; by default, the last one of each shape below.
    draws
        The number of vectors; all pairs of them are compared.
    seed
        The seed of the vectors.
    batch_size
        The number of images at a time.
    verbose
        As for saliency_map.

    Returns
    -------
    CSCProfile, which prints as a table.

    Raises
    ------
    ModelError, OptionError
        If layers cannot be inspected, are unknown, or have no positions, or a method is more than a
        rule.
    NoReluError, UncoveredReluError
        As for saliency_map.

    References
    ----------
    Sixt, Granz, Landgraf 2020, "When explanations lie: why many modified BP attributions fail",
    arXiv:1912.09818.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> photos = synthetic.make_shapes(2, seed=0).images
    >>> profile = tfs.csc_profile(synthetic.shapes_model(), photos, start="conv8",
    ...                           layers=["conv1"], verbose=0)
    >>> profile.start, profile.layers
    ('conv8', ('conv1',))
    """
    check_int("draws", draws, 2)
    check_int("seed", seed, 0)
    chosen = resolve_methods(methods)
    _check_rules(chosen)
    prepared = as_prepared(model, chosen, None, preprocess)
    batch = prepared.check(images)
    subject = prepared._subject(chosen, batch)
    with tracing:
        traced = trace_backward_vectors(subject, start, layers, draws)
    n, key = len(batch.images), tf.constant(seed)
    values = np.full((len(chosen), len(traced.layers), n), np.nan)
    with Progress(verbose, n, "image", name_methods(chosen)) as progress:
        for part in batches(n, batch.inputs.batch or batch_size):
            given = [tf.constant(array) for array in batch.padded(part)]
            count = len(range(n)[part])
            for m, of_method in enumerate(traced.run(given, key)):
                for k, cosines in enumerate(of_method):
                    values[m, k, part] = _medians(np.asarray(cosines)[:, :count])
            progress.advance(count)
    words = {
        "check": "cosine similarity convergence of random vectors",
        "start": traced.start,
        "vectors": str(draws),
        "images": str(n),
        "seed": str(seed),
    }
    parameters = {
        "start": traced.start, "layers": list(traced.layers), "draws": draws, "seed": seed,
        "batch_size": batch_size,
    }  # fmt: skip
    return CSCProfile(
        values,
        np.array([_chance(count) for count in traced.channels]),
        tuple(method.name for method in chosen),
        traced.layers,
        traced.start,
        Coverages(traced.coverage),
        describe_settings(prepared, chosen, words),
        make_record(prepared, "csc_profile", chosen, parameters, batch.images),
    )


def _check_rules(methods: Sequence[Method]) -> None:
    """Raise OptionError if a method is more than a rule."""
    others = [method.name for method in methods if method.composition is not None]
    if others:
        raise OptionError(
            "Expected methods that are a rule of ReLUs: gradient, guided_backprop, zeiler_fergus, "
            f"rect_grad, or a Method of a rule of your own. Received: {', '.join(others)}."
        )


def _medians(cosines: Array) -> Array:
    """Return the median of cosines (pairs, n, h, w) of each image, (n,)."""
    by_image = np.moveaxis(cosines, 1, 0).reshape(cosines.shape[1], -1)
    defined = np.isfinite(by_image)
    return np.array(
        [
            np.median(values[known]) if known.any() else np.nan
            for values, known in zip(by_image, defined, strict=True)
        ]
    )


def _chance(channels: int) -> float:
    """Return the median absolute cosine of random vectors with this number of channels."""
    rng = np.random.default_rng(0)
    # The first coordinate of a random unit vector: that of the second, turned to the first axis.
    first = rng.normal(size=_PAIRS)
    others = rng.chisquare(max(channels - 1, 1), _PAIRS) if channels > 1 else np.zeros(_PAIRS)
    return float(np.median(np.abs(first) / np.sqrt(first**2 + others)))
