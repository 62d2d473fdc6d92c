"""Placement of tensors that join several others: by broadcasting, concatenation or stacking."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from .cuts import with_tokens
from .parts import (
    FREE,
    REPEAT,
    Axis,
    Field,
    Part,
    Placement,
    UnplaceableError,
    Unplaced,
    free,
    has_places,
    resample,
    size_of,
)

_NEARLY = 1e-3
_EVEN = 0.01  # pixels, of frames
Place: TypeAlias = Placement | Unplaced | None  # None: does not depend on the images


def combine(inputs: Sequence[Place]) -> Placement:
    """Return the placement of a pointwise function, whose inputs are broadcast to one shape.

    An input that has no place does not move the others: behind an attention layer, the tokens of
    the residual connection stay where they are.
    """
    placed = [place for place in inputs if isinstance(place, Placement)]
    places = [place for place in placed if place.places] or placed
    lost = [place for place in inputs if isinstance(place, Unplaced)]
    if not places or (lost and not places[0].places):
        raise UnplaceableError(lost[0].reason if lost else "values that depend on no image")
    rank = max(len(place.axes) for place in placed)
    padded = [((),) * (rank - len(place.axes)) + place.axes for place in placed]
    axes = tuple(map(_common, zip(*padded, strict=True)))
    joined = Placement(axes, places[0].fields)
    fields = []
    for source in range(len(joined.fields)):
        parts = joined.parts_of(source)
        _check_digits(parts)
        carriers = [place for place in places if source in place.places] or places
        fields.append(_joint([place.fields[source] for place in carriers]))
    return joined._replace(fields=tuple(fields))


def _check_digits(parts: Sequence[Part]) -> None:
    """Raise UnplaceableError unless parts are digits of one index, instead of several indices."""
    ordered = sorted(parts, key=lambda part: -abs(part.step))
    for outer, inner in itertools.pairwise(ordered):
        if abs(outer.step) < abs(inner.step) * inner.size * (1 - _NEARLY):
            raise UnplaceableError("pairs of cells at different places")


def broadcast(place: Placement, shape: Sequence[int | None]) -> Placement:
    """Return the placement with axes of size 1 repeated to a shape, and with new ones before."""
    missing = len(shape) - len(place.axes)
    axes = [()] * missing + list(place.axes)
    wide = [axis or free(size or 1) for axis, size in zip(axes, shape, strict=True)]
    return place._replace(axes=tuple(wide))


def _common(axes: Sequence[Axis]) -> Axis:
    """Return the axis of several operands that are broadcast to one size."""
    size = max(map(size_of, axes))
    full = [axis for axis in axes if size_of(axis) == size]
    telling = [axis for axis in full if any(p.source not in (FREE, REPEAT) for p in axis)]
    if any(_differ(axis, telling[0]) for axis in telling[1:]):
        raise UnplaceableError("a sum or a product of cells that look at different places")
    if telling:
        return telling[0]
    return free(size)


def _differ(one: Axis, other: Axis) -> bool:
    return len(one) != len(other) or any(
        (a.size, a.source, a.before) != (b.size, b.source, b.before)
        or not math.isclose(a.step, b.step, rel_tol=_NEARLY)
        or _differ(a.inner, b.inner)
        for a, b in zip(one, other, strict=True)
    )


def _joint(fields: Sequence[Field]) -> Field:
    """Return the field of cells that see all of several fields, whose starts must be near."""
    starts, grain = [field.start for field in fields], max(field.grain for field in fields)
    if max(starts) - min(starts) > grain * (1 + _NEARLY):
        raise UnplaceableError("a sum, a product or channels of cells at different places")
    start, shift, drift = (
        float(np.mean(values))
        for values in zip(*((f.start, f.shift, f.drift) for f in fields), strict=True)
    )
    radius = max(abs(field.start - start) + field.radius for field in fields)
    low, high = min(field.low for field in fields), max(field.high for field in fields)
    return Field(start, shift, radius, low, high, drift, grain, fields[0].pads)


def concatenate(places: Sequence[Place], sizes: Sequence[int], axis: int) -> Placement:
    """Return the placement of tensors of some sizes that follow each other along an axis.

    Positions behind or before other entries, such as a class token, are tokens.
    """
    known = [(i, place) for i, place in enumerate(places) if isinstance(place, Placement)]
    here = [(i, place) for i, place in known if has_places(place.axes[axis])]
    if len(here) > 1:
        raise UnplaceableError("a concatenation of cells")
    total = sum(sizes)
    for number, place in here:
        return place.with_axis(axis, with_tokens(place.axes[axis], sum(sizes[:number]), total))
    for lost in places:
        if isinstance(lost, Unplaced):
            raise UnplaceableError(lost.reason)
    placed = [place.with_axis(axis, ()) for _, place in known]
    return combine(placed).with_axis(axis, free(total))


def stack(placed: Sequence[Placement], axis: int) -> Placement:
    """Return the placement of a stack of tensors, along a new axis.

    Tensors that look at successive places, like the frames of a video, make an axis of the image.
    """
    first = placed[0]
    starts = np.array([[field.start for field in place.fields] for place in placed])
    differ = np.flatnonzero(np.ptp(starts, axis=0))
    axes = list(first.axes)
    if any(_differ(a, b) for p in placed[1:] for a, b in zip(p.axes, axes, strict=True)):
        raise UnplaceableError("a stack of cells that look at different places")
    if not len(differ):
        axes.insert(axis, free(len(placed)))
        return first._replace(axes=tuple(axes))
    if len(differ) > 1 or int(differ[0]) in first.places:
        raise UnplaceableError("a stack of cells that look at different places")
    source = int(differ[0])
    fields = [place.fields[source] for place in placed]
    axes.insert(axis, (Part(len(placed), source, 1.0),))
    unit = first.fields[source]._replace(start=0.0, low=-np.inf, high=np.inf)
    joined = Placement(tuple(axes), first.fields).with_field(source, unit)
    joined = resample(joined, axis, starts[:, source], 0.0, _EVEN)
    low, high = min(f.low for f in fields), max(f.high for f in fields)
    field = joined.fields[source]._replace(low=low, high=high)
    return joined.with_field(source, field)
