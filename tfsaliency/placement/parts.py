"""Placement: where the cells of a tensor look in the image.

An axis of a tensor is a product of parts: the batch, channels, or positions along an axis of the
image with a constant distance in pixels. Reshapes and transpositions move and split parts, so
tokens, windows and their inverses keep their places exactly. A field holds, for each axis of the
image, the center of the first cell and what the cells see.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np

from ..arrays import Array

BATCH, FREE, REPEAT, TOKENS = "batch", "free", "repeat", "tokens"
_ROUNDING = 1e-6


class UnplaceableError(Exception):
    """The cells behind an operation have no place; the message is the reason."""


@dataclass(frozen=True)
class Part:
    """A factor of an axis.

    Parameters
    ----------
    size
        The number of entries.
    source
        BATCH, FREE (channels), REPEAT (copies), TOKENS, or the index of an axis of the image.
    step
        The distance of neighbors in pixels, negative in a mirrored image.
    inner, before
        Of TOKENS: the parts of the positions, and the number of other tokens before them.
    """

    size: int
    source: int | str
    step: float = 0.0
    inner: tuple[Part, ...] = ()
    before: int = 0

    @property
    def is_place(self) -> bool:
        """True for positions along one axis of the image."""
        return isinstance(self.source, int)


Axis: TypeAlias = tuple[Part, ...]  # no parts: an axis of size 1


class Field(NamedTuple):
    """The place of cells along one axis of the image, in pixels.

    Parameters
    ----------
    start
        The center of the receptive field of the first cell.
    shift
        A correction of start: see slide.
    radius
        Half of the extent of a receptive field.
    low, high
        The first and last pixel that the cells see.
    drift
        How far windows look to one side of where cells would be if they were spread evenly, if
        that is more than their stride makes: the effect of causal padding.
    grain
        The largest distance of neighboring cells on the way from the image.
    pads
        What a padding added before and after the other cells, in pixels.
    """

    start: float
    shift: float
    radius: float
    low: float
    high: float
    drift: float = 0.0
    grain: float = 1.0
    pads: tuple[float, float] = (0.0, 0.0)


class Placement(NamedTuple):
    """The parts of a tensor's axes, and the field of each axis of the image."""

    axes: tuple[Axis, ...]
    fields: tuple[Field, ...]

    @property
    def places(self) -> set[int]:
        """The axes of the image along which the tensor has several cells."""
        return {part.source for axis in self.axes for part in _flat(axis) if part.is_place}  # type: ignore[misc]

    def parts_of(self, source: int) -> list[Part]:
        """Return all parts along one axis of the image."""
        return [part for axis in self.axes for part in _flat(axis) if part.source == source]

    def with_axis(self, index: int, axis: Axis) -> Placement:
        """Return the placement with another axis."""
        axes = list(self.axes)
        axes[index] = axis
        return self._replace(axes=tuple(axes))

    def with_field(self, index: int, field: Field) -> Placement:
        """Return the placement with another field."""
        fields = list(self.fields)
        fields[index] = field
        return self._replace(fields=tuple(fields))


class Unplaced(NamedTuple):
    """The absence of a placement, with the reason."""

    reason: str


def place_images(shape: Sequence[int]) -> Placement:
    """Return the placement of images (n, h, w, c), (n, t, c) or (n, d, h, w, c)."""
    n, *sizes, channels = shape
    places = [free(size) if size == 1 else (Part(size, i, 1.0),) for i, size in enumerate(sizes)]
    fields = [Field(0.0, 0.0, 0.0, 0.0, size - 1.0) for size in sizes]
    return Placement(((Part(n, BATCH),), *places, free(channels)), tuple(fields))


def free(size: int) -> Axis:
    """Return an axis of channels."""
    return () if size == 1 else (Part(size, FREE),)


def size_of(axis: Axis) -> int:
    """Return the size of an axis."""
    return math.prod(part.size for part in axis)


def single_place(axis: Axis) -> Part | None:
    """Return the only part of an axis if it is positions along one axis of the image."""
    return axis[0] if len(axis) == 1 and axis[0].is_place else None


def has_places(axis: Axis) -> bool:
    """Return whether an axis holds positions in the image, possibly among other tokens."""
    return any(part.is_place for part in _flat(axis))


