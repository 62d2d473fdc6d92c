"""Cells of a layer: its outputs arranged as a grid, with the place of each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from ..methods.cell_grids import CellGrid
from ..placement.parts import (
    BATCH,
    TOKENS,
    Axis,
    Part,
    Placement,
    UnplaceableError,
    collapse,
    free,
    has_places,
    size_of,
)


class Cells(NamedTuple):
    """The way from the outputs of a layer to a grid of cells.

    Parameters
    ----------
    grid
        The cells and their places.
    cut
        The axis of tokens, with the first and the number of those that are cells; None without.
    parts
        The sizes of the parts of all axes, -1 for the batch.
    order
        The order of the parts in the grid.
    """

    grid: CellGrid
    cut: tuple[int, int, int] | None
    parts: tuple[int, ...]
    order: tuple[int, ...]

    def arrange(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the outputs of the layer as (k, *cells, channels)."""
        if self.cut is not None:
            axis, first, count = self.cut
            outputs = tf.gather(outputs, tf.range(first, first + count), axis=axis)
        outputs = tf.transpose(tf.reshape(outputs, self.parts), self.order)
        channels = math.prod(self.parts) // -math.prod(self.grid.cells)
        return tf.reshape(outputs, [-1, *self.grid.cells, channels])


class LayerChoice(NamedTuple):
    """The layer of a class activation map.

    Parameters
    ----------
    cells
        Its cells.
    why
        Why the choice is uncertain; empty if it is not.
    """

    cells: Cells
    why: str


def arrange(placement: Placement, layer: str, size: Sequence[int]) -> Cells:
    """Return the cells of a tensor with this placement.

    Parameters
    ----------
    placement
        The placement of the outputs of a layer.
    layer
        The path of the layer.
    size
        The size of the images, without batch and channels.

    Raises
    ------
    UnplaceableError
        If the tensor is not a grid of cells; the message is the reason.
    """
    if [part.source for part in placement.axes[0]] != [BATCH]:
        raise UnplaceableError(
            "its first axis is not the batch of images: something else is folded into it"
        )
    if not placement.places:
        raise UnplaceableError(
            "it has a single cell"
            if len(placement.axes) <= len(size) + 1
            else "its cells see everything alike, behind a layer that mixes all positions"
        )
    cut, placement, prefix = _without_tokens(placement)
    placement = _channels_last(placement)
    parts = [part for axis in placement.axes for part in axis]
    order, places = [0], [_ordered(parts, source) for source in range(len(size))]
    order += [index for indices in places for index in indices]
    order += [i for i in range(len(parts)) if i not in order]
    joined = [_joined([parts[i] for i in indices]) for indices in places]
    if all(part.size == 1 for part in joined):
        raise UnplaceableError("it has a single cell")
    fields = placement.fields
    for field, part in zip(fields, joined, strict=True):
        if abs(field.drift) > abs(part.step):
            raise UnplaceableError(
                "its windows look to one side, as with causal padding, by "
                f"{abs(field.drift):.4g} pixels"
            )
    grid = CellGrid(
        layer,
        tuple(part.size for part in joined),
        tuple(size),
        tuple(field.start + field.shift for field in fields),
        tuple(part.step for part in joined),
        tuple(field.low for field in fields),
        tuple(field.high for field in fields),
        prefix,
        any(sum(part.is_place for part in axis) > 1 for axis in placement.axes) or cut is not None,
    )
    sizes = tuple(-1 if part.source == BATCH else part.size for part in parts)
    return Cells(grid, cut, sizes, tuple(order))


def _without_tokens(
    placement: Placement,
) -> tuple[tuple[int, int, int] | None, Placement, int]:
    """Return the cut of other tokens, the placement behind it, and the number of those before."""
    for index, axis in enumerate(placement.axes):
        for part in axis:
            if part.source == TOKENS:
                if len(axis) > 1:
                    raise UnplaceableError("its tokens are mixed with another axis")
                count = size_of(part.inner)
                cut = index, part.before, count
                return cut, placement.with_axis(index, part.inner), part.before
    return None, placement, 0


def _channels_last(placement: Placement) -> Placement:
    """Return the placement if it has one axis of channels; places in the last axis are summed."""
    last = len(placement.axes) - 1
    channels = [i for i, axis in enumerate(placement.axes) if i and _has_channels(axis)]
    if channels == [last]:
        kept = placement.axes[last]
        if has_places(kept):  # like the rows of a picture whose columns are read as a sequence
            placement = collapse(placement, last).with_axis(last, free(size_of(kept)))
        return placement
    if len(channels) > 1 or any(has_places(placement.axes[i]) for i in channels):
        raise UnplaceableError(
            "it has more than one axis besides the batch and the cells: it is not a grid with "
            "one axis of channels"
        )
    return placement


def _has_channels(axis: Axis) -> bool:
    return any(not part.is_place for part in axis)


def _ordered(parts: Sequence[Part], source: int) -> list[int]:
    """Return the indices of the parts along one axis of the image, from the coarsest."""
    found = [index for index, part in enumerate(parts) if part.source == source]
    return sorted(found, key=lambda index: -abs(parts[index].step))


def _joined(parts: Sequence[Part]) -> Part:
    """Return one part for all parts along one axis of the image."""
    if not parts:
        return Part(1, 0, 1.0)
    joined = parts[-1]
    for part in reversed(parts[:-1]):
        if not math.isclose(part.step, joined.step * joined.size, rel_tol=1e-3):
            raise UnplaceableError("its cells are not at even distances")
        joined = Part(part.size * joined.size, joined.source, joined.step)
    return joined


def given_grid(
    outputs: tf.Tensor, layer: str, size: Sequence[int], cells: Sequence[int], prefix: int
) -> Cells:
    """Return the cells that the caller describes, stretched over the image.

    Raises
    ------
    UnplaceableError
        If the outputs are not (n, prefix + number of cells, channels) or (n, *cells, channels).
    """
    count, shape = math.prod(cells), tuple(outputs.shape[1:])
    fits = shape[:-1] == (prefix + count,) or (shape[:-1] == tuple(cells) and not prefix)
    if not fits or None in shape:
        wanted = " * ".join(map(str, cells))
        raise UnplaceableError(
            f"it returns {(None, *shape)}, which is not (n, {prefix} + {wanted}, channels)"
        )
    step = tuple(s / c for s, c in zip(size, cells, strict=True))
    first = tuple((s - 1) / 2 for s in step)
    tokens = len(shape) == 2 and len(cells) > 1
    low, high = (0.0,) * len(size), tuple(float(s - 1) for s in size)
    grid = CellGrid(layer, tuple(cells), tuple(size), first, step, low, high, prefix, tokens)
    order = range(len(cells) + 2)
    return Cells(
        grid, (1, prefix, count) if prefix else None, (-1, *cells, shape[-1]), tuple(order)
    )
