"""RISE: the mean score of the image behind random masks that show a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from ..errors import check_int, check_number
from .protocol import AttributionFunction, Attributions, fold


@dataclass(frozen=True, eq=False)
class RISE:
    """The mean score of the image behind random masks, weighted by how much they show a pixel.

    A mask is a coarse grid of zeros and ones, enlarged linearly and shifted at random; the image is
    multiplied with it. A pixel's value is sum(score * mask) / sum(mask) over the masks: the mean
    score when the pixel is seen. It needs forward passes alone, and therefore explains any model,
    also one without a derivative. The map has one channel.

    The details hold the number of "masks" and the "standard_error" of the map, the largest of all
    pixels. The paper divides by masks * probability instead of sum(mask). Both have the same limit,
    but then a constant in the score adds noise: for logits near 37, maps of 500 and 4,000 masks
    correlated at .36 to .71, and at .94 to .97 with this formula.

    Parameters
    ----------
    masks
        The number of masks; the paper takes 4,000 to 8,000.
    cells
        The number of cells of the grid along each axis.
    probability
        The probability that a cell is shown.
    tolerance
        The largest standard error of a pixel, as a fraction of max - min of the map. As many masks
        again are added until it is met, up to max_masks; a map that misses it is reported, and has
        the detail "imprecise". None takes the given number.
    max_masks
        The largest number of masks.
    seed
        The seed of the masks, which all images share.

    References
    ----------
    Petsiuk, Das, Saenko 2018, "RISE: Randomized Input Sampling for Explanation of Black-box
    Models", arXiv:1806.07421.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(2, seed=0).images
    >>> maps = tfs.saliency_map(synthetic.shapes_model(), images, tfs.RISE(masks=100))
    >>> maps["rise"].shape, maps.details["rise"]["masks"].tolist()
    ((2, 64, 64), [100.0, 100.0])
    """

    masks: int = 1000
    cells: int = 7
    probability: float = 0.5
    tolerance: float | None = None
    max_masks: int = 8000
    seed: int = 0

    name = "rise"
    reduction = "sum"
    needs_gradient = False
    needs_sizes = True

    @property
    def expected_samples(self) -> int:
        """The expected number of masks, for the progress of a call."""
        return self.masks

    def __post_init__(self) -> None:
        check_int("masks", self.masks, 2)
        check_int("cells", self.cells, 1)
        check_number("probability", self.probability, 0, 1, above=True)
        check_int("seed", self.seed, 0)
        if self.tolerance is not None:
            check_number("tolerance", self.tolerance, 0, above=True)
            check_int("max_masks", self.max_masks, self.masks)

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        features = points.shape.rank == 2
        masks = _Masks(self, tuple(points.shape[1:] if features else points.shape[1:-1]), features)
        center = attribute.score(points, image_index)

        def more(state: _State) -> tuple[_State]:
            def behind(sample: tf.Tensor) -> tf.Tensor:
                shown = tf.cast(masks.draw(sample + state.done), points.dtype)
                return points * (shown if features else shown[..., tf.newaxis])

            def sums(samples: tf.Tensor, drawn: Attributions) -> _Sums:
                return _sums(masks.several(samples + state.done), drawn.values - center)

            count = tf.minimum(self.masks, most - state.done)
            alone = attribute.scores_alone()
            new, _ = fold(count, behind, alone, points, image_index, sums, _joined)
            return (state.with_sums(new, count, self.tolerance),)

        most = self.masks if self.tolerance is None else self.max_masks
        k = tf.shape(points)[0]
        empty = tf.zeros([k, *masks.sizes])
        start = _State(tf.constant(0), _Sums(*[empty] * 5), tf.zeros([k]), tf.fill([k], True))
        (end,) = tf.while_loop(
            lambda state: (state.done < most) & tf.reduce_any(state.open),
            more,
            (start,),
            parallel_iterations=1,
        )
        maps, errors = end.sums.mean(), end.sums.standard_error()
        maps += tf.reshape(tf.cast(center, maps.dtype), [k] + [1] * len(masks.sizes))
        axes = list(range(1, maps.shape.rank))
        details = {"masks": end.used, "standard_error": tf.reduce_max(errors, axes)}
        if self.tolerance is not None:
            details["imprecise"] = tf.cast(end.open, tf.float32)
        maps = tf.cast(maps, points.dtype)
        return Attributions(maps if features else maps[..., tf.newaxis], center, details)


class _Masks(NamedTuple):
    """Random masks of images of these sizes."""

    rise: RISE
    sizes: tuple[int, ...]
    features: bool

    def several(self, samples: tf.Tensor) -> tf.Tensor:
        """Return the masks of samples (m,), (m, h, w)."""
        return tf.map_fn(self.draw, samples, fn_output_signature=tf.float32)

    def draw(self, sample: tf.Tensor) -> tf.Tensor:
        """Return the mask of a sample, (h, w)."""
        cells = [n if self.features else self.rise.cells for n in self.sizes]
        # Two different seeds for the cells and the shifts.
        shown = tf.random.stateless_uniform(cells, [self.rise.seed, 2 * sample])
        grid = tf.cast(shown < self.rise.probability, tf.float32)
        if self.features:  # each is a cell
            return grid
        shifts = tf.random.stateless_uniform([len(cells)], [self.rise.seed, 2 * sample + 1])
        for axis, (n, count) in enumerate(zip(self.sizes, cells, strict=True)):
            # The grid is enlarged to count + 1 cells of the image, of which a part is cut out.
            cell = -(-n // count)
            first = tf.floor(shifts[axis] * cell)
            at = (tf.range(n, dtype=tf.float32) + first + 0.5) * (count / ((count + 1) * cell))
            at = tf.clip_by_value(at - 0.5, 0.0, count - 1.0)
            near = 1 - tf.abs(at[:, tf.newaxis] - tf.range(count, dtype=tf.float32))
            grid = tf.tensordot(grid, tf.maximum(near, 0), [[0], [1]])  # the next axis comes first
        return grid


class _Sums(NamedTuple):
    """Sums over masks of m, m^2, s m, s m^2, s^2 m^2 for masks m and scores s, each (k, h, w)."""

    m: tf.Tensor
    mm: tf.Tensor
    sm: tf.Tensor
    smm: tf.Tensor
    ssmm: tf.Tensor

    def mean(self) -> tf.Tensor:
        """Return the mean score at each pixel, weighted by the masks."""
        return tf.math.divide_no_nan(self.sm, self.m)

    def standard_error(self) -> tf.Tensor:
        """Return the standard error of that ratio: the root of sum((s - mean) m)^2 / sum(m)."""
        mean = self.mean()
        squares = self.ssmm - 2 * mean * self.smm + mean * mean * self.mm
        return tf.math.divide_no_nan(tf.sqrt(tf.maximum(squares, 0)), self.m)


class _State(NamedTuple):
    """The masks that are done, the sums, the masks of each image, and the images to go on with."""

    done: tf.Tensor
    sums: _Sums
    used: tf.Tensor
    open: tf.Tensor

    def with_sums(self, new: _Sums, count: tf.Tensor, tolerance: float | None) -> _State:
        """Add sums of more masks, to the open images alone."""
        column = tf.reshape(self.open, [-1] + [1] * (new.m.shape.rank - 1))
        sums = tf.nest.map_structure(lambda a, b: tf.where(column, a + b, a), self.sums, new)
        used = self.used + tf.where(self.open, tf.cast(count, tf.float32), 0.0)
        done = self.done + count
        if tolerance is None:
            return _State(done, sums, used, self.open)
        axes = list(range(1, new.m.shape.rank))
        values = sums.mean()
        spread = tf.reduce_max(values, axes) - tf.reduce_min(values, axes)
        error = tf.reduce_max(sums.standard_error(), axes)
        return _State(done, sums, used, self.open & (error > tolerance * spread))


def _sums(masks: tf.Tensor, scores: tf.Tensor) -> _Sums:
    """Return the sums over masks (m, h, w), with scores (m, k)."""
    scores = tf.cast(scores, masks.dtype)
    squares = masks * masks
    ones = tf.ones_like(scores)

    def total(weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        return tf.tensordot(weights, values, [[0], [0]])

    return _Sums(
        total(ones, masks),
        total(ones, squares),
        total(scores, masks),
        total(scores, squares),
        total(scores * scores, squares),
    )


def _joined(one: _Sums, other: _Sums) -> _Sums:
    return _Sums(*(a + b for a, b in zip(one, other, strict=True)))
