"""Saliency maps and attributions of a batch of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from .arrays import Array, resolve_reduction, to_storable
from .diagnostics import (
    OnProblem,
    Problems,
    check_on_problem,
    convergence_problems,
    layer_problems,
    map_problems,
    raise_problems,
    report,
    run_problems,
)
from .display.progress import Progress, Verbose, check_verbose
from .engine.build import run_in_parts
from .engine.coverage import Coverage, Coverages, cover
from .engine.functions import Model
from .engine.gradients import Gradients, Trace
from .engine.model_io import Batch
from .engine.scores import Score, require_score
from .engine.targets import TOP_CLASS, check_class_names, resolve_targets
from .methods.cell_grids import CellGrid
from .methods.table import Method, MethodsArgument, resolve_methods, with_layer
from .prepared import Prepared, Preprocess, as_prepared
from .records import Record
from .records.making import describe_settings, make_record
from .saliency_maps import SaliencyMaps
from .tables import ReductionName, ScoreName


def attributions(
    model: Model | Prepared,
    images: Any,
    methods: MethodsArgument = "gradient",
    *,
    targets: Any = None,
    class_names: Sequence[str] | None = None,
    score: ScoreName | Score | None = None,
    preprocess: Preprocess | None = None,
    layer: Any = None,
    region: Any = None,
    batch_size: int = 32,
    on_problem: OnProblem = "warn",
    verbose: Verbose = "auto",
) -> SaliencyMaps:
    """Compute signed attributions (n, h, w, c), before the channels are reduced.

    Parameters
    ----------
    model, images, methods, targets, class_names, score, preprocess, layer, region, batch_size, \
