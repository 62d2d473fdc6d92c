"""Placement of a tensor of which an axis is cut, padded or mirrored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..arrays import Array
from .parts import (
    BATCH,
    TOKENS,
    Axis,
    Part,
    Placement,
    UnplaceableError,
    free,
    has_places,
    resample,
    single_place,
    size_of,
)


def pad(place: Placement, index: int, before: int, after: int) -> Placement:
    """Return the placement after a padding of an axis."""
    if not (before or after):
        return place
    axis = place.axes[index]
    size, part = size_of(axis), single_place(axis)
    if part is None:
        return place.with_axis(index, with_tokens(axis, before, size + before + after))
    field = place.fields[int(part.source)]
    unit = abs(part.step)
    pads = field.pads[0] + unit * before, field.pads[1] + unit * after
    field = field._replace(start=field.start - part.step * before, pads=pads)
    place = place.with_field(int(part.source), field)
    return place.with_axis(index, (replace(part, size=size + before + after),))


def with_tokens(axis: Axis, before: int, size: int) -> Axis:
    """Return an axis of positions behind other tokens, of a size in all."""
    if len(axis) == 1 and axis[0].source == TOKENS:
        return (replace(axis[0], size=size, before=axis[0].before + before),)
    if axis and all(part.is_place for part in axis):
        return (Part(size, TOKENS, inner=axis, before=before),)
    if any(part.is_place or part.source == BATCH for part in axis):
        raise UnplaceableError("a padding that cuts across cells")
    return free(size)


def crop(place: Placement, index: int, begin: int, stride: int, count: int) -> Placement:
    """Return the placement of `count` entries of an axis, from `begin` in steps of `stride`."""
    axis = place.axes[index]
    if (begin, stride, count) == (0, 1, size_of(axis)):
        return place
    if not count:
        raise UnplaceableError("a choice of no cells")
    if not has_places(axis):
        if any(part.source == BATCH for part in axis):
            raise UnplaceableError("a choice of images")
        return place.with_axis(index, free(count))
    if len(axis) == 1 and axis[0].source == TOKENS and stride == 1:
        return place.with_axis(index, _without_tokens(axis[0], begin, count))
    return choose(place, index, begin + stride * np.arange(count))


def _without_tokens(part: Part, begin: int, count: int) -> Axis:
    size, before = size_of(part.inner), part.before
    if begin + count <= before or begin >= before + size:
        return free(count)
    if begin > before or begin + count < before + size:
        raise UnplaceableError("a choice of some tokens")
    if count == size:
        return part.inner
    return (replace(part, size=count, before=before - begin),)


def choose(place: Placement, index: int, entries: Array) -> Placement:
    """Return the placement of some entries of an axis."""
    axis = place.axes[index]
    if not has_places(axis):
        if any(part.source == BATCH for part in axis) and (np.diff(entries) != 1).any():
            raise UnplaceableError("another order of the images")
        return crop(place, index, 0, 1, len(entries))
    if len(axis) == 1 and axis[0].source == TOKENS and (np.diff(entries) == 1).all():
        return crop(place, index, int(entries[0]), 1, len(entries))
    return resample(place, index, entries.astype(float), 0.0)
