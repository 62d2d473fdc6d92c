"""gradient_map(model, images, methods) -> SaliencyMaps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from typing import Any, NamedTuple, TypeAlias
from zipfile import BadZipFile

import numpy as np
import tensorflow as tf

from .arrays import Array, batches, reduction_named, rescale, storable
from .census import Coverage, Coverages
from .endpoints import Model
from .engines import Batch, run
from .errors import OptionError
from .gradients import Trace
from .methods import Method, resolve_methods
from .models.ranges import trained_range
from .prepared import Prepared, Preprocess, as_prepared
from .problems import (
    Problem,
    Problems,
    check_images,
    check_on_problem,
    find_problems,
    find_unconverged,
    shifted,
    tell,
)
from .rules import gradient
from .scores import Score, as_targets, check_labels, check_targets_in_range

_PREFIX, _DETAIL = "map:", "detail:"  # of the keys in a saved file


@dataclass(frozen=True, eq=False)
class SaliencyMaps(Mapping[str, Array]):
    """Maps of several methods for the same images and targets: a mapping of names to arrays.

    Parameters
    ----------
    maps : dict
        (n, h, w) by method name, unscaled: the units of the score per unit of the model's input.
        From attributions: (n, h, w, c).
    images : array
        The images as they were given, (n, h, w, c).
    targets : array
        The class index that was explained for each image, (n,); -1 where the model's outputs
        are not classes.
    scores : array
        The score that was differentiated, (n,).
    score : str
        What it is, in words.
    outputs : array
        What the model returned for each image, as it is, (n, classes) for a classifier.
    coverage : dict
        For each method, how many of the model's ReLUs its rule governs.
    names : tuple of str
        The images' names, for example of their files; empty if they have none.
    problems : Problems, a tuple of Problem
        The causes for which some of the maps mean nothing.
    details : dict
        For each method what its composition tells of each image, arrays (n,) by name: of
        integrated gradients the "gap" that is left, the "nodes" used, and 1 for "unconverged".

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
    ...                           keras.layers.Dense(2, activation="softmax")])
    >>> maps = tfs.gradient_map(model, np.ones((2, 4, 4, 3)), targets=1)
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

    # Arrays have no one truth value, as Mapping's comparison would need: identity it is.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, method: str) -> Array:
        if method not in self.maps:
            raise KeyError(f"No map {method!r}. There are: {', '.join(self.maps)}.")
        return self.maps[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.images.shape[1:-1]))
        plural = "" if len(self.images) == 1 else "s"
        return (
            f"SaliencyMaps({list(self.maps)}, {len(self.images)} image{plural} of {size}, "
            f"score={self.score!r})"
        )

    def rescaled(self, method: str) -> Array:
        """Return the maps of a method, each rescaled to [0, 1]; a constant map becomes NaN."""
        return rescale(self[method])

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to a NumPy .npz file; the path is taken as it is.

        Parameters
        ----------
        path
            Where to write; an existing file is replaced.
        """
        arrays: dict[str, Any] = {
            "images": self.images,
            "targets": self.targets,
            "scores": self.scores,
            "score": np.array(self.score),
            "outputs": self.outputs,
            "coverage": np.array(json.dumps([asdict(c) for c in self.coverage.values()])),
            "names": np.array(self.names, dtype=str),
            "problems": np.array(json.dumps(self.problems)),
            **{_PREFIX + name: array for name, array in self.maps.items()},
            **{
                f"{_DETAIL}{name}:{method}": array
                for method, details in self.details.items()
                for name, array in details.items()
            },
        }
        with open(path, "wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SaliencyMaps:
        """Read what save wrote.

        Raises
        ------
        OptionError
            If the file is not one that save wrote.
        FileNotFoundError
            If there is none.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                stored = dict(file)
            coverage = [read_coverage(row) for row in json.loads(str(stored["coverage"]))]
            return cls(
                {k.removeprefix(_PREFIX): v for k, v in stored.items() if k.startswith(_PREFIX)},
                stored["images"],
                stored["targets"],
                stored["scores"],
                str(stored["score"]),
                stored["outputs"],
                Coverages({row.rule: row for row in coverage}),
                tuple(map(str, stored["names"])),
                Problems(read_problem(row) for row in json.loads(str(stored["problems"]))),
                _read_details(stored),
            )
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise OptionError(
                f"Expected a file that SaliencyMaps.save wrote. Received: {path} ({error})."
            ) from error