on_problem, verbose
        As for saliency_map.

    Returns
    -------
    SaliencyMaps with arrays (n, h, w, c): the derivative of the score with respect to each value of
    the preprocessed image, under the rule of each method.

    Raises
    ------
    ImageError, ModelError, OptionError
        As for saliency_map.

    References
    ----------
    See saliency_map.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2, use_bias=False)])
    >>> slope = tfs.attributions(model, np.ones((4, 4, 3)), targets=0)["gradient"]
    >>> weights = model.layers[-1].get_weights()[0]
    >>> bool(np.allclose(slope.ravel(), weights[:, 0]))
    True
    """
    resolved = with_layer(resolve_methods(methods), layer)
    prepared = as_prepared(model, resolved, score, preprocess)
    options = Options(
        targets, class_names, batch_size, check_on_problem(on_problem), check_verbose(verbose)
    )
    return explain(prepared, prepared.check(images, region), resolved, None, options)


def saliency_map(
    model: Model | Prepared,
    images: Any,
    methods: MethodsArgument = "gradient",
    *,
    targets: Any = None,
    class_names: Sequence[str] | None = None,
    score: ScoreName | Score | None = None,
    preprocess: Preprocess | None = None,
    reduction: ReductionName | None = None,
    layer: Any = None,
    region: Any = None,
    batch_size: int = 32,
    on_problem: OnProblem = "warn",
    verbose: Verbose = "auto",
) -> SaliencyMaps:
    """Compute saliency maps: how much each pixel changes the score of a class.

    Parameters
    ----------
    model
        A built keras.Model, a callable of TensorFlow operations from images to outputs, or the
        result of prepare. It is not changed; its current weights are read at every call.
    images
        One image (h, w, c) or a batch (n, h, w, c): NumPy, tf.Tensor, PIL, or a list of these. Use
        load_images for files. Models of sequences take (n, t, c), models of volumes
        (n, d, h, w, c), and models of several inputs a dict or a tuple; see prepare.
    methods
        Keys of METHODS, Methods or compositions such as SmoothGrad(samples=20), or a sequence of
        these; they share one forward pass.
    targets
        The class to explain: None (each image's top class), an index, a name from class_names, or
        one of these per image.
    class_names
        The names of the classes, in the order of the model's outputs.
    score
        The score to differentiate, see prepare; "logit" by default.
    preprocess
        Preprocessing applied to a copy of the images, see prepare. Gradients are with respect to
        its result.
    reduction
        Reduction of channels: "sum_abs" (sum of absolute values), "max_abs" or "sum" (signed); None
        uses each method's default: "sum" for maps that are never negative, else "sum_abs".
    layer
        The layer of all class activation maps that name none: a name, a path, an index or a layer,
        see CAM.
    region
        The positions to explain of outputs (n, h, w, classes), as of a segmentation: a mask (h, w)
        of the outputs' size for all images, or (n, h, w), boolean or weights. A named score is the
        mean over it; None is all positions.
    batch_size
        The number of images to pass through the model at a time.
    on_problem
        Treatment of meaningless maps: "warn" (see SaliencyWarning), "raise" or "ignore". The
        attribute `problems` of the result lists them in any case.
    verbose
        Progress with the time left, on standard error or in the notebook: "auto" (after a second,
        as a bar in a terminal or a notebook, which is removed at the end, else as lines), 0 (none),
        1 (a bar that stays) or 2 (a line for each batch).

    Returns
    -------
    SaliencyMaps, a mapping of method names to float arrays (n, h, w).

    Raises
    ------
    ImageError
        If the model cannot take the images.
    NoReluError, UncoveredReluError, OpaqueModelError
        If a modified rule cannot reach every ReLU: a wrong map is never returned.
    GeometryError
        If the cells of the layer of a class activation map have no place in the image.
    ModelError
        If there is no derivative: an integer input, or a score that does not depend on the input.
    MeaninglessMapError
        If a map is meaningless and on_problem is "raise".
    OptionError
        If a method, score, reduction or class is unknown.

    References
    ----------
    Simonyan et al. 2013, arXiv:1312.6034 (gradient; the reductions); Springenberg et al. 2014,
    arXiv:1412.6806 (guided backpropagation); Zeiler and Fergus 2014, arXiv:1311.2901.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((8, 8, 3)),
    ...                           keras.layers.Conv2D(32, 3, activation="relu"),
    ...                           keras.layers.GlobalAveragePooling2D(),
    ...                           keras.layers.Dense(5, activation="softmax")])
    >>> images = np.random.default_rng(0).uniform(-1, 1, size=(2, 8, 8, 3))
    >>> maps = tfs.saliency_map(model, images, ["gradient", "guided_backprop"])
    >>> maps["guided_backprop"].shape
    (2, 8, 8)
    >>> print(maps.coverage["guided_backprop"])
    guided_backprop: 1 of 1 ReLUs (clone)
    """
    resolved = with_layer(resolve_methods(methods), layer)
    prepared = as_prepared(model, resolved, score, preprocess)
    reduce = resolve_reductions(resolved, reduction)
    options = Options(
        targets,
        class_names,
        batch_size,
        check_on_problem(on_problem),
        check_verbose(verbose),
        reduction,
    )
    return explain(prepared, prepared.check(images, region), resolved, reduce, options)


_NAMED = 3  # methods beside the progress

# The MATLAB original's name of the same function.
gradient_map = saliency_map


Reductions: TypeAlias = Sequence[Callable[[tf.Tensor], tf.Tensor]]


def resolve_reductions(methods: Sequence[Method], reduction: str | None) -> Reductions:
    """Return the channel reduction of each method."""
    return [
        resolve_reduction(method.channel_reduction if reduction is None else reduction)
        for method in methods
    ]


@dataclass(frozen=True, eq=False)
class Options:
    """The options of one call besides model, images and methods; see saliency_map."""

    targets: Any = None
    class_names: Sequence[str] | None = None
    batch_size: int = 32
    on_problem: str = "warn"
    verbose: Verbose = "auto"
    reduction: str | None = None


def explain(
    prepared: Prepared,
    batch: Batch,
    methods: tuple[Method, ...],
    reduce: Reductions | None,
    options: Options,
) -> SaliencyMaps:
    """Compute the maps of a checked batch, or the attributions if there are no reductions.

    Warnings point at the caller of the public function.
    """
    raise_problems(batch.problems, options.on_problem)
    names, n = options.class_names, len(batch.images)
    features = batch.preprocessed.ndim == 2  # (n, f): a feature is a position without channels
    with Progress(options.verbose, n, "image", name_methods(methods)) as progress:
        trace = prepared.trace(methods, batch)
        check_class_names(names, trace.classes)
        targets = resolve_targets(options.targets, n, names, trace.classes)
        if prepared.score is None:
            require_score(trace.meaning, trace.classes, bool((targets != TOP_CLASS).all()))
        facts, arrays = _run(trace, batch, targets, reduce, options.batch_size, progress)
    chosen, outputs = facts.targets, to_storable(facts.outputs)
    details = {
        method.name: each
        for method, own in zip(methods, facts.details, strict=False)
        if (each := _details(own, method, trace, len(chosen)))
    }
    by_method = {method.name: array for method, array in zip(methods, arrays, strict=True)}
    uncertain = {name: [c.why for c in choices] for name, choices in trace.choices.items()}
    problems = Problems(
        (
            *batch.problems,
            *run_problems(outputs, facts.scores, facts.saturated, trace.random),
            *layer_problems(uncertain, len(chosen)),
            *map_problems(by_method, reduce is None and not features, facts.saturated, details),
            *convergence_problems(details),
        )
    )
    report(problems, options.on_problem, stacklevel=3)
    return SaliencyMaps(
        by_method,
        np.array(batch.images),  # the caller's own array may change
        chosen,
        facts.scores,
        _score_in_words(prepared, trace, chosen),
        outputs,
        Coverages({method.name: _coverage(method, trace) for method in methods}),
        problems=problems,
        details=details,
        meaning=trace.meaning,
        class_names=() if names is None else tuple(map(str, names)),
        settings=describe_settings(prepared, methods, {}),
        record=_record(prepared, methods, reduce is None, batch, options),
    )


def _record(
    prepared: Prepared, methods: Sequence[Method], signed: bool, batch: Batch, options: Options
) -> Record:
    """Return the record of saliency_map, or of attributions, which are signed."""
    parameters = {
        "targets": "top class" if options.targets is None else "given",
        "reduction": options.reduction,
        "batch_size": options.batch_size,
        **batch.describe_constants(),
    }
    call = "attributions" if signed else "saliency_map"
    return make_record(prepared, call, methods, parameters)


def _run(
    trace: Trace,
    batch: Batch,
    targets: Array,
    reduce: Reductions | None,
    batch_size: int,
    progress: Progress,
) -> tuple[Gradients, list[Array]]:
    """Run a trace on all parts of a batch; return its facts and the maps of each method."""
    features = batch.preprocessed.ndim == 2
    parts = []
    for result in run_in_parts(trace, batch, targets, batch_size, progress):
        gradients = [g[..., tf.newaxis] if features and reduce else g for g in result.gradients]
        maps = [one(g) for one, g in zip(reduce, gradients, strict=True)] if reduce else gradients
        kept = (result._replace(gradients=(), layer=()), maps)
        parts.append(tf.nest.map_structure(np.asarray, kept))  # copied when they are joined
    facts, arrays = tf.nest.map_structure(lambda *each: np.concatenate(each), *parts)
    return facts, arrays


def name_methods(methods: Sequence[Method]) -> str:
    """Name the methods of a call, the first ones if there are many."""
    names = [method.name for method in methods]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _score_in_words(prepared: Prepared, trace: Trace, targets: Array) -> str:
    """Return the score in words, with the number of an output that is not known to be a class."""
    numbers = set(targets.tolist())
    if prepared.score is None and trace.meaning == "outputs" and len(numbers) == 1:
        return trace.score.replace("output", f"output {numbers.pop()}", 1)
    return trace.score


def _coverage(method: Method, trace: Trace) -> Coverage:
    if layers := trace.layers.get(method.name):
        counts = Counter(rule for _, rule in layers)
        return Coverage(method.name, 0, 0, "graph", layers=dict(sorted(counts.items())))
    grids = _grids(method, trace)
    return cover(method.name, method.backward_rule, trace.census, trace.engine, grids)


def _grids(method: Method, trace: Trace) -> tuple[CellGrid, ...]:
    """Return the cells of the layers that a method uses."""
    return tuple(choice.cells.grid for choice in trace.choices.get(method.name, ()))


def _details(own: Mapping[str, Array], method: Method, trace: Trace, n: int) -> dict[str, Array]:
    """Return the details of a method, with the names of layers."""
    details = {**own, **_cell_details(_grids(method, trace), n)}
    if "worst_layer" in details:
        names = [layer for layer, _ in trace.layers[method.name]]
        details["worst_layer"] = np.array([names[int(i)] for i in details["worst_layer"]])
    return details


def _cell_details(grids: Sequence[CellGrid], n: int) -> dict[str, Array]:
    """Return the layer of a class activation map and its cells as details of n images."""
    if len(grids) != 1:
        return {}
    return {name: np.full(n, value) for name, value in grids[0].summary().items()}
