"""Occlusion: the change of the score when a window of the image is covered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from ..errors import OptionError, check_int
from .completeness import resolve_baseline
from .protocol import AttributionFunction, Attributions, fold

_WINDOWS = 7  # along each axis, if no size is given


@dataclass(frozen=True, eq=False)
class Occlusion:
    """The change of the score when a window is covered, averaged over the windows at each pixel.

    Windows start at 0, stride, 2 * stride, ... until one reaches the end of the axis; the last one
    may be cut off there. The value of a window is the score of the image minus the score with the
    window covered: positive where the image speaks for the class. It needs forward passes alone,
    and therefore explains any model, also one without a derivative. The map has one channel.

    Parameters
    ----------
    window, stride
        The size of the window and its step, in pixels: a number, or one for each axis of the image.
        By default, a seventh of each axis, and half of the window; for features (n, f), 1.
    baseline
        What covers the window, in the space of the preprocessed images: a number, an array
        (h, w, c), "mean" (the image's mean color) or "blur" (the image blurred by a tenth of its
        size).

    Raises
    ------
    OptionError
        If a stride is larger than the window, so that pixels would be left out.

    References
    ----------
    Zeiler, Fergus 2014, "Visualizing and Understanding Convolutional Networks",
    arXiv:1311.2901, section 4.2.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(2, seed=0).images
    >>> covered = tfs.Occlusion(window=16, stride=8)
    >>> tfs.saliency_map(synthetic.shapes_model(), images, covered)["occlusion"].shape
    (2, 64, 64)
    """

    window: int | Sequence[int] | None = None
    stride: int | Sequence[int] | None = None
    baseline: Any = 0.0

    name = "occlusion"
    reduction = "sum"
    needs_gradient = False
    needs_sizes = True

    @property
    def expected_samples(self) -> int:
        """The expected number of windows, for the progress of a call."""
        return (2 * _WINDOWS - 1) ** 2

    def __post_init__(self) -> None:
        for name in ("window", "stride"):
            value = getattr(self, name)
            for each in value if isinstance(value, (list, tuple)) else (value,):
                if value is not None:
                    check_int(name, each, 1)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))

    def __call__(
        self, attribute: AttributionFunction, points: tf.Tensor, image_index: tf.Tensor
    ) -> Attributions:
        """Return the attributions at points (k, h, w, c) of the images with these indices (k,)."""
        features = points.shape.rank == 2
        windows = self._windows(points.shape)
        covered = resolve_baseline(self.baseline, points)
        scores = attribute.score(points, image_index)

        black = isinstance(self.baseline, (int, float)) and self.baseline == 0
        k = tf.shape(points)[0]
        flat, flat_cover = (tf.reshape(each, [k, -1]) for each in (points, covered))

        def cover(samples: tf.Tensor) -> tf.Tensor:
            # Products of rows: a choice that is broadcast takes three times as long.
            inside = tf.reshape(
                tf.cast(windows.masks(samples), points.dtype), [tf.size(samples), -1]
            )
            channels = 1 if features else points.shape[-1]
            inside = tf.repeat(inside, channels, axis=1)[:, tf.newaxis]
            mixed = (1 - inside) * flat
            if not black:
                mixed += inside * flat_cover
            return tf.reshape(mixed, tf.concat([[-1], tf.shape(points)], 0))

        def add(samples: tf.Tensor, drawn: Attributions) -> tuple[tf.Tensor, tf.Tensor]:
            inside = tf.cast(windows.masks(samples), drawn.values.dtype)
            change = scores - drawn.values  # (m, k)
            return tf.tensordot(change, inside, [[0], [0]]), tf.reduce_sum(inside, 0)

        (change, times), _ = fold(
            windows.total,
            cover,
            attribute.scores_alone(),
            points,
            image_index,
            add,
            lambda one, other: (one[0] + other[0], one[1] + other[1]),
            at_once=True,
        )
        maps = change / times
        return Attributions(maps if features else maps[..., tf.newaxis], scores, {})

    def _windows(self, shape: tf.TensorShape) -> _Windows:
        """Return the windows of points of a shape (k, h, w, c), or (k, features)."""
        sizes = tuple(shape[1:] if shape.rank == 2 else shape[1:-1])
        whole = [1 if shape.rank == 2 else max(n // _WINDOWS, 1) for n in sizes]
        window = _by_axis("window", self.window, whole)
        stride = _by_axis("stride", self.stride, [-(-w // 2) for w in window])
        if any(s > w for s, w in zip(stride, window, strict=True)):
            raise OptionError(
                f"Expected a stride of at most the window {window}, so that no pixel is left out. "
                f"Received: {stride}."
            )
        return _Windows(sizes, window, stride)


class _Windows(NamedTuple):
    """All windows of an image; each field has a number for each axis."""

    sizes: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def counts(self) -> list[int]:
        """The number of windows along each axis."""
        each = zip(self.sizes, self.window, self.stride, strict=True)
        return [max(-(-(n - w) // s), 0) + 1 for n, w, s in each]

    @property
    def total(self) -> int:
        """The number of windows."""
        return math.prod(self.counts)

    def masks(self, numbers: tf.Tensor) -> tf.Tensor:
        """Return True inside of the windows with these numbers, (m, h, w)."""
        places = tf.unravel_index(numbers, self.counts)
        masks = tf.ones([tf.size(numbers)] + [1] * len(self.sizes), tf.bool)
        for axis, (n, w, s) in enumerate(zip(self.sizes, self.window, self.stride, strict=True)):
            at = tf.range(n) - places[axis][:, tf.newaxis] * s
            along = [n if other == axis else 1 for other in range(len(self.sizes))]
            masks &= tf.reshape((at >= 0) & (at < w), [-1, *along])
        return masks


def _by_axis(name: str, value: Any, default: Sequence[int]) -> tuple[int, ...]:
    """Return a size for each axis of the image."""
    if value is None:
        return tuple(default)
    sizes = value if isinstance(value, tuple) else (value,) * len(default)
    if len(sizes) != len(default):
        raise OptionError(
            f"Expected {name} as a number, or one for each of {len(default)} axes. "
            f"Received: {value!r}."
        )
    return sizes