def _read_details(stored: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    details: dict[str, dict[str, Array]] = {}
    for key, array in stored.items():
        if key.startswith(_DETAIL):
            name, _, method = key.removeprefix(_DETAIL).partition(":")
            details.setdefault(method, {})[name] = array
    return details


def read_coverage(row: dict[str, Any]) -> Coverage:
    """Return a Coverage from what JSON keeps of it."""
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    return Coverage(**known)


def read_problem(row: list[Any]) -> Problem:
    """Return a Problem from what JSON keeps of it."""
    cause, images, methods, detail = row
    return Problem(cause, tuple(images), tuple(methods), detail)


def concatenate(parts: Sequence[SaliencyMaps]) -> SaliencyMaps:
    """Join maps of one model and the same methods, made a part of the images at a time."""
    starts = np.cumsum([0, *(len(part.images) for part in parts)])
    return replace(
        parts[0],
        maps={name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
        images=np.concatenate([part.images for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        outputs=np.concatenate([part.outputs for part in parts]),
        names=tuple(name for part in parts for name in part.names),
        problems=Problems(
            p
            for part, start in zip(parts, starts, strict=False)
            for p in shifted(part.problems, int(start))
        ),
        details={
            method: {
                name: np.concatenate([part.details[method][name] for part in parts])
                for name in details
            }
            for method, details in parts[0].details.items()
        },
    )


def attributions(
    model: Model | Prepared,
    images: Any,
    methods: str | Method | Sequence[str | Method] = "gradient",
    *,
    targets: Any = None,
    labels: Sequence[str] | None = None,
    score: str | Score | None = None,
    preprocess: Preprocess | None = None,
    batch_size: int = 32,
    on_problem: str = "warn",
) -> SaliencyMaps:
    """Compute signed attributions (n, h, w, c), before the channels are reduced.

    Parameters
    ----------
    model, images, methods, targets, labels, score, preprocess, batch_size, on_problem
        As for gradient_map.

    Returns
    -------
    SaliencyMaps whose arrays are (n, h, w, c): the derivative of the score with respect to each
    value of the (preprocessed) image, under the rule of each method.

    Raises
    ------
    ImageError, ModelError, OptionError
        As for gradient_map.

    References
    ----------
    See gradient_map.

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
    resolved = resolve_methods(methods)
    prepared = as_prepared(model, resolved, score, preprocess)
    options = Options(targets, labels, batch_size, check_on_problem(on_problem))
    return explain(prepared, prepared.check(images), resolved, None, options)


def gradient_map(
    model: Model | Prepared,
    images: Any,
    methods: str | Method | Sequence[str | Method] = "gradient",
    *,
    targets: Any = None,
    labels: Sequence[str] | None = None,
    score: str | Score | None = None,
    preprocess: Preprocess | None = None,
    reduction: str | None = None,
    batch_size: int = 32,
    on_problem: str = "warn",
) -> SaliencyMaps:
    """Compute saliency maps: how much each pixel changes the score of a class.

    Parameters
    ----------
    model
        A built keras.Model, any callable of TensorFlow operations from images to outputs, or what
        prepare made of either. It is not changed; its present weights are read at every call.
    images
        One image (h, w, c) or a batch (n, h, w, c): NumPy, tf.Tensor, PIL, or a list of these.
        Files are read by load_images. Sequences (n, t, c) and volumes (n, d, h, w, c) for models
        of these. For a model of several inputs a dict or a tuple of them, see prepare.
    methods
        Keys of METHODS, Methods, or a sequence of these; all of them share one forward pass.
    targets
        The class to explain: None (each image's top class), an index, a name out of labels, or
        one of these per image.
    labels
        Class names in the order of the model's outputs.
    score
        What is differentiated, see prepare; "logit" by default.
    preprocess
        What is done to a copy of the images first, see prepare. Gradients are with respect to
        what it returns.
    reduction
        How the channels become one: "sum_abs" (sum of absolute values), "max_abs" or "sum"
        (signed); None for that of each method, which is "sum_abs" but for methods that are never
        negative.
    batch_size
        How many images go through the model at a time.
    on_problem
        What to do about maps that mean nothing, see SaliencyWarning: "warn", "raise" or "ignore".
        The result's problems has them in any case.

    Returns
    -------
    SaliencyMaps, a mapping of method names to float arrays (n, h, w).

    Raises
    ------
    ImageError
        For images the model cannot take.
    NoReluError, UncoveredReluError, OpaqueModelError
        Where a modified rule cannot act, or not on every ReLU: no map is better than a wrong one.
    ModelError
        Where there is no derivative: an integer input, or a score that does not depend on it.
    MeaninglessMapError
        For what on_problem="warn" warns of, with on_problem="raise".
    OptionError
        For an unknown method, score, reduction or class.

    References
    ----------
    Simonyan et al. 2013, arXiv:1312.6034 (gradient; the reductions); Springenberg et al. 2014,
    arXiv:1412.6806 (guided backpropagation); Zeiler and Fergus 2014, arXiv:1311.2901.

    Examples
    --------
    >>> import keras, numpy as np, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((8, 8, 3)),
    ...                           keras.layers.Conv2D(4, 3, activation="relu"),
    ...                           keras.layers.GlobalAveragePooling2D(),
    ...                           keras.layers.Dense(5, activation="softmax")])
    >>> maps = tfs.gradient_map(model, np.ones((2, 8, 8, 3)), ["gradient", "guided_backprop"])
    >>> maps["guided_backprop"].shape
    (2, 8, 8)
    >>> print(maps.coverage["guided_backprop"])
    guided_backprop: 1 of 1 ReLUs (clone)
    """
    resolved = resolve_methods(methods)
    prepared = as_prepared(model, resolved, score, preprocess)
    options = Options(targets, labels, batch_size, check_on_problem(on_problem))
    return explain(
        prepared, prepared.check(images), resolved, reductions(resolved, reduction), options
    )


Reductions: TypeAlias = Sequence[Callable[[tf.Tensor], tf.Tensor]]


def reductions(methods: Sequence[Method], reduction: str | None) -> Reductions:
    """Return how the channels of each method's maps become one."""
    return [reduction_named(reduction or method.reduction) for method in methods]


class Options(NamedTuple):
    """What else is asked for; see gradient_map."""

    targets: Any
    labels: Sequence[str] | None
    batch_size: int
    on_problem: str


def explain(
    prepared: Prepared,
    batch: Batch,
    methods: tuple[Method, ...],
    reduce: Reductions | None,
    options: Options,
) -> SaliencyMaps:
    """Return the maps of a checked batch, as they are if nothing reduces them; see gradient_map.

    It warns of the line that called its caller.
    """
    trace = prepared.trace(methods, batch)
    check_labels(options.labels, trace.classes)
    targets = as_targets(options.targets, len(batch.images), options.labels)
    check_targets_in_range(targets, trace.classes)
    parts = []
    size, keep = options.batch_size, [tf.identity] * len(methods)
    for part in batches(len(batch.images), batch.inputs.batch or size):
        result = run(trace, batch, part, targets[part], at_once=size)
        maps = [one(g) for one, g in zip(reduce or keep, result.gradients, strict=True)]
        found = (result.targets, result.scores, result.outputs, result.details, *maps)
        parts.append(tf.nest.map_structure(np.asarray, found))  # copied when they are joined
    joined = tf.nest.map_structure(lambda *each: np.concatenate(each), *parts)
    chosen, scores, outputs, details, *arrays = joined
    by_name = {method.name: told for method, told in zip(methods, details, strict=False) if told}
    by_method = {method.name: array for method, array in zip(methods, arrays, strict=True)}
    probabilities = scores if prepared.score == "probability" else None
    trained = trained_range(prepared.model, batch.inputs.explained)
    problems = Problems(
        (
            *check_images(batch.images_in, batch.limits, trained),
            *find_problems(by_method, reduce is None, probabilities, trace.epsilon),
            *find_unconverged(by_name),
        )
    )
    tell(problems, options.on_problem, stacklevel=3)
    return SaliencyMaps(
        by_method,
        np.array(batch.images),  # the caller's own array may change
        chosen,
        scores,
        trace.score,
        storable(outputs),
        Coverages({method.name: _coverage(method, trace) for method in methods}),
        problems=problems,
        details=by_name,
    )


def _coverage(method: Method, trace: Trace) -> Coverage:
    found = trace.found
    relus = len(found.sites) + len(found.others)
    # The gradient is every ReLU's own derivative, with or without a clone.
    reached = relus if method.rule is gradient else len(found.sites)
    leaky, gates, smooth = len(found.leaky), found.gates, found.smooth
    return Coverage(method.name, relus, reached, trace.engine, leaky, gates, smooth)
