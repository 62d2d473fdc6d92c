"""Diagnostics of meaningless maps: each cause that numbers show, with a remedy.

A missing derivative (an integer input, a score that does not depend on the images) is an error,
raised where it is found. This module handles derivatives that exist and mean nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from .arrays import Array, Limits
from .errors import MeaninglessMapError, ResultError, check_choice, unknown_option
from .storage import from_plain

OnProblem = Literal["warn", "raise", "ignore"]
ON_PROBLEM = ("warn", "raise", "ignore")

# For each cause: what was found, and what to do.
CAUSES: dict[str, tuple[str, str]] = {
    "non_finite_map": (
        "a map has values that are NaN or infinite",
        "Look for NaN in model.get_weights(); a model of float16 may overflow, load it in float32.",
    ),
    "zero_map": (
        "a map is zero everywhere",
        "Possibly no ReLU between the image and the score is active. Check the model's outputs for "
        "this image, and its preprocessing.",
    ),
    "negative_evidence": (
        "a class activation map is zero everywhere, because all evidence at the layer is negative",
        "Use CAM(relu=False) for a signed map, score='margin', or an earlier layer.",
    ),
    "uncertain_layer": (
        "the layer of a class activation map is not the obvious one",
        "Name another one with layer= if it suits the question better.",
    ),
    "constant_map": (
        "a map has the same value everywhere",
        "The score depends on the mean of the image alone, and no pixel stands out.",
    ),
    "saturated_probability": (
        "the probability is so close to 0 or 1 that its derivative is rounded away",
        "Use score='logit' or 'log_probability', or on_logits(function) in place of a function of "
        "the probabilities.",
    ),
    "non_finite_output": (
        "the model's outputs or scores are NaN or infinite",
        "Look for NaN in model.get_weights(), and check the preprocessing; a model of float16 may "
        "overflow, load it in float32.",
    ),
    "random_model": (
        "the model draws random numbers, so another call returns other outputs and maps",
        "Remove the random operation, or call its layer with training=False; the mean of several "
        "calls is less random.",
    ),
    "channels_first": (
        "the images look as if their channels came first, and a map sums over the last axis",
        "Explain a function that moves them: lambda x: model(tf.transpose(x, (0, 3, 1, 2))).",
    ),
    "same_image": (
        "an image occurs more than once, and its copies count as different photos",
        "Give each image once.",
    ),
    "alike_maps": (
        "maps of different photos are nearly the same, so a verdict says little",
        "Give photos of different things, in different places; a method may draw the same for all.",
    ),
    "unconverged": (
        "the integral of the gradients is not the difference of the scores, up to the tolerance",
        "Give IntegratedGradients or BlurIG more steps, with max_steps=, or another baseline; "
        "GuidedIG may not converge with any number of steps.",
    ),
    "not_conserved": (
        "a layer loses or makes relevance, more than a hundredth of the score",
        "Use a rule that conserves it there: 'epsilon', or 'alpha1_beta0', which counts biases; "
        "where 'epsilon' itself does not, as sums near 0 amplify relevance, 'transformer_lrp'; or "
        "on_problem='ignore', if the map is wanted as the rule is defined.",
    ),
    "imprecise": (
        "the standard error of a map is above the tolerance",
        "Give RISE more masks, with max_masks=, or a larger tolerance.",
    ),
    "unusual_range": (
        "the images' values are far from those the model was trained on: preprocessing may be "
        "missing, or applied twice",
        "Pass the model's own preprocessing as preprocess=, once. If this model was trained on "
        "such values, use on_problem='ignore'.",
    ),
}

_FLAT = 1e-6  # of the largest value
_LOST = 0.01  # of the score
_SAMPLE = 100  # positions
_AXES_OF_AN_IMAGE, _FEW_CHANNELS, _MANY_COLUMNS = 3, (1, 3), 4
_ORDINARY = 0.5  # of the range trained on


class SaliencyWarning(UserWarning):
    """Warning of a meaningless map, with the cause and a remedy.

    Examples
    --------
    >>> import keras, numpy as np, warnings, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D(),
    ...                           keras.layers.Dense(2, activation="softmax")])
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     maps = tfs.saliency_map(model, np.ones((1, 4, 4, 3)))
    >>> [problem.cause for problem in maps.problems], caught[0].category.__name__
    (['constant_map'], 'SaliencyWarning')
    """


class Problems(tuple["Problem", ...]):
    """The problems of a result; prints one per line.

    Examples
    --------
    >>> print(Problems())
    no problems
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no problems"


