"""Evaluation of methods on images, with or without a known answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..arrays import Array, batches, digest_array
from ..diagnostics import OnProblem, check_on_problem
from ..display.progress import Progress, Verbose
from ..engine.functions import Model
from ..engine.model_io import Batch
from ..engine.scores import Score
from ..errors import ImageError, OptionError, check_int
from ..maps import Options, Reductions, explain, resolve_reductions
from ..methods.table import Method, MethodsArgument, resolve_methods
from ..prepared import Prepared, Preprocess, as_prepared
from ..records import digest_model
from ..records.making import describe_settings, make_record
from ..saliency_maps import SaliencyMaps
from ..synthetic.shapes import GroundTruth
from ..tables import DEFAULT_METHODS, ReductionName, ScoreName
from .controls import CONTROLS, Control
from .localization import check_masks
from .metric import Context, Metric
from .result import Evaluation
from .scoring import Scoring, make_scoring
from .table import MetricsArgument, metric_to_plain, resolve_metrics
from .verdict import CHANCE

_IMAGE_AXES = 4
_PART = 64  # images for which to compute controls at a time


def evaluate(
    model: Model | Prepared,
    data: Any,
    methods: MethodsArgument | None = None,
    *,
    metrics: MetricsArgument | None = None,
    targets: Any = None,
    score: ScoreName | Score | None = None,
    preprocess: Preprocess | None = None,
    reduction: ReductionName | None = None,
    seed: int = 0,
    batch_size: int = 32,
    on_problem: OnProblem = "warn",
    verbose: Verbose = "auto",
) -> Evaluation:
    """Measure the maps of methods, beside controls that no network made.

    With masks of the relevant pixels, metrics compare maps with these. Without, they compare maps
    with what the network says about perturbed images. Each number stands beside those of controls:
    noise, edges, the image times noise, a blob, and the method's map of another photo;
    `result.verdict` says whether a method is better than all of them.

    Parameters
    ----------
    model, score, preprocess, reduction, batch_size, on_problem, verbose
        As for saliency_map.
    data
        Images (n, h, w, c); or a GroundTruth of images, the class to explain for each image (n,),
        and masks (n, h, w) of the relevant pixels: from make_shapes, or your own
        GroundTruth(images, labels, masks). A model with one output has the class 0.
    methods
        As for saliency_map; by default "gradient", "guided_backprop" and "zeiler_fergus", which
        need a model with ReLUs.
    metrics
        A key of METRICS, a Metric or a function (maps (m, h, w), context) -> (m,), see Context, or
        several. By default the four localization metrics for data with masks, else "insertion"
        and "pixel_flipping_gap".
    targets
        The classes to explain, for images alone, as for saliency_map; by default the top class of
        each image. Labels of a GroundTruth are explained even if the model predicts another class;
        the attribute `correct` of the result marks images that the model classifies correctly.
    seed
        The seed of random numbers of controls and metrics.

    Returns
    -------
    Evaluation, which prints as a table.

    Raises
    ------
    ImageError, ModelError, OptionError
        As for saliency_map; also ImageError if images are not (n, h, w, c), or masks and images
        differ in shape, and OptionError if a metric is unknown or needs masks, or labels are not
        one class index for each image.

    References
    ----------
    Arras, Osman and Samek 2022, "CLEVR-XAI", arXiv:2003.07258: known answers and two of the
    metrics. Those of other metrics are at their classes, such as Deletion.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> data = synthetic.make_shapes(8, seed=1)
    >>> result = tfs.evaluate(synthetic.shapes_model(), data, "gradient")
    >>> result.values.shape  # gradient and 4 controls, 4 metrics, 8 images
    (5, 4, 8)
    >>> result = tfs.evaluate(synthetic.shapes_model(), data.images, "gradient", metrics="deletion")
    >>> bool(result.mean("gradient", "deletion") < result.mean("random_map", "deletion"))
    True
    """
    known = isinstance(data, GroundTruth)
    labels, masks = _check(data, targets) if known else (targets, None)
    chosen_metrics = resolve_metrics(metrics, known)
    check_int("seed", seed, 0)
    chosen = resolve_methods(DEFAULT_METHODS if methods is None else methods)
    _check_names(chosen)
    prepared = as_prepared(model, chosen, score, preprocess)
    options = Options(labels, None, batch_size, check_on_problem(on_problem))
    batch = _check_images(prepared, data.images if known else data)
    reduce = resolve_reductions(chosen, reduction)
    with Progress(verbose, len(chosen) + len(batch.images), "step", "evaluation") as progress:
        with progress.part(len(chosen)):
            found = explain(prepared, batch, chosen, None, options)
        scoring = make_scoring(
            prepared, batch, chosen, reduce, tuple(CONTROLS.values()), found, batch_size
        )
        maps = _Maps(found, reduce, batch.preprocessed, seed)
        values = _measure(chosen_metrics, scoring, maps, masks, batch_size, seed, progress)
    result = Evaluation(
        values[: len(chosen) + len(CONTROLS)],
        np.array([_chance(metric, masks, len(batch.images)) for metric in chosen_metrics]),
        tuple(found),
        tuple(CONTROLS),
        tuple(metric.name for metric in chosen_metrics),
        _correct(found, labels) if known else None,
        found.coverage,
        {},
        found.problems,
        other_photo=values[len(chosen) + len(CONTROLS) :],
        directions=tuple(int(metric.direction or 0) for metric in chosen_metrics),
    )
    drawn = {"reduction": reduction, "seed": seed}
    return _recorded(result, prepared, batch, found, chosen, chosen_metrics, masks, drawn)


def _recorded(
    result: Evaluation,
    prepared: Prepared,
    batch: Batch,
    maps: SaliencyMaps,
    methods: tuple[Method, ...],
    metrics: tuple[Metric, ...],
    masks: Array | None,
    options: Mapping[str, Any],
) -> Evaluation:
    """Return a result with its settings and its record."""
    words = {
        "images": str(len(batch.images)),
        "reduction": options["reduction"] or "that of each method",
        "seed": str(options["seed"]),
        "score": maps.score,
    }
    parameters = {
        **({} if maps.record is None else maps.record.parameters),
        **options,
        "masks": None if masks is None else digest_array(masks),
        "labels": maps.targets.tolist(),
        "metrics": [metric_to_plain(metric) for metric in metrics],
    }
    identity = digest_model(prepared.model)
    return replace(
        result,
        settings=describe_settings(prepared, methods, words, identity),
        record=make_record(prepared, "evaluate", methods, parameters, batch.images, identity),
    )


def _chance(metric: Metric, masks: Array | None, n: int) -> Array:
    return np.full(n, np.nan) if masks is None else metric.chance_of(masks)


class _Maps:
    """The maps that metrics measure: of methods, of controls, and of methods for another photo.

    Parameters
    ----------
    found
        The attributions of the methods.
    reduce
        Their channel reductions.
    images
        The preprocessed images.
    seed
        The seed of the controls' noise.
    """

    def __init__(self, found: SaliencyMaps, reduce: Reductions, images: Array, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._attributions, self._reduce = list(found.values()), reduce
        self._controls = [_in_parts(control, images, rng) for control in CONTROLS.values()]
        self._channels = images.shape[-1]

    def of(self, image: int) -> tuple[Array, Array]:
        """Return the attributions (rows, h, w, c) and the maps (rows, h, w) of an image."""
        n = len(self._controls[0])
        own = [each[image] for each in self._attributions]
        others = [each[(image + 1) % n] for each in self._attributions]
        controls = [each[image] for each in self._controls]
        twice = list(zip([*own, *others], [*self._reduce, *self._reduce], strict=True))
        reduced = [np.asarray(one(each)) for each, one in twice]
        m = len(own)
        every = [*own, *(each[..., np.newaxis] for each in controls), *others]
        attributions = np.stack([self._spread(each) for each in every])
        return attributions, np.stack([*reduced[:m], *controls, *reduced[m:]])

    def _spread(self, values: Array) -> Array:
        """Return attributions (h, w, c) of the image's channels; one value is divided evenly."""
        if values.shape[-1] == self._channels:
            return values
        return np.repeat(values / self._channels, self._channels, axis=-1)


