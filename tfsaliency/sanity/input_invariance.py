"""input_invariance_check: maps of a network that gets shifted images and takes the shift away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ..arrays import Array
from ..diagnostics import OnProblem
from ..display.drawing import draw, plot
from ..display.progress import Verbose
from ..engine.coverage import Coverage
from ..engine.functions import Model
from ..engine.model_io import choose, declares_inputs, output_names, symbolic_ends
from ..engine.scores import Score
from ..errors import ModelError, OptionError, check_number, unknown_option
from ..maps import attributions
from ..methods.table import MethodsArgument, resolve_methods
from ..prepared import Prepared, Preprocess, as_prepared, prepare
from ..records import Record
from ..records.making import describe_settings, make_record
from ..records.saved import SavedResult
from ..statistics import nanmean
from ..tables import UNPRINTED, ScoreName, align

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INVARIANT, NOT_INVARIANT, UNKNOWN = "invariant", "not invariant", "cannot tell"
SAME = 0.01  # a change of maps below is that of rounding, also beside corners of ReLUs
_SAME_OUTPUTS = 1e-3
_SAME_OPTIONS = ("score", "precision", "jit_compile", "fold")  # of prepare, for both networks


@dataclass(frozen=True, eq=False)
class InputInvariance(SavedResult):
    """Changes of maps under a shift of the images that the network takes away again.

    Parameters
    ----------
    values : array
        The change of each map, as a fraction of its Euclidean norm, (methods, n).
    methods : tuple of str
        The methods.
    coverage : dict
        The number of ReLUs that each method's rule governs.
    settings : dict
        The settings in words.
    record : Record
        What the result was computed from, for verify.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> photos = synthetic.make_shapes(4, seed=0).images
    >>> found = tfs.input_invariance_check(synthetic.shapes_model(), photos,
    ...                                    ["gradient", "input_x_gradient"], verbose=0)
    >>> found.verdict("gradient"), found.verdict("input_x_gradient")
    ('invariant', 'not invariant')
    """

    values: Array
    methods: tuple[str, ...]
    coverage: Mapping[str, Coverage]
    settings: Mapping[str, str]
    record: Record

    def mean(self, method: str) -> float:
        """Return the mean change over images.

        Raises
        ------
        OptionError
            If the method is unknown.
        """
        if method not in self.methods:
            raise unknown_option("method", method, self.methods)
        return nanmean(self.values[self.methods.index(method)])

    def verdict(self, method: str) -> str:
        """Return "invariant" if the mean change is at most .01, else "not invariant".

        "cannot tell" stands for maps of zeros alone, whose change has no scale.
        """
        if np.isnan(self.mean(method)):
            return UNKNOWN
        return INVARIANT if self.mean(method) <= SAME else NOT_INVARIANT

    def plot(self) -> Figure:
        """Draw the change of each map, and the largest one that is taken for rounding.

        Returns
        -------
        matplotlib.figure.Figure. A notebook shows it, and plt.show() does if pyplot is in use.
        """
        return plot("invariance_figure.plot_invariance", self)

    def __repr__(self) -> str:
        return f"InputInvariance({list(self.methods)}, {self.values.shape[-1]} images)"

    def __str__(self) -> str:
        lines = [f"{k}: {v}" for k, v in self.settings.items() if k not in UNPRINTED]
        return "\n".join([*lines, "", *align(self.rows())])

    def _repr_html_(self) -> str:
        return str(draw("pages.invariance_page", self))

    def rows(self) -> list[list[str]]:
        """Return the change and the verdict of each method, with a row of names above."""
        rows = [["", "change", ""]]
        return rows + [[m, f"{self.mean(m):.2g}", self.verdict(m)] for m in self.methods]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {"values": (len(self.methods), self.values.shape[-1])}


def input_invariance_check(
    model: Model | Prepared,
    images: Any,
    methods: MethodsArgument = "gradient",
    *,
    shift: float | None = None,
    targets: Any = None,
    score: ScoreName | Score | None = None,
    preprocess: Preprocess | None = None,
    batch_size: int = 32,
    on_problem: OnProblem = "ignore",
    verbose: Verbose = "auto",
) -> InputInvariance:
    """Check whether maps stay the same if images are shifted, and the network takes it away again.

    A constant is added to the preprocessed images, and subtracted by a first layer of the network,
    so that all outputs are the same. A method that compares images with a fixed baseline, such as
    black, then draws another map: what it shows depends on where zero was.

    Parameters
    ----------
    model, images, methods, targets, score, preprocess, batch_size, on_problem, verbose
        As for saliency_map; a keras.Model with one input, and images (n, h, w, c).
    shift
        The constant; by default, the range of the preprocessed images.

    Returns
    -------
    InputInvariance, which prints as a table.

    Raises
    ------
    ImageError, ModelError, OptionError
        As for saliency_map; also ModelError if the model has several inputs, or its outputs change.

    References
    ----------
    Kindermans et al. 2019, "The (un)reliability of saliency methods", arXiv:1711.00867.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> photos = synthetic.make_shapes(4, seed=0).images
    >>> found = tfs.input_invariance_check(synthetic.shapes_model(), photos, verbose=0)
    >>> print(found.verdict("gradient"))
    invariant
    """
    chosen = resolve_methods(methods)
    prepared = as_prepared(model, chosen, score, preprocess)
    inner = prepared.model
    if not isinstance(inner, keras.Model) or not declares_inputs(inner) or len(inner.inputs) > 1:
        raise ModelError(
            "Expected a keras.Model with one input, built of layers. Received: "
            f"{type(inner).__name__}, or one with several."
        )
    batch = prepared.check(images)
    inputs = batch.preprocessed
    if shift is None:
        shift = float(np.ptp(inputs)) or 1.0
    check_number("shift", shift, -np.inf)
    shift = float(shift)
    if shift == 0:
        raise OptionError(f"Expected shift as a number other than 0. Received: {shift!r}.")
    options: Any = {"batch_size": batch_size, "on_problem": on_problem, "verbose": verbose}
    same: Any = {name: getattr(prepared, name) for name in _SAME_OPTIONS}
    own = prepare(inner, output=prepared.output, **same)
    before = attributions(own, inputs, chosen, targets=targets, **options)
    moved = prepare(_with_shift(inner, shift, prepared), **same)
    after = attributions(moved, inputs + shift, chosen, targets=before.targets, **options)
    size = np.abs(before.outputs).max()
    if not np.allclose(after.outputs, before.outputs, atol=_SAME_OUTPUTS * size):
        raise ModelError(
            f"Expected the outputs of the shifted network to be the same. Received: a difference "
            f"of {np.abs(after.outputs - before.outputs).max():.2g}. Use a smaller shift."
        )
    words = {
        "check": "input invariance: the images are shifted, and the network subtracts it",
        "shift": f"{shift:g}",
        "images": str(len(inputs)),
        "score": before.score,
    }
    parameters = {
        "targets": "top class" if targets is None else np.asarray(before.targets).tolist(),
        "shift": shift,
        "batch_size": batch_size,
    }
    return InputInvariance(
        np.array([_change(before[name], after[name]) for name in before]),
        tuple(before),
        before.coverage,
        describe_settings(prepared, chosen, words),
        make_record(prepared, "input_invariance_check", chosen, parameters, batch.images),
    )


def _with_shift(model: keras.Model, shift: float, prepared: Prepared) -> keras.Model:
    """Return a model that subtracts a constant from its input before another one sees it.

    It has the scored output alone, and the loss on which that was trained.
    """
    (first,) = model.inputs
    inputs = keras.Input(batch_shape=first.shape, dtype=first.dtype)
    layer = keras.layers.Rescaling(1.0, offset=-shift, dtype=inputs.dtype)
    outputs = keras.tree.flatten(model(layer(inputs)))
    names = output_names(model, symbolic_ends(model)[1])
    shifted = keras.Model(
        inputs, outputs[choose("output", names, prepared.output)], name=model.name
    )
    loss = prepared._loss()
    if loss is not None:
        shifted.compile(loss=loss)
    return shifted


def _change(before: Array, after: Array) -> Array:
    """Return the change of each map as a fraction of its norm, (n,); NaN for a map of zeros."""
    flat = [each.reshape(len(each), -1).astype(np.float64) for each in (before, after)]
    size = np.linalg.norm(flat[0], axis=1)
    change = np.linalg.norm(flat[1] - flat[0], axis=1)
    return np.where(size > 0, change / np.where(size > 0, size, 1), np.nan)