@dataclass(frozen=True)
class Problem:
    """A cause of meaningless maps, with the images and methods affected.

    Parameters
    ----------
    cause
        A key of CAUSES.
    images
        The indices of the images.
    methods
        The methods whose maps are affected; empty for all.
    detail
        The measured values, in words.

    Examples
    --------
    >>> print(Problem("constant_map", (0, 2), ("gradient",)))
    constant_map (gradient, images 0 and 2): a map has the same value everywhere. The score depends on the mean of the image alone, and no pixel stands out.
    """  # noqa: E501

    cause: str
    images: tuple[int, ...]
    methods: tuple[str, ...] = ()
    detail: str = ""

    def __post_init__(self) -> None:
        if self.cause not in CAUSES:
            raise unknown_option("cause", self.cause, CAUSES)

    def __str__(self) -> str:
        plural = "s" if len(self.images) > 1 else ""
        return self.describe(f"image{plural} {_listed([str(i) for i in self.images])}")

    def describe(self, where: str) -> str:
        """Describe the problem in words; `where` names the images affected."""
        what, remedy = CAUSES[self.cause]
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.cause} ({', '.join([*self.methods, where])}): {what}{detail}. {remedy}"


def map_problems(
    maps: Mapping[str, Array],
    channels: bool,
    saturated: Array,
    details: Mapping[str, Mapping[str, Array]],
) -> tuple[Problem, ...]:
    """Find problems of maps.

    Parameters
    ----------
    maps
        (n, h, w) by method, or (n, h, w, c) with channels.
    channels
        Whether the last axis holds channels.
    saturated
        Whether the derivative of each image's score is rounded away, (n,).
    details
        The details of compositions, (n,) by method and name.
    """
    found = []
    tables: dict[str, dict[str, tuple[int, ...]]] = {}
    for method, array in maps.items():
        negative = details.get(method, {}).get("negative", np.zeros(len(array)))
        for cause, where in _degenerate(array, channels, _indices(saturated), negative > 0).items():
            tables.setdefault(cause, {})[method] = where
    for cause, by_method in tables.items():
        for where in dict.fromkeys(by_method.values()):
            methods = tuple(method for method, images in by_method.items() if images == where)
            found.append(Problem(cause, where, methods))
    return tuple(found)


def run_problems(
    outputs: Array, scores: Array, saturated: Array, random: bool
) -> tuple[Problem, ...]:
    """Find problems of a forward pass.

    Parameters
    ----------
    outputs, scores
        The outputs (n, ...) and scores (n,).
    saturated
        Whether the derivative of each image's score is rounded away, (n,).
    random
        Whether the model draws random numbers.
    """
    n = len(scores)
    finite = np.isfinite(outputs.reshape(n, -1)).all(axis=1) & np.isfinite(scores)
    found = {
        "non_finite_output": _indices(~finite),
        "saturated_probability": _indices(saturated),
        "random_model": tuple(range(n)) if random else (),
    }
    return tuple(Problem(cause, where) for cause, where in found.items() if where)


def layer_problems(reasons: Mapping[str, Sequence[str]], n: int) -> tuple[Problem, ...]:
    """Return a problem of n images for each reason why the layer of a method is uncertain."""
    by_reason: dict[str, list[str]] = {}
    for method, each in reasons.items():
        for reason in filter(None, each):
            by_reason.setdefault(reason, []).append(method)
    return tuple(
        Problem("uncertain_layer", tuple(range(n)), tuple(methods), reason)
        for reason, methods in by_reason.items()
    )


def convergence_problems(details: Mapping[str, Mapping[str, Array]]) -> tuple[Problem, ...]:
    """Find integrals that violate completeness, and means that are imprecise.

    See IntegratedGradients and RISE.

    Parameters
    ----------
    details
        The details of compositions, (n,) by method and name.
    """
    found = []
    for method, numbers in details.items():
        where = _indices(numbers.get("unconverged", np.zeros(0)) > 0)
        if where:
            gap = f"a gap of up to {numbers['gap'].max():.2g} of it"
            found.append(Problem("unconverged", where, (method,), gap))
        if where := _indices(numbers.get("imprecise", np.zeros(0)) > 0):
            found.append(Problem("imprecise", where, (method,)))
        errors = numbers.get("conservation_error", np.zeros(0))
        if where := _indices(~(errors <= _LOST)):  # NaN, too
            worst = int(np.argmax(np.nan_to_num(errors, nan=np.inf)))
            layers = numbers.get("worst_layer")
            name = "" if layers is None else f"{layers[worst]}, "
            found.append(Problem("not_conserved", where, (method,), f"{name}{errors[worst]:.2g}"))
    return tuple(found)


def image_problems(
    inputs: Array, limits: Limits, trained: tuple[float, ...] | None
) -> tuple[Problem, ...]:
    """Find problems of the images that a model receives.

    Parameters
    ----------
    inputs
        (n, h, w, c), after preprocessing.
    limits
        Their minimum and maximum.
    trained
        The least and the largest usual value, the distance from them at which values are unusual,
        the variation of all images and the size of one below which they are; None if unknown.
    """
    found = _check_range(inputs, limits, trained)
    n, *shape = inputs.shape
    if len(shape) == _AXES_OF_AN_IMAGE and shape[0] in _FEW_CHANNELS and shape[2] > _MANY_COLUMNS:
        found += (Problem("channels_first", tuple(range(n)), detail=f"shape {inputs.shape}"),)
    return found


