"""Saliency maps of more images than fit into memory, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from .diagnostics import OnProblem, check_on_problem
from .display.progress import Progress, Verbose
from .engine.functions import Model
from .engine.model_io import Batch
from .engine.scores import Score
from .errors import OptionError
from .maps import Options, explain, name_methods, resolve_reductions
from .methods.table import MethodsArgument, resolve_methods, with_layer
from .prepared import Prepared, Preprocess, as_prepared
from .saliency_maps import SaliencyMaps
from .tables import ReductionName, ScoreName

_FROM_BATCHES = "labels"  # targets of each batch
_PARTS = 3  # of a batch for Keras: inputs, labels, weights


def saliency_map_batches(
    model: Model | Prepared,
    batches: Iterable[Any],
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
) -> Iterator[SaliencyMaps]:
    """Compute saliency maps of batches, one after the other.

    While one batch is explained, another thread fetches and checks the next. Only these two are
    held, so memory does not grow with the number of images. Leaving the loop early blocks until the
    batch being fetched has arrived.

    Parameters
    ----------
    model, methods, class_names, score, preprocess, reduction, layer, region, on_problem, verbose
        As for saliency_map. Progress counts batches.
    batches
        A tf.data.Dataset, a keras.utils.PyDataset, or another iterable. A batch is either images,
        as saliency_map takes them, or a tuple of images and labels (n,), as in keras.Model.fit.
        Labels are class indices (n,) or (n, 1), or one-hot codes (n, classes), and are used only
        if targets is "labels". For a model of several inputs, the first item
        of the tuple is a dict or a tuple of inputs.
    targets
        The class to explain: None (each image's top class), an index or a name from class_names for
        all images, or "labels" for the labels of the batches.
    batch_size
        The number of images of a batch to pass through the model at a time.

    Returns
    -------
    An iterator of SaliencyMaps, with maps (n, h, w), one for each batch. Image indices in problems
    start at 0 in each batch.

    Raises
    ------
    ImageError, ModelError, OptionError, MeaninglessMapError
        As for saliency_map. Errors of the iterable are passed on.

    References
    ----------
    See saliency_map.

    Examples
    --------
    >>> import keras, numpy as np, tensorflow as tf, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2, activation="softmax")])
    >>> images, labels = np.random.default_rng(0).normal(size=(5, 4, 4, 3)), [0, 1, 1, 0, 1]
    >>> dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2)
    >>> for maps in tfs.saliency_map_batches(model, dataset, targets="labels"):
    ...     print(maps["gradient"].shape, maps.targets)
    (2, 4, 4) [0 1]
    (2, 4, 4) [1 0]
    (1, 4, 4) [1]
    """
    resolved = with_layer(resolve_methods(methods), layer)
    prepared = as_prepared(model, resolved, score, preprocess)
    check_on_problem(on_problem)
    reduce = resolve_reductions(resolved, reduction)
    if isinstance(targets, (list, tuple)) or getattr(targets, "shape", ()) != ():
        raise OptionError(
            "Expected targets as None, one class for all batches, or 'labels' for those that come "
            f"with the images. Received: {type(targets).__name__}."
        )
    fetched = _fetch_ahead(prepared, _iterator(batches), targets, region)

    progress = Progress(verbose, _count(batches), "batch", name_methods(resolved))

    def explained() -> Iterator[SaliencyMaps]:
        with progress:
            for batch, own in fetched:
                options = Options(own, class_names, batch_size, on_problem, verbose, reduction)
                with progress.part(1):
                    maps = explain(prepared, batch, resolved, reduce, options)
                with progress.suspended():
                    yield maps

    return explained()


def _count(batches: Any) -> int:
    """Return the number of batches, 0 if it is not known."""
    try:
        return max(0, len(batches))
    except TypeError:  # a generator, or a tf.data.Dataset of unknown or infinite size
        return 0


def _iterator(batches: Any) -> Iterator[Any]:
    if isinstance(batches, keras.utils.PyDataset):  # has no end of its own
        return (batches[i] for i in range(len(batches)))
    whole = isinstance(batches, (str, bytes, Mapping)) or hasattr(batches, "shape")
    if whole or not isinstance(batches, Iterable):
        raise OptionError(
            "Expected batches as a tf.data.Dataset or another iterable of batches (n, h, w, c). "
            f"Received: {type(batches).__name__} of shape {getattr(batches, 'shape', None)}. "
            "saliency_map takes one batch."
        )
    return iter(batches)


def _fetch_ahead(
    prepared: Prepared, batches: Iterator[Any], targets: Any, region: Any
) -> Iterator[tuple[Batch, Any]]:
    """Yield each batch, checked, with its targets, while the next one is being fetched."""
    of_labels = isinstance(targets, str) and targets == _FROM_BATCHES

    def fetch() -> tuple[Batch, Any] | None:
        for element in batches:
            images, labels = _parts(element)
            batch = prepared.check(images, region)
            single = labels is not None and np.ndim(images) < batch.images.ndim
            if single and np.ndim(labels) == np.ndim(images):
                raise OptionError(
                    "Expected a tuple of a batch of images and their labels. Received: a tuple of "
                    "two images. Pass them as a list, or stacked."
                )
            return batch, _classes(labels) if of_labels else targets
        return None

    with ThreadPoolExecutor(1) as background:
        waiting = background.submit(fetch)
        while fetched := waiting.result():
            waiting = background.submit(fetch)
            yield fetched


def _parts(element: Any) -> tuple[Any, Any]:
    """Return the images of an element of batches, and their labels, None where it has none."""
    if not isinstance(element, tuple):
        return element, None
    if not 1 <= len(element) <= _PARTS:
        raise OptionError(
            "Expected batches as arrays or lists of images, or as tuples (images, labels). "
            f"Received: a tuple of {len(element)}."
        )
    return keras.utils.unpack_x_y_sample_weight(element)[:2]


def _classes(labels: Any) -> list[Any]:
    """Return the labels of a batch as targets, one for each image."""
    if labels is None:
        raise OptionError(
            "Expected batches of (images, labels) for targets='labels'. "
            "Received: images without labels."
        )
    # As a list: an array of zeros and a one may be a one-hot code.
    listed: list[Any] = np.atleast_1d(np.asarray(labels)).tolist()
    return listed
