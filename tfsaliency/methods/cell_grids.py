"""The grid of cells of a layer, and where each cell looks in the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ..arrays import Array

_NOTABLE = 0.5  # pixels
_AXES = "plane", "row", "column"  # of an image; a sequence has columns


@dataclass(frozen=True)
class CellGrid:
    """The cells of a layer's outputs, and the places in the image that they look at.

    All tuples have one entry for each axis of the image: (rows, columns) for (h, w).

    Parameters
    ----------
    layer
        The layer, by its path: "outer/inner".
    cells
        The number of cells.
    size
        The number of pixels.
    first
        The center of the first cell, in pixels; the first pixel is at 0.
    step
        The distance of neighboring cells in pixels, negative if the layer sees a mirrored image.
    low, high
        The first and last pixel that any cell sees.
    prefix
        The number of other tokens before those of the cells, such as a class token.
    tokens
        Whether the cells are tokens, along one axis of the layer's outputs.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> from tfsaliency import synthetic
    >>> images = synthetic.make_shapes(1, seed=0).images
    >>> maps = tfs.saliency_map(synthetic.shapes_model(), images, "grad_cam")
    >>> grid = maps.coverage["grad_cam"].grids[0]
    >>> grid.layer, grid.cells
    ('conv8', (8, 8))
    """

    layer: str
    cells: tuple[int, ...]
    size: tuple[int, ...]
    first: tuple[float, ...]
    step: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    prefix: int = 0
    tokens: bool = False

    def __str__(self) -> str:
        what = "tokens" if self.tokens else "cells"
        words = [self.layer, f"{_by(self.cells)} {what}"]
        if self.prefix:
            others = "other tokens" if self.prefix > 1 else "class token"
            words[-1] += f" behind {self.prefix} {others}"
        plural = "" if set(self._steps) == {1.0} else "s"
        words.append(f"{_by(self._steps)} pixel{plural} a cell")
        if any(
            abs(f - e) > _NOTABLE for f, e in zip(self.first, self.stretched_first, strict=True)
        ):
            words.append(f"the first at {_by(self.first, ', ')}")
        if any(self._hidden):
            seen = " x ".join(
                f"{max(low, 0):.0f} to {min(high, size - 1):.0f}"
                for low, high, size in zip(self.low, self.high, self.size, strict=True)
            )
            words.append(f"sees pixels {seen}")
        return ", ".join(words)

    @property
    def _steps(self) -> tuple[float, ...]:
        same = len({round(abs(step), 6) for step in self.step}) == 1
        return tuple(abs(step) for step in (self.step[:1] if same else self.step))

    @property
    def _hidden(self) -> tuple[bool, ...]:
        """For each axis, whether there are pixels that no cell sees."""
        ends = zip(self.low, self.high, self.size, strict=True)
        return tuple(low > _NOTABLE or high < size - 1 - _NOTABLE for low, high, size in ends)

    @property
    def stretched_first(self) -> tuple[float, ...]:
        """The center of the first cell if the cells were spread evenly over the image."""
        return tuple(
            (size / cells - 1) / 2 for size, cells in zip(self.size, self.cells, strict=True)
        )

    def summary(self) -> dict[str, str | float]:
        """Return the layer and its cells as names and values, for the details of maps."""
        named: dict[str, str | float] = {"layer": self.layer, "prefix": float(self.prefix)}
        for axis, name in enumerate(_AXES[-len(self.cells) :]):
            named[f"{name}_cells"] = float(self.cells[axis])
            named[f"{name}_first"] = float(self.first[axis])
            named[f"{name}_step"] = float(self.step[axis])
        return named

    def to_image(self, maps: tf.Tensor) -> tf.Tensor:
        """Place maps of cells (k, rows, columns, c) in images (k, h, w, c).

        Between the centers of cells, maps are interpolated linearly; beyond the outermost centers
        they are constant; pixels that no cell sees are 0.
        """
        axes = range(len(self.cells))
        for axis in axes:  # each moves to the end, so that the next one is axis 1
            weights = tf.constant(self._weights(axis), maps.dtype)
            maps = tf.tensordot(maps, weights, [[1], [1]])
        return tf.transpose(maps, [0, *(axis + 2 for axis in axes), 1])

    def _weights(self, axis: int) -> Array:
        """Return the weight of each cell in each pixel along an axis, (pixels, cells)."""
        pixels, last = np.arange(self.size[axis]), self.cells[axis] - 1
        at = np.clip((pixels - self.first[axis]) / self.step[axis], 0, last)
        cells = np.arange(last + 1)
        weights = np.maximum(1 - np.abs(at[:, np.newaxis] - cells), 0)
        seen = (pixels >= self.low[axis] - _NOTABLE) & (pixels <= self.high[axis] + _NOTABLE)
        weights[~seen] = 0
        return weights


def _by(sizes: tuple[float, ...], between: str = " x ") -> str:
    return between.join(f"{size:.4g}" for size in sizes)
