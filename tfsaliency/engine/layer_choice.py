"""The layer of a class activation map: which layers qualify, and which of them is the best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ..errors import GeometryError, OptionError
from .cells import Cells, LayerChoice, arrange, given_grid
from .layer_names import find_named
from .placement import Placement, UnplaceableError, Unplaced
from .placement_joins import stack
from .placements import OUTPUTS, Placements, find_placements
from .subject import LayerRequest

_LISTED = 10


class LayerCall(NamedTuple):
    """A call of a layer while a model was traced.

    Parameters
    ----------
    path, layer
        The layer.
    outputs
        Its outputs, of any structure.
    number, inside
        The number of the call, and the numbers of the calls that it is inside of.
    first, end
        The range of its operations in the graph.
    """

    path: str
    layer: keras.layers.Layer
    outputs: Any
    number: int
    inside: tuple[int, ...]
    first: int
    end: int


class _Candidate(NamedTuple):
    """A layer that qualifies."""

    call: LayerCall
    tensors: tuple[tf.Tensor, ...]
    cells: Cells
    radius: tuple[float, ...]


def choose_layer(
    calls: Sequence[LayerCall],
    layers: Sequence[tuple[str, keras.layers.Layer]],
    request: LayerRequest,
    images: tf.Tensor,
    outputs: tf.Tensor,
) -> tuple[LayerChoice, tuple[tf.Tensor, ...]]:
    """Choose the layer of a class activation map in the graph being traced.

    Parameters
    ----------
    calls
        The calls of layers, in the order of their end.
    layers
        The layers by path.
    request
        The layer, by path or name; None for the best.
    images, outputs
        The ends of the graph.

    Returns
    -------
    The choice, and the outputs of the layer: one tensor, or one for each frame.

    Raises
    ------
    GeometryError
        If no layer qualifies, or not the named one.
    OptionError
        If no layer or several layers have the name.
    """
    search = _Search(calls, images, outputs)
    if request.grid is not None:
        return search.with_grid(layers, request)
    best = search.default()
    if request.layer is None:
        if best is None:
            raise GeometryError(
                "Expected a layer whose cells can be placed in the image, on the way from the "
                f"images to the score. Received: {search.refusals() or 'no layers'}. Choose "
                "another method, or describe the cells: CAM(layer=..., grid=(h, w), prefix=...)."
            )
        chosen, why = best
        return LayerChoice(chosen.cells, why), chosen.tensors
    chosen = search.named(layers, str(request.layer))
    return LayerChoice(chosen.cells, ""), chosen.tensors


class _Search:
    """The layers of one traced graph that qualify, in order of execution."""

    def __init__(self, calls: Sequence[LayerCall], images: tf.Tensor, outputs: tf.Tensor) -> None:
        self.outputs = outputs
        self.found = find_placements(images, outputs)
        self.size = [size or 1 for size in images.shape[1:-1]]
        self.path = {op: number for number, op in enumerate(self.found.path)}
        self.calls = _by_layer(calls)
        self.attention, self.mixed_inside = _attention(calls, self.found, images.graph)
        self.candidates: list[_Candidate] = []
        self.refused: list[tuple[LayerCall, str]] = []
        tensors: set[Any] = set()
        for each in self.calls:
            try:
                candidate = self._qualify(each)
            except UnplaceableError as error:
                self.refused.append((each[-1], str(error)))
                continue
            if candidate.tensors[-1].ref() not in tensors:
                tensors.add(candidate.tensors[-1].ref())
                self.candidates.append(candidate)

    def _qualify(self, calls: Sequence[LayerCall]) -> _Candidate:
        """Return the calls of one layer as a candidate, or raise UnplaceableError."""
        last = calls[-1]
        alive = [call for call in calls if self._is_alive(call)]
        if not alive:
            raise UnplaceableError(self._why_dead(last))
        call = alive[-1]
        self._check_attention(call)
        if len(alive) > 1:
            try:
                places = [self._place(each) for each in alive]
                joined = stack(places, 1)
                return self._candidate(call, tuple(each.outputs for each in alive), joined)
            except UnplaceableError:  # not one call for each frame: the last one counts
                pass
        return self._candidate(call, (call.outputs,), self._place(call))

    def _candidate(
        self, call: LayerCall, tensors: tuple[tf.Tensor, ...], place: Placement
    ) -> _Candidate:
        cells = arrange(place, call.path, self.size)
        return _Candidate(call, tensors, cells, tuple(field.radius for field in place.fields))

    def _is_alive(self, call: LayerCall) -> bool:
        tensor = call.outputs
        known = isinstance(tensor, tf.Tensor) and tensor.dtype.is_floating
        return known and tensor.op in self.path and bool(self.found.ends.get(tensor.op))

    def _why_dead(self, call: LayerCall) -> str:
        tensor = call.outputs
        if not isinstance(tensor, tf.Tensor):
            return f"it returns {type(tensor).__name__}, not one tensor"
        if not tensor.dtype.is_floating:
            return f"it returns {tensor.dtype.name}"
        if tensor.op not in self.path:
            return "it is not on the way from the images to the score, or is inside a tf.function"
        return "the score depends on none of its cells, only on other tokens"

    def _place(self, call: LayerCall) -> Placement:
        place = self.found.place_of(call.outputs)
        if isinstance(place, Placement):
            return place
        reason = place.reason if isinstance(place, Unplaced) else "no dependence on the images"
        raise UnplaceableError(f"its cells cannot be placed behind {reason}")

    def _check_attention(self, call: LayerCall) -> None:
        around = [path for number, path in self.attention.items() if number in call.inside]
        if around:
            raise UnplaceableError(f"it is inside the attention layer {around[-1]}")
        ends = self.found.ends[call.outputs.op]
        parent = call.inside[-1] if call.inside else None
        if parent not in self.mixed_inside or OUTPUTS in ends:
            return
        for other in self.candidates:
            others = self.found.ends[other.tensors[-1].op]
            same = (other.call.inside or (None,))[-1] == parent
            if same and OUTPUTS not in others and ends <= others:
                raise UnplaceableError(f"it is a part of the attention behind {other.call.path}")

    def default(self) -> tuple[_Candidate, str] | None:
        """Return the best candidate, and why it is uncertain, if it is."""
        if not self.candidates:
            return None
        place = self.found.place_of(self.outputs)
        try:
            spatial = arrange(place, "", self.size) if isinstance(place, Placement) else None
        except UnplaceableError:
            spatial = None
        if spatial is not None and isinstance(place, Placement):
            return self._bottleneck(spatial, tuple(field.radius for field in place.fields))
        last = self._last_ones()
        if len(last) > 1:
            return self._common(last)
        return last[0], self._early(last[0])

    def _bottleneck(self, outputs: Cells, radius: tuple[float, ...]) -> tuple[_Candidate, str]:
        """Return the last layer of the lowest resolution, for outputs that are a picture."""

        def is_pointwise(candidate: _Candidate) -> bool:
            same = candidate.cells.grid.cells == outputs.grid.cells
            return same and np.allclose(candidate.radius, radius)

        usable = [each for each in self.candidates if not is_pointwise(each)]
        if not usable:
            return self.candidates[0], "the outputs are a pointwise function of every other layer"
        fewest = min(math.prod(each.cells.grid.cells) for each in usable)
        lowest = [each for each in usable if math.prod(each.cells.grid.cells) == fewest]
        return lowest[-1], ""

    def _last_ones(self) -> list[_Candidate]:
        """Return the candidates that are not behind another one."""
        ops = {each.tensors[-1].op for each in self.candidates}
        later: set[tf.Operation] = set()  # operations with a candidate behind them
        for op in reversed(self.found.path):
            below = [c for t in op.outputs for c in t.consumers() if c in self.path]
            if any(c in later or c in ops for c in below):
                later.add(op)
        return [each for each in self.candidates if each.tensors[-1].op not in later]

    def _common(self, last: Sequence[_Candidate]) -> tuple[_Candidate, str]:
        """Return the last candidate that everything passes through."""
        names = ", ".join(each.call.path for each in last[:3]) + ", ..." * (len(last) > 3)
        for each in reversed(self.candidates):
            if self._carries_all(each.tensors[-1].op):
                return each, (
                    f"{names} lead to the score side by side; {each.call.path} is the last layer "
                    "that all of it passes through"
                )
        return last[-1], f"{names} lead to the score side by side; {last[-1].call.path} is one"

    def _carries_all(self, through: tf.Operation) -> bool:
        """Return whether every path from the images to the outputs passes through an operation."""
        open_ops: set[tf.Operation] = set()
        for op in self.found.path:
            first = not any(t.op in self.path for t in op.inputs)
            if op is not through and (first or any(t.op in open_ops for t in op.inputs)):
                open_ops.add(op)
        return self.outputs.op not in open_ops

    def _early(self, candidate: _Candidate) -> str:
        """Return why a layer is early: no later one has a place."""
        mixing = [op for op in self.found.path if self._is_unplaced(op)]
        behind = _behind(candidate.tensors[-1].op, mixing, self.path)
        later = [call for call, _ in self.refused if self._is_alive(call) and _several(call)]
        later = [
            call
            for call in later
            if self.path[call.outputs.op] > self.path[candidate.tensors[-1].op]
        ]
        first = next(each for each in self.candidates if each.radius == candidate.radius)
        wider = [
            each for each in self.candidates if each.radius < first.radius and any(each.radius)
        ]
        if behind or wider or not later:
            return ""
        reason = dict((call.path, why) for call, why in self.refused)[later[-1].path]
        return (
            f"{candidate.call.path} is an early layer, and no later one qualifies: of "
            f"{later[-1].path}, {reason}"
        )

    def _is_unplaced(self, op: tf.Operation) -> bool:
        return any(isinstance(self.found.place_of(output), Unplaced) for output in op.outputs)

    def ranked(self) -> list[str]:
        """Return the paths of all candidates, best first."""
        best = self.default()
        names = [each.call.path for each in reversed(self.candidates)]
        return list(dict.fromkeys([best[0].call.path, *names])) if best else []

    def refusals(self) -> str:
        """Return the last layers that do not qualify, with the reasons."""
        return "; ".join(f"{call.path}: {why}" for call, why in self.refused[:-4:-1])

    def named(self, layers: Sequence[tuple[str, keras.layers.Layer]], name: str) -> _Candidate:
        """Return the candidate of that name, or raise GeometryError or OptionError."""
        ranked = self.ranked()
        of_name = find_named(layers, name, ranked)
        ids = {id(layer) for _, layer in of_name}
        found = [each for each in self._all() if id(each.call.layer) in ids]
        listed = ", ".join(ranked[:_LISTED]) or "none"
        if len(found) > 1:
            raise OptionError(
                f"Expected the path of one layer. Received: {name!r}, the name of "
                f"{' and '.join(each.call.path for each in found)}."
            )
        if not found:
            why = [reason for call, reason in self.refused if id(call.layer) in ids]
            raise GeometryError(
                f"Expected a layer that returns a grid of cells with a place in the image. "
                f"Received: {name!r}: {(why or ['it is not called'])[0]}. "
                f"Layers that qualify, best first: {listed}."
            )
        return found[0]

    def with_grid(
        self, layers: Sequence[tuple[str, keras.layers.Layer]], request: LayerRequest
    ) -> tuple[LayerChoice, tuple[tf.Tensor, ...]]:
        """Return a named layer with the cells that the caller describes."""
        name, grid = str(request.layer), request.grid or ()
        if len(grid) != len(self.size):
            raise OptionError(
                f"Expected grid as {len(self.size)} numbers of cells, one for each axis of the "
                f"image. Received: {grid}."
            )
        ids = {id(layer) for _, layer in find_named(layers, name, self.ranked())}
        calls = [each[-1] for each in self.calls if id(each[-1].layer) in ids]
        why = "it is not called"
        for call in reversed(calls):
            if not self._is_alive(call):
                why = self._why_dead(call)
                continue
            try:
                cells = given_grid(call.outputs, call.path, self.size, grid, request.prefix)
            except UnplaceableError as error:
                why = str(error)
                continue
            return LayerChoice(self._found_or(cells, call), ""), (call.outputs,)
        raise GeometryError(
            f"Expected a layer of {' x '.join(map(str, grid))} cells behind {request.prefix} other "
            f"tokens. Received: {name!r}: {why}."
        )

    def _found_or(self, given: Cells, call: LayerCall) -> Cells:
        """Return the cells that were found, if they are the given ones, else the given ones."""
        try:
            found = self._candidate(call, (call.outputs,), self._place(call)).cells
        except UnplaceableError:
            return given
        same = (found.grid.cells, found.grid.prefix) == (given.grid.cells, given.grid.prefix)
        if not same:
            raise OptionError(
                f"Expected the grid of {call.path}: {found.grid}. Received: "
                f"grid={given.grid.cells}, prefix={given.grid.prefix}. Leave both out."
            )
        return found

    def _all(self) -> Iterator[_Candidate]:
        """Yield a candidate for each layer that qualifies, also for those with equal outputs."""
        for calls in self.calls:
            try:
                yield self._qualify(calls)
            except UnplaceableError:
                continue


def _by_layer(calls: Sequence[LayerCall]) -> list[list[LayerCall]]:
    """Return the calls of each layer, in the order of the last ones."""
    by_layer: dict[int, list[LayerCall]] = {}
    for call in calls:
        earlier = by_layer.pop(id(call.layer), [])
        by_layer[id(call.layer)] = [*earlier, call]
    return list(by_layer.values())


def _attention(
    calls: Sequence[LayerCall], found: Placements, graph: tf.Graph
) -> tuple[dict[int, str], set[int | None]]:
    """Find the layers that multiply two signals in their own call.

    Returns
    -------
    The paths of attention layers by the number of their call: the cells of their outputs have no
    place. And the numbers of other calls, such as blocks with a residual connection; None stands
    for the model.
    """
    attention: dict[int, str] = {}
    others: set[int | None] = set()
    products = set(found.products)
    numbers = [i for i, op in enumerate(graph.get_operations()) if op in products]
    for number in numbers:
        around = [call for call in calls if call.first <= number < call.end]
        inner = max(around, key=lambda call: call.first, default=None)
        if inner is None:
            others.add(None)
            continue
        tensors = keras.tree.flatten(inner.outputs)
        places = [found.place_of(each) for each in tensors if isinstance(each, tf.Tensor)]
        if any(isinstance(place, Placement) and place.places for place in places):
            others.add(inner.number)
        else:
            attention[inner.number] = inner.path
    return attention, others


def _behind(op: tf.Operation, sources: Sequence[tf.Operation], path: Any) -> bool:
    """Return whether an operation depends on one of the sources."""
    pending, seen = [op], set()
    wanted = set(sources)
    while pending:
        each = pending.pop()
        if each in wanted:
            return True
        if each not in seen:
            seen.add(each)
            pending.extend(t.op for t in each.inputs if t.op in path)
    return False


def _several(call: LayerCall) -> bool:
    """Return whether the outputs of a call have several positions."""
    shape = call.outputs.shape
    return shape.rank is not None and shape.rank > 2 and any(n != 1 for n in shape[1:-1])