def _measure(
    metrics: tuple[Metric, ...],
    scoring: Scoring,
    maps: _Maps,
    masks: Array | None,
    batch_size: int,
    seed: int,
    progress: Progress,
) -> Array:
    """Return the values (methods + controls + methods for another photo, metrics, images)."""
    n, m = len(scoring.targets), len(scoring.methods)
    rows = m + len(scoring.controls)
    values = np.full((rows + m, len(metrics), n), np.nan)
    for image in range(n):
        attributions, reduced = maps.of(image)
        point = scoring.batch.preprocessed[image]
        context = Context(
            point,
            attributions,
            None if masks is None else masks[image],
            scoring.found[image],
            partial(scoring.scored, image),
            partial(scoring.maps, image, seed),
            scoring.batch.inputs.batch or batch_size,
            seed,
            scoring.to_probabilities is not None,
        )
        # Maps that order nothing have no value, and there may be no other photo.
        judged = _varies(reduced) & (np.arange(len(reduced)) < (rows if n == 1 else len(reduced)))
        every = np.arange(len(reduced)) < rows
        for k, metric in enumerate(metrics):
            chosen = judged if metric.direction else every
            if chosen.any():
                part = replace(
                    context,
                    attributions=attributions[chosen],
                    explain_points=partial(_explain, scoring, image, seed, reduced[rows:], chosen),
                )
                values[chosen, k, image] = metric(reduced[chosen], part)
        progress.advance(1)
    return values


def _explain(
    scoring: Scoring, image: int, seed: int, others: Array, chosen: Array, points: Array
) -> Array:
    """Return the chosen maps of points (k, h, w, c); those of another photo stay what they are."""
    found = scoring.maps(image, seed, points)
    kept = np.repeat(others[np.newaxis], len(points), axis=0)
    return np.asarray(np.concatenate([found, kept], axis=1)[:, chosen])


def _varies(maps: Array) -> Array:
    """Return whether each map (m, h, w) is finite and not constant: others order nothing."""
    flat = maps.reshape(len(maps), -1)
    finite = np.asarray(np.isfinite(flat).all(axis=1))
    return np.asarray(finite & (np.ptp(np.where(finite[:, np.newaxis], flat, 0), axis=1) > 0))


def _check_images(prepared: Prepared, images: Any) -> Batch:
    """Return a batch of images (n, h, w, c), or raise ImageError."""
    batch = prepared.check(images)
    if batch.preprocessed.ndim != _IMAGE_AXES:
        raise ImageError(
            f"Expected images (n, h, w, c). Received: shape {batch.preprocessed.shape}."
        )
    return batch


def _check_names(methods: tuple[Method, ...]) -> None:
    """Raise OptionError if a method is called like a control."""
    clash = sorted({method.name for method in methods} & {*CONTROLS, CHANCE})
    if clash:
        raise OptionError(
            f"Expected method names that differ from those of controls. Received: {clash}."
        )


def _check(data: GroundTruth, targets: Any) -> tuple[Array, Array]:
    """Check that the parts of a GroundTruth fit; return labels (n,) and masks (n, h, w)."""
    if targets is not None:
        raise OptionError(
            "Expected the labels of the GroundTruth as classes to explain. Received: targets, too. "
            "Use GroundTruth(images, targets, masks)."
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
