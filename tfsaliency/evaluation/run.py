"""evaluate(model, world, methods): how well methods find what is known to matter."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import NamedTuple

import numpy as np

from ..arrays import Array, batches, nanmean
from ..census import Coverage
from ..checks import described
from ..controls import CONTROLS, Control
from ..endpoints import Model
from ..errors import ImageError, OptionError, check_int, unknown_option
from ..maps import gradient_map
from ..methods import DEFAULT_METHODS, Method, resolve_methods
from ..prepared import Prepared, Preprocess, as_prepared
from ..problems import Problems, check_on_problem, tell
from ..scores import Score
from ..tables import aligned
from ..verdicts import bootstrap, interval, short
from .localisation import LOCALISATION, checked_masks
from .pictures import World

CHANCE = "chance"
FEWEST = 8  # pictures, below which an interval holds the mean too seldom
_IMAGE_AXES = 4
_RANKED = "From the highest to the lowest; = where the difference from the first may be by chance:"
_PART = 64  # images of which controls are computed at a time


class Difference(NamedTuple):
    """By how much one method scores higher than another, on the same pictures.

    Parameters
    ----------
    mean
        The mean difference.
    low, high
        Its 95 % interval over pictures; NaN for fewer than 8 on which both are defined.

    Examples
    --------
    >>> from tfsaliency import worlds
    >>> worlds.Difference(.2, .1, .3).sign, worlds.Difference(.1, -.1, .3).sign
    (1, 0)
    """

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 if the interval is on one side of zero, else 0; 0 also without an interval."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of methods and controls on pictures with a known answer.

    Parameters
    ----------
    values : array
        With the axes method, score, picture; NaN where undefined.
    chance : array
        What a map of shuffled pixels has on average, (scores, pictures).
    methods, controls, scores : tuple of str
        The names; the first axis of values is that of the methods and then of the controls.
    correct : array or None
        Whether the model says the label of each picture, (n,); None for a model of one output.
    coverage : dict
        For each method, how many ReLUs its rule governs.
    settings : dict
        What was asked for, in words.
    problems : Problems
        The causes for which maps mean nothing.

    Examples
    --------
    >>> from tfsaliency import worlds
    >>> known = worlds.closed_form_model("linear")
    >>> result = worlds.evaluate(known.model, known.world(8, seed=0), "gradient")
    >>> result.mean("gradient", "relevance_mass")
    1.0
    >>> result.difference("gradient", "edge_map", "relevance_mass").sign
    1
    """

    values: Array
    chance: Array
    methods: tuple[str, ...]
    controls: tuple[str, ...]
    scores: tuple[str, ...]
    correct: Array | None
    coverage: Mapping[str, Coverage]
    settings: Mapping[str, str]
    problems: Problems = field(default_factory=Problems)

    def __repr__(self) -> str:
        pictures = self.values.shape[-1]
        return f"Evaluation({list(self.methods)}, {list(self.scores)}, {pictures} pictures)"

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    @property
    def names(self) -> tuple[str, ...]:
        """The methods, the controls, and chance."""
        return (*self.methods, *self.controls, CHANCE)

    def of(self, name: str, score: str) -> Array:
        """Return the scores (n,) of a method, of a control, or of chance.

        Raises
        ------
        OptionError
            For an unknown method or score.
        """
        if score not in self.scores:
            raise unknown_option("score", score, self.scores)
        if name not in self.names:
            raise unknown_option("method", name, self.names)
        s = self.scores.index(score)
        return self.chance[s] if name == CHANCE else self.values[self.names.index(name), s]

    def mean(self, name: str, score: str) -> float:
        """Return the mean over the pictures on which the score is defined."""
        return nanmean(self.of(name, score))

    def interval(self, name: str, score: str) -> tuple[float, float]:
        """Return the 95 % interval of the mean, over pictures; NaN for fewer than 8."""
        return _interval(self.of(name, score))

    def difference(self, name: str, other: str, score: str) -> Difference:
        """Return by how much a method scores higher than another, where both are defined."""
        gaps = self.of(name, score) - self.of(other, score)
        return Difference(nanmean(gaps), *_interval(gaps))

    def ranking(self, score: str) -> list[tuple[str, ...]]:
        """Return the names from the highest mean score to the lowest, in groups.

        Each is compared with the first name of the group before it, and joins that group if the
        interval of their difference holds zero. Names without an interval are left out.
        """
        known = [name for name in self.names if np.isfinite(self.interval(name, score)).all()]
        ordered = sorted(known, key=lambda name: -self.mean(name, score))
        groups: list[tuple[str, ...]] = []
        for name in ordered:
            if groups and not self.difference(groups[-1][0], name, score).sign:
                groups[-1] = (*groups[-1], name)
            else:
                groups.append((name,))
        return groups

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write one row for each number: method, score, picture, value, chance.

        Parameters
        ----------
        path
            Where to write; an existing file is replaced.
        """
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["method", "score", "picture", "value", "chance"])
            for m, s, i in np.ndindex(self.values.shape):
                numbers = float(self.values[m, s, i]), float(self.chance[s, i])
                writer.writerow([self.names[m], self.scores[s], i, *numbers])


def evaluate(
    model: Model | Prepared,
    world: World,
    methods: str | Method | Sequence[str | Method] | None = None,
    *,
    score: str | Score | None = None,
    preprocess: Preprocess | None = None,
    reduction: str | None = None,
    seed: int = 0,
    batch_size: int = 32,
    on_problem: str = "warn",
) -> Evaluation:
    """Score maps of pictures with a known answer, beside controls that need no network.

    Each picture's label is explained, whatever the model says of it: pictures that it gets wrong
    are in `correct`, and can be left out before.

    Parameters
    ----------
    model, score, preprocess, reduction, batch_size, on_problem
        As for gradient_map.
    world
        Images (n, h, w, c), the class to explain of each (n,), and masks (n, h, w) of the pixels
        that matter: from shapes, of your own making, or worlds.World(images, labels, masks). A
        model of one output has the class 0.
    methods
        As for gradient_map; by default "gradient", "guided_backprop" and "zeiler_fergus", which
        need a model with ReLUs.
    seed
        Draws the noise of the controls.

    Returns
    -------
    Evaluation; print it.

    Raises
    ------
    ImageError, ModelError, OptionError
        As for gradient_map; ImageError also for masks of another shape than the images, and
        OptionError for labels that are not one class index for each.

    References
    ----------
    Arras, Osman and Samek 2022, "CLEVR-XAI", arXiv:2003.07258, for the idea and two of the scores.

    Examples
    --------
    >>> from tfsaliency import worlds
    >>> world = worlds.shapes(8, seed=1)
    >>> result = worlds.evaluate(worlds.shapes_model(), world, "gradient")
    >>> result.values.shape  # gradient and 4 controls, 4 scores, 8 pictures
    (5, 4, 8)
    """
    if not isinstance(world, World):
        raise OptionError(
            "Expected a World: worlds.shapes(n, seed), or worlds.World(images, labels, masks). "
            f"Received: {type(world).__name__}."
        )
    check_int("seed", seed, 0)
    masks, labels = checked_masks(world.masks), np.asarray(world.labels)
    if np.ndim(world.images) != _IMAGE_AXES or np.shape(world.images)[:3] != masks.shape:
        raise ImageError(
            f"Expected images (n, h, w, c) with (n, h, w) the masks' shape, {masks.shape}. "
            f"Received: {np.shape(world.images)}."
        )
    if labels.shape != masks.shape[:1] or labels.dtype.kind not in "iu":
        raise OptionError(
            f"Expected labels as {len(masks)} class indices, one for each image. Received: "
            f"{labels.dtype} of shape {labels.shape}. One-hot labels become indices by "
            "argmax(axis=-1), a column by labels[:, 0]."
        )
    chosen = resolve_methods(DEFAULT_METHODS if methods is None else methods)
    prepared = as_prepared(model, chosen, score, preprocess)
    maps = gradient_map(
        prepared,
        world.images,
        chosen,
        targets=labels,
        reduction=reduction,
        batch_size=batch_size,
        on_problem="ignore",  # told below, as a problem of the caller's line
    )
    clash = sorted({*maps} & {*CONTROLS, CHANCE})
    if clash:
        raise OptionError(f"Expected methods not called like a control. Received: {clash}.")
    tell(maps.problems, check_on_problem(on_problem), stacklevel=2)
    inputs = prepared.check(world.images).images_in
    rng = np.random.default_rng(seed)
    every = [*maps.values(), *(_in_parts(control, inputs, rng) for control in CONTROLS.values())]
    scores = LOCALISATION.values()
    counts = {"pictures": str(len(inputs)), "reduction": reduction or "that of each method"}
    return Evaluation(
        np.array([[scored(array, masks) for scored in scores] for array in every]),
        np.array([scored.chance_of(masks) for scored in scores]),
        tuple(maps),
        tuple(CONTROLS),
        tuple(LOCALISATION),
        _correct(maps.outputs, labels),
        maps.coverage,
        described(prepared, maps.score, counts),
        maps.problems,
    )


def _correct(outputs: Array, labels: Array) -> Array | None:
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        return None
    return outputs.argmax(axis=-1) == labels


def _interval(values: Array) -> tuple[float, float]:
    if np.isfinite(values).sum() < FEWEST:
        return np.nan, np.nan
    return interval(bootstrap(values[np.newaxis])[0])


def _in_parts(control: Control, inputs: Array, rng: np.random.Generator) -> Array:
    """Return a control of all images; a few at a time, as float64 of all would be large."""
    return np.concatenate([control(inputs[part], rng) for part in batches(len(inputs), _PART)])


def _lines(result: Evaluation) -> list[str]:
    lines = [f"{key}: {value}" for key, value in result.settings.items() if key != "versions"]
    if result.correct is not None:
        lines.append(f"classified correctly: {np.mean(result.correct):.1%}")
    rows = [["", *result.scores]]
    for name in result.names:
        cells = []
        for score in result.scores:
            low, high = result.interval(name, score)
            known = name != CHANCE and np.isfinite((low, high)).all()
            spread = f"  {short(low)} to {short(high)}" if known else ""
            cells.append(short(result.mean(name, score)) + spread)
        rows.append([name, *cells])
    lines += ["", *aligned(rows), ""]
    if result.values.shape[-1] < FEWEST:
        lines.append(f"means; for intervals and a ranking give {FEWEST} pictures or more")
    else:
        rankings = [" > ".join(map(" = ".join, result.ranking(score))) for score in result.scores]
        lines += [
            "means, with 95 % intervals over pictures",
            "",
            _RANKED,
            "",
            *aligned([list(row) for row in zip(result.scores, rankings, strict=True)]),
        ]
    undefined = int((~np.isfinite(result.values)).sum())
    if undefined:
        what = "a map is constant or not finite, or a mask is empty"
        lines += ["", f"Undefined, as {what}: {undefined} of {result.values.size}."]
    return lines
