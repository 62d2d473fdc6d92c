"""Layers that qualify for a class activation map, and the reasons why others do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ..placement.joins import stack
from ..placement.parts import Placement, UnplaceableError, Unplaced
from .cells import Cells, arrange
from .layer_calls import LayerCall
from .placements import OUTPUTS, Placements, find_placements


class Candidate(NamedTuple):
    """A layer that qualifies.

    Parameters
    ----------
    calls
        The calls whose outputs count: one, or one for each frame.
    cells
        The cells of these outputs.
    radius
        Half of the extent of their receptive fields, for each axis of the image.
    """

    calls: tuple[LayerCall, ...]
    cells: Cells
    radius: tuple[float, ...]

    @property
    def call(self) -> LayerCall:
        """Its last call."""
        return self.calls[-1]

    @property
    def path(self) -> str:
        """The path of the layer."""
        return self.call.path

    @property
    def tensor(self) -> tf.Tensor:
        """The outputs of the last call."""
        return self.call.outputs

    @property
    def op(self) -> tf.Operation:
        """The operation that returns the outputs of the last call."""
        return self.tensor.op


class Candidates:
    """The layers of one traced graph that qualify, in the order of their last calls.

    Parameters
    ----------
    calls
        The calls of layers, in the order of their end.
    images, outputs
        The ends of the graph.

    Attributes
    ----------
    found, size
        The placements in the graph, and the size of the images.
    all
        The candidates.
    refused
        The last calls of all other layers, with the reasons.
    """

    def __init__(self, calls: Sequence[LayerCall], images: tf.Tensor, outputs: tf.Tensor) -> None:
        self.found = find_placements(images, outputs)
        self.size: list[int] = list(images.shape[1:-1])
        self._attention, self._blocks = _attention(calls, self.found, images.graph)
        self.all: list[Candidate] = []
        self.refused: list[tuple[LayerCall, str]] = []
        for of_layer in _by_layer(calls):
            try:
                self.all.append(self._qualify(of_layer))
            except UnplaceableError as error:
                self.refused.append((of_layer[-1], str(error)))

    @property
    def distinct(self) -> list[Candidate]:
        """The candidates without those that return the outputs of an earlier one."""
        return list({each.tensor.ref(): each for each in reversed(self.all)}.values())[::-1]

    @property
    def widest(self) -> list[Candidate]:
        """The distinct candidates with several cells along the most axes of the image."""

        def axes(candidate: Candidate) -> int:
            return sum(count > 1 for count in candidate.cells.grid.cells)

        most = max(map(axes, self.all), default=0)
        return [each for each in self.distinct if axes(each) == most]

    def is_alive(self, call: LayerCall) -> bool:
        """Return whether the score depends on cells of the outputs of a call."""
        return not self.why_dead(call)

    def why_dead(self, call: LayerCall) -> str:
        """Return why the score does not depend on cells of the outputs; empty if it does."""
        tensor = call.outputs
        if not isinstance(tensor, tf.Tensor) or not tensor.dtype.is_floating:
            what = getattr(tensor, "dtype", type(tensor))
            return f"it returns {getattr(what, 'name', what)}, not one tensor of floats"
        if tensor.op not in self.found.on_path:
            return "it is not on the way from the images to the score, or is inside a tf.function"
        if not self.found.ends_of(tensor):
            return "the score depends on none of its cells, only on other tokens"
        return ""

    def candidate(self, call: LayerCall) -> Candidate:
        """Return the outputs of one call as a candidate, or raise UnplaceableError."""
        self.check_attention(call)
        return self._candidate([call], self._place(call))

    def _qualify(self, calls: Sequence[LayerCall]) -> Candidate:
        """Return the calls of one layer as a candidate, or raise UnplaceableError."""
        alive = [call for call in calls if self.is_alive(call)]
        if not alive:
            raise UnplaceableError(self.why_dead(calls[-1]))
        if len(alive) > 1:
            self.check_attention(alive[-1])
            try:
                return self._candidate(alive, stack([self._place(each) for each in alive], 1))
            except UnplaceableError:  # not one call for each frame: the last one counts
                pass
        return self.candidate(alive[-1])

    def _candidate(self, calls: Sequence[LayerCall], place: Placement) -> Candidate:
        cells = arrange(place, calls[-1].path, self.size)
        radius = tuple(field.radius for field in place.fields)
        return Candidate(tuple(calls), cells, radius)

    def _place(self, call: LayerCall) -> Placement:
        place = self.found.place_of(call.outputs)
        if isinstance(place, Placement):
            return place
        reason = place.reason if isinstance(place, Unplaced) else "no dependence on the images"
        raise UnplaceableError(f"its cells cannot be placed behind {reason}")

    def check_attention(self, call: LayerCall) -> None:
        """Raise UnplaceableError for a part of attention, such as a query.

        In a block or a model that multiplies two signals itself, a part leads to one operand of a
        product only, and what it is made of leads to more.
        """
        around = [path for number, path in self._attention.items() if number in call.inside]
        if around:
            raise UnplaceableError(f"it is inside the attention layer {around[-1]}")
        ends, parent = self.found.ends_of(call.outputs), _parent(call)
        products = [end.split(":")[0] for end in ends]
        if parent not in self._blocks or OUTPUTS in ends or len(set(products)) < len(products):
            return
        for other in self.all:
            others = self.found.ends_of(other.tensor)
            if _parent(other.call) == parent and OUTPUTS not in others and ends < others:
                raise UnplaceableError(f"it is a part of the attention behind {other.path}")


def _parent(call: LayerCall) -> int | None:
    return call.inside[-1] if call.inside else None


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
    """Find the calls of layers that multiply two signals themselves.

    Returns
    -------
    The paths of attention layers by the number of the call: their outputs have no cells. And the
    numbers of other calls, in which there may be parts of attention: models, blocks with a residual
    connection, and what is around an attention layer; None stands for the whole model.
    """
    attention: dict[int, str] = {}
    others: set[int | None] = set()
    products = set(found.products)
    for number, op in enumerate(graph.get_operations()):
        if op not in products:
            continue
        around = [call for call in calls if call.first <= number < call.end]
        inner = max(around, key=lambda call: call.first, default=None)
        if inner is None:
            others.add(None)
        elif isinstance(inner.layer, keras.Model) or _has_cells(inner.outputs, found):
            others.add(inner.number)
        else:
            attention[inner.number] = inner.path
            others.add(_parent(inner))
    return attention, others


def _has_cells(outputs: Any, found: Placements) -> bool:
    tensors = [each for each in keras.tree.flatten(outputs) if isinstance(each, tf.Tensor)]
    places = [found.place_of(tensor) for tensor in tensors]
    return any(isinstance(place, Placement) and place.places for place in places)
