"""Data randomization: dependence of maps on the labels that the network learned.

The other networks have the same architecture, and were trained on permuted labels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ..arrays import Array
from ..diagnostics import OnProblem, check_on_problem, report
from ..display.progress import Progress, Verbose
from ..engine.build import outputs_differ
from ..engine.functions import digest_weights
from ..engine.gradients import Trace
from ..engine.scores import Score
from ..errors import ModelError, OptionError, check_int
from ..methods.table import METHODS, MethodsArgument, resolve_methods
from ..prepared import Prepared, Preprocess, prepare
from ..records import digest_model
from ..similarity import SimilaritiesArgument, resolve_similarities
from ..tables import ScoreName
from .comparison import Inputs, Variant
from .result import SanityResult, StepRecord
from .run import Settings, check_inputs, compare_variants, make_result, resolve_seeds

LEARNED = 0.95  # least training accuracy of a network that has learned its labels
_DONE = 0.99  # training accuracy at which training stops
_ROUNDING = 1e-6  # error of an accuracy in float32
_SAME = 1e-2  # of the largest output; rounding errors are smaller
_METRIC = "accuracy"


@dataclass(frozen=True, eq=False)
class PermutedLabelModels:
    """A trained network, and networks of the same architecture trained on permuted labels.

    Parameters
    ----------
    model
        The network trained on the labels.
    permuted
        Networks trained on the same images, each with another permutation of the labels.
    accuracies
        The training accuracy of the model, then of each permuted network.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> tfs.train_permuted_label_models.__name__  # returns them
    'train_permuted_label_models'
    """

    model: keras.Model
    permuted: tuple[keras.Model, ...]
    accuracies: tuple[float, ...]


def train_permuted_label_models(
    build: Callable[[], keras.Model],
    images: Any,
    labels: Any,
    *,
    seeds: int | Sequence[int] = 4,
    epochs: int = 100,
    batch_size: int = 32,
    verbose: Verbose = "auto",
) -> PermutedLabelModels:
    """Train a network on labels, and others of the same architecture on permuted labels.

    Training ends at a training accuracy of 99 %, measured after each epoch in inference mode.
    Memorizing labels needs many epochs and little regularization. Call
    keras.utils.set_random_seed before for reproducible networks.

    Parameters
    ----------
    build
        A function without arguments that returns a new, untrained keras.Model, compiled with
        metrics=["accuracy"].
    images, labels
        Arguments x and y of Model.fit: arrays of n preprocessed images (n, h, w, c) and n labels.
    seeds
        The number of networks to train on permuted labels, or the seeds of the permutations.
    epochs
        The largest number of epochs.
    batch_size
        As for Model.fit.
    verbose
        Progress, as for saliency_map.

    Returns
    -------
    PermutedLabelModels

    Raises
    ------
    ModelError
        If build does not return a new compiled keras.Model each time, or a training accuracy stays
        below 95 %.
    OptionError
        If images and labels are not arrays of the same length, a permutation leaves the labels
        unchanged, or seeds, epochs or batch_size are impossible.

    References
    ----------
    Adebayo et al. 2018, arXiv:1810.03292, section 4.2; Zhang et al. 2017, arXiv:1611.03530
    (networks that learn random labels).

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> keras.utils.set_random_seed(0)
    >>> def build():
    ...     model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(),
    ...                               keras.layers.Dense(64, activation="relu"),
    ...                               keras.layers.Dense(2)])
    ...     loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ...     model.compile(keras.optimizers.Adam(.01), loss, metrics=["accuracy"])
    ...     return model
    >>> images = np.random.default_rng(0).normal(size=(24, 6, 6, 1))
    >>> labels = (images.mean(axis=(1, 2, 3)) > 0).astype(int)
    >>> models = tfs.train_permuted_label_models(build, images, labels, seeds=2, verbose=0)
    >>> min(models.accuracies) > .95
    True
    """
    numbers = resolve_seeds(seeds)
    check_int("epochs", epochs, 1)
    check_int("batch_size", batch_size, 1)
    x, y = _array("images", images), _array("labels", labels)
    if not x.ndim or not len(x) or x.shape[:1] != y.shape[:1]:
        raise OptionError(
            "Expected one label for each image, as arrays. "
            f"Received: shapes {x.shape} and {y.shape}."
        )
    tasks = {"labels": y}
    for seed in numbers:
        permuted = np.random.default_rng(seed).permutation(y)
        if np.array_equal(permuted, y):
            raise OptionError(
                "Expected labels that a permutation changes: more images, of two or more classes. "
                f"Received: {len(y)} labels that seed {seed} leaves as they are."
            )
        tasks[f"permuted labels, seed {seed}"] = permuted
    models: list[keras.Model] = []
    accuracies = []
    with Progress(verbose, len(tasks), "network", "training") as progress:
        for name, own in tasks.items():
            model = _built(build)
            if any(model is other for other in models):
                raise ModelError(
                    "Expected build to return a new network each time. Received: the same network "
                    "twice; training it again would overwrite what it learned."
                )
            with progress.part(1):
                accuracies.append(_learned(model, x, own, name, epochs, batch_size))
            models.append(model)
    return PermutedLabelModels(models[0], tuple(models[1:]), tuple(accuracies))


def data_randomization_check(
    model: Any,
    images: Any,
    methods: MethodsArgument = "gradient",
    *,
    permuted: keras.Model | Sequence[keras.Model] | PermutedLabelModels | None = None,
    data: tuple[Any, Any] | None = None,
    similarities: SimilaritiesArgument | None = None,
    targets: Any = None,
    score: ScoreName | Score | None = None,
    preprocess: Preprocess | None = None,
    batch_size: int = 32,
    on_problem: OnProblem = "warn",
    verbose: Verbose = "auto",
) -> SanityResult:
    """Check whether maps depend on the labels that the network learned.

    The maps of a trained network are compared with those of networks of the same architecture that
    memorized permuted labels, for the same images and classes.

    Parameters
    ----------
    model
        The trained network. With data, the function build of train_permuted_label_models, which
        then trains all networks with its defaults; call it yourself to set options or keep the
        networks.
    images
        Images (n, h, w, c) as for saliency_map: at least 8, of different things.
    methods, targets, score, preprocess, batch_size, on_problem
        As for saliency_map.
    permuted
        The networks trained on permuted labels, at least two for a verdict: the result of
        train_permuted_label_models, or your own.
    data
        Preprocessed (images, labels) to train on, instead of permuted; preprocess applies to
        `images` only.
    similarities
        As for sanity_check.
    verbose
        Progress, as for saliency_map.

    Returns
    -------
    SanityResult with one step, "permuted labels", one seed for each network, and verdicts such as
    "depends on the labels".

    Raises
    ------
    ImageError, ModelError, OptionError
        As for saliency_map and train_permuted_label_models; also if the networks differ in
        architecture.

    References
    ----------
    Adebayo et al. 2018, arXiv:1810.03292, section 4.2.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(8, seed=3).images
    >>> others = synthetic.permuted_label_models()
    >>> result = tfs.data_randomization_check(
    ...     synthetic.shapes_model(), images, permuted=others, verbose=0)
    >>> print(result.verdicts["gradient"][0].verdict)
    depends on the labels
    """
    check_on_problem(on_problem)
    methods = resolve_methods(methods)
    similarities = None if similarities is None else resolve_similarities(similarities)
    _check_choice(model, permuted, data)
    words = {"check": "data randomization: networks that learned permuted labels"}
    if data is not None:
        permuted = train_permuted_label_models(model, *_pair(data), verbose=verbose)
        model = permuted.model
        words["training accuracy"] = ", ".join(f"{share:.1%}" for share in permuted.accuracies)
    if isinstance(permuted, PermutedLabelModels):
        permuted = permuted.permuted
    others = (permuted,) if isinstance(permuted, keras.Model) else tuple(permuted or ())
    inputs = check_inputs(
        model, images, methods, targets, score, preprocess, batch_size, on_problem, verbose=verbose
    )
    _check_models(inputs, others)

    def variants() -> Iterator[Variant]:
        for r, each in enumerate(others):
            weights = [weight.numpy() for weight in each.weights]
            yield Variant(0, r, weights, inputs.trained.targets)

    settings = Settings(
        similarities, 0.0, verbose, words["check"], "the labels", "data_randomization_check",
        {"permuted": [digest_model(each).weights for each in others]},
    )  # fmt: skip
    numbers = tuple(range(len(others)))
    comparison = compare_variants(inputs, 1, numbers, variants(), settings)
    steps = (StepRecord("permuted labels", (), 0, ()),)
    result = make_result(inputs, comparison, steps, numbers, 0, settings, words)
    report(result.problems, on_problem, stacklevel=2)
    return result


def _check_choice(model: Any, permuted: Any, data: Any) -> None:
    """Raise OptionError or ModelError for a wrong combination of model, permuted and data."""
    if (permuted is None) == (data is None):
        raise OptionError(
            "Expected either permuted, networks that learned permuted labels, or data, (images, "
            "labels) to train on. Received: " + ("none." if data is None else "both.")
        )
    known = (keras.Model, list, tuple, PermutedLabelModels)
    if permuted is not None and not isinstance(permuted, known):
        raise OptionError(
            "Expected permuted as a keras.Model, a list of them, or the result of "
            "train_permuted_label_models. "
            f"Received: {type(permuted).__name__}."
        )
    if data is None and not isinstance(model, (keras.Model, Prepared)):
        raise ModelError(
            "Expected a trained keras.Model, or with data=(images, labels) a function that builds "
            f"one. Received: {type(model).__name__}, without data."
        )


def _array(what: str, value: Any) -> Array:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in "uifb":
        raise OptionError(
            f"Expected {what} as an array of numbers of one shape. "
            f"Received: {type(value).__name__} {value!r:.100}."
        )
    return array


def _built(build: Any) -> keras.Model:
    model = build() if _needs_nothing(build) else None
    if not isinstance(model, keras.Model) or not model.compiled:
        received = f"{build!r:.200}" + (f", which returns {model!r:.200}" if model else "")
        raise ModelError(
            "Expected build as a function without arguments that returns a new, compiled "
            f"keras.Model. Received: {received}."
        )
    return model


def _needs_nothing(build: Any) -> bool:
    """Return whether a function can be called without arguments."""
    if isinstance(build, keras.Model):
        return False
    try:
        inspect.signature(build).bind()
    except TypeError:
        return False
    return True


def _learned(
    model: keras.Model,
    images: Array,
    labels: Array,
    name: str,
    epochs: int,
    batch_size: int,
) -> float:
    """Train a network and return its training accuracy, at least 95 %."""
    reached = 0.0
    with Progress("auto", epochs, "epoch") as progress:
        for _ in range(epochs):
            model.fit(images, labels, batch_size=batch_size, verbose=0)
            found = model.evaluate(
                images, labels, batch_size=batch_size, verbose=0, return_dict=True
            )
            if _METRIC not in found:
                raise ModelError(
                    f"Expected build to compile with metrics=[{_METRIC!r}]. Received: {[*found]}."
                )
            reached = float(found[_METRIC])
            if reached >= _DONE:
                break
            progress.advance(1)
    if reached < LEARNED - _ROUNDING:
        raise ModelError(
            f"The network trained on {name} reached a training accuracy of {reached:.1%}. Expected "
            f"at least {LEARNED:.0%}: a network that did not learn its labels cannot serve as a "
            "comparison. Give more epochs, less regularization, a larger network, or fewer images."
        )
    return reached


def _pair(data: Any) -> tuple[Any, Any]:
    if not isinstance(data, (tuple, list)) or len(data) != len(("images", "labels")):
        raise OptionError(
            f"Expected data as (images, labels). Received: {type(data).__name__} {data!r:.100}."
        )
    return data[0], data[1]


def _check_models(inputs: Inputs, others: Sequence[Any]) -> None:
    """Raise OptionError unless all networks have the same architecture and different weights."""
    prepared, batch = inputs.prepared, inputs.batch
    every = (prepared.model, *others)
    if not others or not all(isinstance(each, keras.Model) for each in every):
        raise OptionError(
            "Expected permuted as keras.Models of the trained one's architecture. Received: "
            f"{[type(each).__name__ for each in others]} and a trained {type(every[0]).__name__}."
        )
    shapes = [[tuple(weight.shape) for weight in each.weights] for each in every]
    trace = _exact_trace(inputs)
    for index, each in enumerate(others):
        if shapes[index + 1] != shapes[0] or not (
            outputs_differ(trace, each, prepared.output, batch) <= _SAME
        ):
            raise OptionError(
                f"Expected networks of the trained one's architecture. permuted[{index}] "
                f"({each.name!r}) has other weights, or computes something else with them."
            )
    if len(set(map(digest_weights, every))) < len(every):
        raise OptionError(
            "Expected networks that differ. Received: networks with equal weights. Pass each "
            "network once, and not the trained one."
        )


def _exact_trace(inputs: Inputs) -> Trace:
    """Return a trace in the model's own precision, for comparisons with other models."""
    prepared = inputs.prepared
    if prepared.precision is None:
        return inputs.trace
    own = prepare(
        prepared.model, score=prepared.score, input=prepared.input, output=prepared.output
    )
    return own.trace((METHODS["gradient"],), inputs.batch)
