"""Evaluation of methods on images with a known answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import Array, batches, digest_array
from ..diagnostics import OnProblem, check_on_problem
from ..display.progress import Progress, Verbose
from ..engine.functions import Model
from ..engine.scores import Score
from ..errors import ImageError, OptionError, check_int
from ..maps import Options, explain, resolve_reductions
from ..methods.table import MethodsArgument, resolve_methods
from ..prepared import Prepared, Preprocess, as_prepared
from ..records import digest_model
from ..records.making import describe_settings, make_record
from ..saliency_maps import SaliencyMaps
from ..synthetic.shapes import GroundTruth
from ..tables import DEFAULT_METHODS, ReductionName, ScoreName
from .controls import CONTROLS, Control
from .localization import METRICS, check_masks
from .result import CHANCE, Evaluation

_IMAGE_AXES = 4
_PART = 64  # images for which to compute controls at a time


def evaluate(
    model: Model | Prepared,
    data: GroundTruth,
    methods: MethodsArgument | None = None,
    *,
    score: ScoreName | Score | None = None,
    preprocess: Preprocess | None = None,
    reduction: ReductionName | None = None,
    seed: int = 0,
    batch_size: int = 32,
    on_problem: OnProblem = "warn",
    verbose: Verbose = "auto",
) -> Evaluation:
    """Measure the maps of methods on images with a known answer, beside controls.

    The maps explain each image's label, even if the model predicts another class; the attribute
    `correct` of the result marks images that the model classifies correctly.

    Parameters
    ----------
    model, score, preprocess, reduction, batch_size, on_problem, verbose
        As for saliency_map.
    data
        Images (n, h, w, c), the class to explain for each image (n,), and masks (n, h, w) of the
        relevant pixels: from make_shapes, or your own GroundTruth(images, labels, masks). A model
        with one output has the class 0.
    methods
        As for saliency_map; by default "gradient", "guided_backprop" and "zeiler_fergus", which
        need a model with ReLUs.
    seed
        The seed of the controls' noise.

    Returns
    -------
    Evaluation, which prints as a table.

    Raises
    ------
    ImageError, ModelError, OptionError
        As for saliency_map; also ImageError if masks and images differ in shape, and OptionError if
        labels are not one class index for each image.

    References
    ----------
    Arras, Osman and Samek 2022, "CLEVR-XAI", arXiv:2003.07258: known answers and two of the
    metrics.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> data = synthetic.make_shapes(8, seed=1)
    >>> result = tfs.evaluate(synthetic.shapes_model(), data, "gradient")
    >>> result.values.shape  # gradient and 4 controls, 4 metrics, 8 images
    (5, 4, 8)
    """
    labels, masks = _check(data)
    check_int("seed", seed, 0)
    chosen = resolve_methods(DEFAULT_METHODS if methods is None else methods)
    clash = sorted({method.name for method in chosen} & {*CONTROLS, CHANCE})
    if clash:
        raise OptionError(
            f"Expected method names that differ from those of controls. Received: {clash}."
        )
    prepared = as_prepared(model, chosen, score, preprocess)
    options = Options(labels, None, batch_size, check_on_problem(on_problem), reduction=reduction)
    batch = prepared.check(data.images)
    reduce = resolve_reductions(chosen, reduction)
    images = batch.preprocessed
    rng = np.random.default_rng(seed)
    values = []
    with Progress(verbose, 2 * len(chosen) + len(CONTROLS), "step", "evaluation") as progress:
        with progress.part(len(chosen)):
            maps = explain(prepared, batch, chosen, reduce, options)
        for measured in (*maps.values(), *CONTROLS.values()):
            array = _in_parts(measured, images, rng) if callable(measured) else measured
            values.append([metric(array, masks) for metric in METRICS.values()])
            progress.advance(1)
    counts = {
        "images": str(len(images)),
        "reduction": reduction or "that of each method",
        "seed": str(seed),
    }
    identity = digest_model(prepared.model)
    known = {} if maps.record is None else maps.record.parameters
    parameters = {**known, "seed": seed, "masks": digest_array(masks), "labels": labels.tolist()}
    return Evaluation(
        np.array(values),
        np.array([metric.chance_of(masks) for metric in METRICS.values()]),
        tuple(maps),
        tuple(CONTROLS),
        tuple(METRICS),
        _correct(maps, labels),
        maps.coverage,
        describe_settings(prepared, chosen, {**counts, "score": maps.score}, identity),
        maps.problems,
        record=make_record(prepared, "evaluate", chosen, parameters, batch.images, identity),
    )


def _check(data: Any) -> tuple[Array, Array]:
    """Check that the parts of a GroundTruth fit; return labels (n,) and masks (n, h, w)."""
    if not isinstance(data, GroundTruth):
        raise OptionError(
            "Expected a GroundTruth: synthetic.make_shapes(n, seed), or GroundTruth(images, "
            f"labels, masks). Received: {type(data).__name__}."
        )
    masks, labels = check_masks(data.masks), np.asarray(data.labels)
    if np.ndim(data.images) != _IMAGE_AXES or np.shape(data.images)[:3] != masks.shape:
        raise ImageError(
            f"Expected images (n, h, w, c) with (n, h, w) the masks' shape, {masks.shape}. "
            f"Received: {np.shape(data.images)}."
        )
    if labels.shape != masks.shape[:1] or labels.dtype.kind not in "iu":
        raise OptionError(
            f"Expected labels as {len(masks)} class indices, one for each image. Received: "
            f"{labels.dtype} of shape {labels.shape}. One-hot labels become indices by "
            "argmax(axis=-1), a column by labels[:, 0]."
        )
    return labels, masks


def _correct(maps: SaliencyMaps, labels: Array) -> Array | None:
    """Return whether the top class of each image is its label; None if outputs are no classes."""
    values = [maps.class_values(i) for i in range(len(labels))]
    if maps.meaning == "vector" or len(values[0]) < 2:
        return None
    return np.array([each.argmax() for each in values]) == labels


def _in_parts(control: Control, images: Array, rng: np.random.Generator) -> Array:
    """Compute a control of all images in parts, to limit the memory of float64 arrays."""
    return np.concatenate([control(images[part], rng) for part in batches(len(images), _PART)])
