"""Data randomization: whether maps tell a network that learned something from one that did not.

The second network has the same architecture and learned permuted labels by heart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from .arrays import Array
from .checks import Options, fingerprint, measured_by, result_of, seeds_of, subject_of
from .engines import outputs_differ
from .errors import ModelError, OptionError
from .measuring import Subject, Variant
from .methods import Method
from .prepared import Preprocess
from .problems import check_on_problem, tell
from .results import SanityResult, StepRecord
from .scores import Score
from .similarity import Similarity

LEARNED = 0.95  # training accuracy below which a network has not learned its labels
_DONE = 0.99  # above it training ends
_SAME = 1e-2  # of the largest output, which rounding does not reach
_METRIC = "accuracy"


class Twins(NamedTuple):
    """A trained network, and networks like it that learned permuted labels.

    Parameters
    ----------
    model
        Trained on the labels.
    permuted
        Trained on the same images with labels permuted, each another way.
    accuracies
        The training accuracy of each, of the first one first.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> tfs.train_twins.__name__  # returns them
    'train_twins'
    """

    model: keras.Model
    permuted: tuple[keras.Model, ...]
    accuracies: tuple[float, ...]


def train_twins(
    build: Callable[[], keras.Model],
    images: Any,
    labels: Any,
    *,
    seeds: int | Sequence[int] = 4,
    epochs: int = 100,
    batch_size: int = 32,
    verbose: int = 1,
) -> Twins:
    """Train a network on labels, and others like it on permuted labels.

    Training ends at a training accuracy of 99 %, measured after each epoch as the network will be
    used, without dropout; memorising needs enough epochs and little regularization.

    Parameters
    ----------
    build
        A function without arguments that returns a new, untrained keras.Model, compiled with
        metrics=["accuracy"].
    images, labels
        What Model.fit takes as x and y: arrays of n images (n, h, w, c) and n labels.
    seeds
        How many networks learn permuted labels, or the seeds of the permutations.
    epochs
        At most so many.
    batch_size
        As for Model.fit.
    verbose
        1 for a progress bar for each network, 0 for none.

    Returns
    -------
    Twins

    Raises
    ------
    ModelError
        If build returns another thing, or a training accuracy stays below 95 %.
    OptionError
        For images and labels of different numbers, or impossible seeds or epochs.

    References
    ----------
    Adebayo et al. 2018, arXiv:1810.03292, section 4.2; Zhang et al. 2017, arXiv:1611.03530, for
    networks that learn random labels.

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
    >>> twins = tfs.train_twins(build, images, labels, seeds=2, verbose=0)
    >>> min(twins.accuracies) > .95
    True
    """
    numbers = seeds_of(seeds)
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)) or epochs < 1:
        raise OptionError(f"Expected epochs as an int of at least 1. Received: {epochs!r}.")
    x, y = np.asarray(images), np.asarray(labels)
    if not len(x) or x.shape[:1] != y.shape[:1]:
        raise OptionError(
            "Expected one label for each image, as arrays. "
            f"Received: shapes {x.shape} and {y.shape}."
        )
    tasks = {"labels": y}
    for seed in numbers:
        tasks[f"permuted labels, seed {seed}"] = np.random.default_rng(seed).permutation(y)
    trained = [
        _trained(build, x, own, name, epochs, batch_size, verbose) for name, own in tasks.items()
    ]
    models, accuracies = zip(*trained, strict=True)
    return Twins(models[0], models[1:], accuracies)


def data_randomization_check(
    model: Any,
    images: Any,
    methods: str | Method | Sequence[str | Method] = "gradient",
    *,
    permuted: keras.Model | Sequence[keras.Model] | None = None,
    data: tuple[Any, Any] | None = None,
    similarities: str | Similarity | Sequence[str | Similarity] = ("spearman", "ssim"),
    targets: Any = None,
    score: str | Score | None = None,
    preprocess: Preprocess | None = None,
    batch_size: int = 32,
    on_problem: str = "warn",
    verbose: int = 1,
) -> SanityResult:
    """Check whether maps depend on what the network learned.

    The maps of a trained network are compared with those of networks of the same architecture that
    learned permuted labels by heart, for the same images and classes.

    Parameters
    ----------
    model
        The trained network; or with data, the function build of train_twins, and all of its
        networks are trained first. To keep them, call train_twins yourself.
    images, methods, targets, score, preprocess, batch_size, on_problem
        As for gradient_map; images (n, h, w, c), 8 or more of different things.
    permuted
        The networks that learned permuted labels, two or more for a verdict: those of train_twins,
        or your own.
    data
        (images, labels) to train on, instead of permuted.
    similarities
        As for sanity_check.
    verbose
        1 for progress bars, 0 for none.

    Returns
    -------
    SanityResult of one step, "permuted labels", in which a seed is a network; its verdicts say
    "depends on the labels".

    Raises
    ------
    ImageError, ModelError, OptionError
        As for gradient_map, and for train_twins; and for networks of another architecture.

    References
    ----------
    Adebayo et al. 2018, arXiv:1810.03292, section 4.2.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import worlds
    >>> images = worlds.shapes(8, seed=3).images
    >>> result = tfs.data_randomization_check(
    ...     worlds.shapes_model(), images, permuted=worlds.shapes_twins(), verbose=0)
    >>> print(result.verdicts["gradient"][0].verdict)
    depends on the labels
    """
    check_on_problem(on_problem)
    if (permuted is None) == (data is None):
        raise OptionError(
            "Expected either permuted, networks that learned permuted labels, or data, (images, "
            "labels) to train on. Received: " + ("none." if data is None else "both.")
        )
    settings = {"check": "data randomization: networks that learned permuted labels"}
    if data is not None:
        twins = train_twins(model, *_pair(data), verbose=verbose)
        model, permuted = twins.model, twins.permuted
        reached = ", ".join(f"{accuracy:.1%}" for accuracy in twins.accuracies)
        settings["training accuracy"] = reached
    others = (permuted,) if isinstance(permuted, keras.Model) else tuple(permuted or ())
    subject = subject_of(model, images, methods, targets, score, preprocess, batch_size)
    _check_twins(subject, others)

    def variants() -> Iterator[Variant]:
        for r, twin in enumerate(others):
            yield Variant(0, r, _weights(twin), subject.trained.targets)

    options = Options(similarities, 0.0, verbose)
    numbers = tuple(range(len(others)))
    measured = measured_by(subject, 1, numbers, variants(), options)
    steps = (StepRecord("permuted labels", (), 0, ()),)
    result = result_of(subject, measured, steps, numbers, 0, "the labels", settings)
    tell(result.problems, on_problem, stacklevel=2)
    return result


def _trained(
    build: Any, images: Array, labels: Array, name: str, epochs: int, batch_size: int, verbose: int
) -> tuple[keras.Model, float]:
    model = build() if callable(build) and not isinstance(build, keras.Model) else build
    if not isinstance(model, keras.Model) or model is build or not model.compiled:
        raise ModelError(
            "Expected build as a function that returns a new, compiled keras.Model. "
            f"Received: {build!r:.200}."
        )
    if verbose:
        print(f"training on {name}")
    bar = keras.utils.Progbar(epochs, unit_name="epoch") if verbose else None
    reached = 0.0
    for epoch in range(epochs):
        model.fit(images, labels, batch_size=batch_size, verbose=0)
        found = model.evaluate(images, labels, batch_size=batch_size, verbose=0, return_dict=True)
        if _METRIC not in found:
            raise ModelError(
                f"Expected build to compile with metrics=[{_METRIC!r}]. Received: {sorted(found)}."
            )
        reached = float(found[_METRIC])
        done = reached >= _DONE or epoch + 1 == epochs
        if bar:
            bar.update(epoch + 1, [(_METRIC, reached)], finalize=done)
        if done:
            break
    if reached < LEARNED:
        raise ModelError(
            f"The network trained on {name} reached a training accuracy of {reached:.1%}. Expected "
            f"at least {LEARNED:.0%}: a network that did not learn its labels says nothing about "
            "maps. Give more epochs, less regularization, a larger network, or fewer images."
        )
    return model, reached


def _pair(data: Any) -> tuple[Any, Any]:
    if not isinstance(data, (tuple, list)) or len(data) != len(("images", "labels")):
        raise OptionError(
            f"Expected data as (images, labels). Received: {type(data).__name__} {data!r:.100}."
        )
    return data[0], data[1]


def _check_twins(subject: Subject, others: Sequence[Any]) -> None:
    """See that all networks are like the trained one, and that no two are the same."""
    model = subject.prepared.model
    every = (model, *others)
    if not others or not all(isinstance(each, keras.Model) for each in every):
        raise OptionError(
            "Expected permuted as keras.Models of the trained one's architecture. "
            f"Received: {[type(each).__name__ for each in others]} beside {type(model).__name__}."
        )
    shapes = [[tuple(weight.shape) for weight in each.weights] for each in every]
    for index, twin in enumerate(others):
        if shapes[index + 1] != shapes[0] or not (
            outputs_differ(subject.trace, twin, subject.prepared.output, subject.batch) <= _SAME
        ):
            raise OptionError(
                f"Expected networks of the trained one's architecture. permuted[{index}] "
                f"({twin.name!r}) has other weights, or computes something else with them."
            )
    if len({fingerprint(each) for each in every}) < len(every):
        raise OptionError(
            "Expected networks that differ. Received: some with the same weights, as when a "
            "network is given twice or is the trained one."
        )


def _weights(model: keras.Model) -> list[Array]:
    return [weight.numpy() for weight in model.weights]