def reshape(placement: Placement, shape: Sequence[int]) -> Placement:
    """Return the placement of a tensor in another shape.

    Raises
    ------
    UnplaceableError
        If the reshape cuts across images or tokens.
    """
    parts = [part for axis in placement.axes for part in axis]
    axes = []
    for size in shape:
        axis: list[Part] = []
        wanted = size
        if size == 1 and parts and parts[0].size == 1:  # a batch of one image
            axis.append(parts.pop(0))
        while wanted > 1:
            if not parts:
                raise UnplaceableError("a reshape of unknown size")
            part = parts.pop(0)
            if part.size > wanted and part.size % wanted == 0 and part.source != TOKENS:
                part, rest = _split(part, wanted)
                parts.insert(0, rest)
            if wanted % part.size:
                raise UnplaceableError("a reshape that cuts across cells")
            wanted //= part.size
            axis.append(part)
        axes.append(tuple(axis))
    return normalize(placement._replace(axes=tuple(axes)))


def _split(part: Part, outer: int) -> tuple[Part, Part]:
    inner = part.size // outer
    return replace(part, size=outer, step=part.step * inner), replace(part, size=inner)


def normalize(placement: Placement) -> Placement:
    """Join neighboring parts of one source, and read copies of a cell as smaller cells."""
    for index in range(len(placement.axes)):
        done: list[Part] = []
        for part in placement.axes[index]:
            if part.size == 1 and part.source not in (BATCH, TOKENS):
                continue
            last = done[-1] if done else None
            if last is not None and last.is_place and part.source == REPEAT:
                placement, done[-1] = _divide(placement, last, part.size)
            elif last is not None and _continues(last, part):
                size = last.size * part.size
                source = FREE if {last.source, part.source} == {FREE, REPEAT} else part.source
                done[-1] = replace(part, size=size, source=source)
            else:
                done.append(part)
        placement = placement.with_axis(index, tuple(done))
    return placement


def _continues(outer: Part, inner: Part) -> bool:
    channels = (FREE, REPEAT)
    if outer.source in channels and inner.source in channels:
        return True
    if not (outer.is_place and outer.source == inner.source):
        return False
    return math.isclose(outer.step, inner.step * inner.size, rel_tol=1e-6)


def _divide(placement: Placement, part: Part, copies: int) -> tuple[Placement, Part]:
    step = part.step / copies
    divided = replace(part, size=part.size * copies, step=step)
    return _widened(placement, int(part.source), -step * (copies - 1) / 2), divided


def _widened(placement: Placement, source: int, way: float) -> Placement:
    """Return the placement of cells that move by a way, and see as much more on both sides."""
    field = placement.fields[source]
    field = field._replace(start=field.start + way, radius=field.radius + abs(way))
    return placement.with_field(source, field)


def transpose(placement: Placement, order: Iterable[int]) -> Placement:
    """Return the placement of a transposed tensor."""
    return placement._replace(axes=tuple(placement.axes[i] for i in order))


def collapse(placement: Placement, index: int) -> Placement:
    """Return the placement after a sum over an axis, which becomes an axis of size 1."""
    for part in _flat(placement.axes[index]):
        if part.source == BATCH:
            raise UnplaceableError("a sum over the batch axis")
        if part.is_place:
            placement = _widened(placement, int(part.source), part.step * (part.size - 1) / 2)
    return placement.with_axis(index, ())


def _flat(axis: Axis) -> Iterable[Part]:
    for part in axis:
        yield from part.inner if part.source == TOKENS else (part,)


def slide(
    placement: Placement, index: int, kernel: int, stride: int, before: int, count: int
) -> Placement:
    """Return the placement after a window slides along an axis.

    A window of stride 2 that spreads over an even number of entries looks half an entry to one
    side, and trained kernels make up for it: measured with objects in known places, cells lie half
    way between the center of their window and the center that would spread them evenly. So `shift`
    goes half of this way, where receptive fields overlap and the stride alone makes the
    difference; see docs/decisions.md.

    Parameters
    ----------
    placement, index
        The placement, and the index of the axis.
    kernel, stride, before
        The extent of the window with its dilation, its stride, and the padding before the first
        cell.
    count
        The number of positions of the window.
    """
    if single_place(placement.axes[index]) is None:
        return _beside_places(placement, index, count)
    first, radius = (kernel - 1) / 2 - before, (kernel - 1) / 2
    aside = _aside(placement, index, first, stride, radius, count)
    return _moved(placement, index, first, stride, radius, count, aside)