def _check_range(
    inputs: Array, limits: Limits, trained: tuple[float, ...] | None
) -> tuple[Problem, ...]:
    if trained is None:
        return ()
    low, high, margin, least, small = trained
    least_of_all, largest_of_all = limits
    inside = low - margin <= least_of_all and largest_of_all <= high + margin
    if inside and largest_of_all - least_of_all > _ORDINARY * (high - low) and not small:
        return ()  # the usual case; the rest takes longer
    flat = inputs.reshape(len(inputs), -1)
    lowest, highest = flat.min(axis=1), flat.max(axis=1)
    outside = np.maximum(low - lowest, highest - high) > margin
    within = (np.maximum(-lowest, highest) <= small) & (lowest < highest)
    where = _indices(outside | within)
    if not where and _hardly_vary(inputs, least):
        where = tuple(range(len(inputs)))
    detail = f"from {limits[0]:.3g} to {limits[1]:.3g}, instead of {low:.3g} to {high:.3g}"
    return (Problem("unusual_range", where, detail=detail),) if where else ()


def _hardly_vary(inputs: Array, least: float) -> bool:
    """Return whether every image varies, but none by as much as `least` in any channel.

    A single image that hardly varies may show a plain wall.
    """
    highest = lowest = inputs
    for _ in range(inputs.ndim - 2):  # NumPy is faster with one axis at a time, but for the last
        highest, lowest = highest.max(axis=1), lowest.min(axis=1)
    varies = highest - lowest  # (n, c)
    return bool(np.all(varies < least) and np.all(varies.max(axis=-1) > 0))


def check_on_problem(on_problem: str) -> str:
    """Return on_problem, or raise OptionError if it is not a known choice."""
    check_choice("on_problem", on_problem, ON_PROBLEM)
    return on_problem


def read_problems(plain: Any, n: int) -> Problems:
    """Restore the problems of n images from a file's header, or raise ResultError."""
    problems = from_plain(tuple[Problem, ...], plain)
    if any(not 0 <= i < n for problem in problems for i in problem.images):
        raise ResultError(f"problems of other images than {n}")
    return Problems(problems)


def raise_problems(problems: Sequence[Problem], on_problem: str) -> None:
    """Raise MeaninglessMapError for problems if on_problem is "raise"."""
    if problems and on_problem == "raise":
        raise MeaninglessMapError(" ".join(map(str, problems)))


def report(problems: Sequence[Problem], on_problem: str, stacklevel: int) -> None:
    """Warn of each problem, or raise MeaninglessMapError for all of them, or do nothing."""
    raise_problems(problems, on_problem)
    if on_problem == "warn":
        for problem in problems:
            warnings.warn(str(problem), SaliencyWarning, stacklevel=stacklevel + 1)


def shift_problems(problems: Iterable[Problem], by: int) -> tuple[Problem, ...]:
    """Return the problems with their image indices increased by `by`."""
    return tuple(replace(p, images=tuple(i + by for i in p.images)) for p in problems)


def _degenerate(
    maps: Array, channels: bool, saturated: tuple[int, ...], negative: Array
) -> dict[str, tuple[int, ...]]:
    """Find the images whose maps are not finite, zero or constant, by cause."""
    n = len(maps)
    flat = maps.reshape(n, -1)
    high, low = flat.max(axis=1), flat.min(axis=1)  # NaN where anything is
    finite = np.isfinite(high) & np.isfinite(low)
    largest = np.maximum(np.abs(high), np.abs(low))
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        if channels:
            varies = _vary_in_a_channel(maps.reshape(n, -1, maps.shape[-1]), _FLAT * largest)
        else:
            varies = high - low > _FLAT * largest
    positions = flat.shape[1] // (maps.shape[-1] if channels else 1)
    explained = np.isin(np.arange(n), saturated)
    found = {
        "non_finite_map": _indices(~finite),
        "zero_map": _indices(finite & (largest == 0) & ~explained & ~negative),
        "negative_evidence": _indices(finite & (largest == 0) & ~explained & negative),
        "constant_map": _indices(finite & (largest > 0) & ~varies & (positions > 1)),
    }
    return {cause: where for cause, where in found.items() if where}


def _vary_in_a_channel(maps: Array, least: Array) -> Array:
    """Find the maps (n, positions, c) in which some channel varies by more than `least`."""

    def vary(part: Array, least: Array) -> Array:
        return (part.max(axis=1) - part.min(axis=1)).max(axis=1) > least

    varies = vary(maps[:, :_SAMPLE], least)
    flat = ~varies  # few are; looking at all positions takes long
    varies[flat] = vary(maps[flat], least[flat])
    return varies


def _indices(condition: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(condition))


def _listed(names: list[str]) -> str:
    if len(names) > 6:
        return f"{', '.join(names[:5])}, ... ({len(names)})"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