def _beside_places(placement: Placement, index: int, count: int) -> Placement:
    """Return the placement after windows slide along an axis that is not positions."""
    if has_places(placement.axes[index]):
        if count > 1:
            raise UnplaceableError("a window that slides across several axes of the image")
        placement = collapse(placement, index)
    return placement.with_axis(index, free(count))


def _aside(
    placement: Placement, index: int, first: float, stride: float, radius: float, count: int
) -> tuple[float, float]:
    """Return the shift of new cells, and their drift, in units of the old cells.

    The way is that from the first new cell to where even spreading would put it. The stride alone
    makes a way of at most half of what is left between two cells, and the shift is half of it. A
    longer one has other reasons: a crop, or, if every old cell has its window, a drift.
    """
    (part,) = placement.axes[index]
    field = placement.fields[int(part.source)]
    before, after = (pad / abs(part.step) for pad in field.pads)
    way = (part.size - 1 + before - after - stride * (count - 1)) / 2 - first
    extent = 2 * (field.radius + abs(part.step) * radius) + 1  # in pixels
    if abs(way) > abs(stride - 1) / 2 + _ROUNDING:
        whole = abs(count * stride - (part.size - before - after)) < max(stride, 1)
        return 0.0, way if whole else 0.0
    return way / 2 if extent > abs(part.step) * stride else 0.0, 0.0


def slide_back(
    placement: Placement, index: int, kernel: int, stride: int, before: int, count: int
) -> Placement:
    """Return the placement after the transpose of slide, with the same parameters."""
    if single_place(placement.axes[index]) is None:
        return _beside_places(placement, index, count)
    first, radius = (before - (kernel - 1) / 2) / stride, (kernel - 1) / 2 / stride
    aside = _aside(placement, index, first, 1 / stride, radius, count)
    return _moved(placement, index, first, 1 / stride, radius, count, aside)


def _moved(
    placement: Placement,
    index: int,
    first: float,
    stride: float,
    radius: float,
    count: int,
    aside: tuple[float, float] = (0.0, 0.0),
) -> Placement:
    """Return the placement of new cells, given in units of the old ones."""
    (part,) = placement.axes[index]
    source, step = int(part.source), part.step
    placement = placement.with_axis(
        index, () if count == 1 else (Part(count, source, step * stride),)
    )
    field = placement.fields[source]
    start, wide = field.start + step * first, field.radius + abs(step) * radius
    ways = [each.step * (each.size - 1) for each in placement.parts_of(source)]
    low, high = start + sum(min(way, 0) for way in ways), start + sum(max(way, 0) for way in ways)
    shift, drift = (step * way for way in aside)
    moved = Field(
        start,
        field.shift + shift,
        wide,
        max(field.low, low - wide),
        min(field.high, high + wide),
        field.drift + drift,
        max(field.grain, abs(step * stride)),
    )
    return placement.with_field(source, moved)


def resample(
    placement: Placement, index: int, positions: Array, radius: float, most: float = 1.0
) -> Placement:
    """Return the placement of cells at positions of the old ones, in units of these.

    Raises
    ------
    UnplaceableError
        If a position is off an affine function of the index by more than `most`.
    """
    if single_place(placement.axes[index]) is None:
        raise UnplaceableError("a resizing of an axis that is not positions")
    count, order = len(positions), np.arange(len(positions))
    stride = float(positions[-1] - positions[0]) / (count - 1) if count > 1 else 1.0
    if not np.allclose(positions, positions[0] + stride * order):
        stride = float(np.polyfit(order, positions, 1)[0])
    first = float(np.mean(positions - stride * order))
    uneven = np.abs(positions - first - stride * order).max()
    if not stride or uneven > most:
        raise UnplaceableError("a choice of cells at uneven distances")
    return _moved(placement, index, first, stride, float(uneven) + radius, count)
