"""The layer of a class activation map: the named one, or the best of those that qualify."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ..errors import GeometryError, OptionError
from ..placement.parts import Placement, UnplaceableError, Unplaced
from .cells import Cells, LayerChoice, arrange, given_grid
from .layer_calls import LayerCall
from .layer_candidates import Candidate, Candidates
from .layer_names import NamedLayer, find_named
from .subject import LayerRequest

_LISTED, _REASONS = 10, 3  # layers and reasons in a message


def choose_layer(
    calls: Sequence[LayerCall],
    layers: Sequence[NamedLayer],
    request: LayerRequest,
    images: tf.Tensor,
    outputs: tf.Tensor,
) -> tuple[LayerChoice, tuple[int, ...]]:
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
    The choice, and the numbers of the calls whose outputs count: one, or one for each frame.

    Raises
    ------
    GeometryError
        If no layer qualifies, or not the named one.
    OptionError
        If no layer or several layers have the name.
    """
    candidates = Candidates(calls, images, outputs)
    best, why = _best(candidates, outputs)
    if request.layer is None:
        if best is None:
            refused = "; ".join(
                f"{c.path}: {r}" for c, r in candidates.refused[: -_REASONS - 1 : -1]
            )
            raise GeometryError(
                "Expected a layer whose cells can be placed in the image, on the way from the "
                f"images to the score. Received: {refused or 'no layers'}. Choose another method, "
                "or describe the cells: CAM(layer=..., grid=(h, w), prefix=...)."
            )
        return LayerChoice(best.cells, why), best.numbers
    listed = [each.path for each in (best, *reversed(candidates.distinct)) if each is not None]
    ranked = list(dict.fromkeys(listed))
    of_name = find_named(layers, str(request.layer), ranked)
    if request.grid is not None:
        last = [call for call in calls if any(call.layer is layer for _, layer in of_name)]
        return _with_grid(candidates, last, request)
    named = _named(candidates, of_name, str(request.layer), ranked)
    return LayerChoice(named.cells, ""), named.numbers


def _named(
    candidates: Candidates, layers: Sequence[NamedLayer], name: str, ranked: Sequence[str]
) -> Candidate:
    """Return the candidate among the layers of a name."""
    ids = {id(layer) for _, layer in layers}
    found = [each for each in candidates.all if id(each.call.layer) in ids]
    if len(found) > 1:
        raise OptionError(
            f"Expected the path of one layer. Received: {name!r}, the name of "
            f"{' and '.join(each.path for each in found)}."
        )
    if not found:
        reasons = [why for call, why in candidates.refused if id(call.layer) in ids]
        raise GeometryError(
            "Expected a layer that returns a grid of cells with a place in the image. "
            f"Received: {name!r}: {(reasons or ['it is not called'])[0]}. "
            f"Layers that qualify, best first: {', '.join(ranked[:_LISTED]) or 'none'}."
        )
    return found[0]


def _with_grid(
    candidates: Candidates, calls: Sequence[LayerCall], request: LayerRequest
) -> tuple[LayerChoice, tuple[int, ...]]:
    """Return the last of some calls with the cells that the caller describes."""
    grid, prefix, why = request.grid or (), request.prefix, "it is not called"
    if len(grid) != len(candidates.size):
        raise OptionError(
            f"Expected grid as {len(candidates.size)} numbers of cells, one for each axis of the "
            f"image. Received: {grid}."
        )
    for call in reversed(calls):
        why = candidates.why_dead(call)
        if why:
            continue
        try:
            cells = given_grid(call.outputs, call.path, candidates.size, grid, prefix)
        except UnplaceableError as error:
            why = str(error)
            continue
        return LayerChoice(_checked(cells, candidates, call), ""), (call.number,)
    raise GeometryError(
        f"Expected a layer of {' x '.join(map(str, grid))} cells behind {prefix} other tokens. "
        f"Received: {request.layer!r}: {why}."
    )


def _checked(given: Cells, candidates: Candidates, call: LayerCall) -> Cells:
    """Return the cells that were found, if they are the given ones; the given ones if none were."""
    try:
        found = candidates.candidate(call).cells
    except UnplaceableError:
        return given
    if (found.grid.cells, found.grid.prefix) != (given.grid.cells, given.grid.prefix):
        raise OptionError(
            f"Expected the grid of the layer: {found.grid}. Received: grid={given.grid.cells}, "
            f"prefix={given.grid.prefix}. Leave both out."
        )
    return found


def _best(candidates: Candidates, outputs: tf.Tensor) -> tuple[Candidate | None, str]:
    """Return the best candidate, and why it is uncertain, if it is."""
    distinct = candidates.widest
    if not distinct:
        return None, ""
    place = candidates.found.place_of(outputs)
    if isinstance(place, Placement):
        try:
            cells = arrange(place, "outputs", candidates.size)
            return _bottleneck(distinct, cells, [field.radius for field in place.fields])
        except UnplaceableError:  # not a picture
            pass
    last = _last_ones(distinct, candidates)
    if len(last) > 1:
        return _common(distinct, last, candidates, outputs.op)
    return last[0], _why_early(last[0], candidates)


def _bottleneck(
    distinct: Sequence[Candidate], outputs: Cells, radius: Sequence[float]
) -> tuple[Candidate, str]:
    """Return the last layer of the lowest resolution, for outputs that are a picture."""

    def is_pointwise(each: Candidate) -> bool:
        """Return whether the outputs are a pointwise function of a layer: they see the same."""
        return each.cells.grid.cells == outputs.grid.cells and np.allclose(each.radius, radius)

    usable = [each for each in distinct if not is_pointwise(each)]
    if not usable:
        return distinct[0], "the outputs are a pointwise function of each layer"
    fewest = min(math.prod(each.cells.grid.cells) for each in usable)
    return [each for each in usable if math.prod(each.cells.grid.cells) == fewest][-1], ""


def _last_ones(distinct: Sequence[Candidate], candidates: Candidates) -> list[Candidate]:
    """Return the candidates that are not behind another one."""
    ops = {each.op for each in distinct}
    earlier: set[tf.Operation] = set()  # operations with a candidate behind them
    for op in reversed(candidates.found.path):
        if any(c in earlier or c in ops for t in op.outputs for c in t.consumers()):
            earlier.add(op)
    return [each for each in distinct if each.op not in earlier]


def _common(
    distinct: Sequence[Candidate],
    last: Sequence[Candidate],
    candidates: Candidates,
    outputs: tf.Operation,
) -> tuple[Candidate, str]:
    """Return the last candidate that everything passes through, or the last one of all."""
    names = ", ".join(each.path for each in last[:_REASONS]) + ", ..." * (len(last) > _REASONS)
    why = f"{names} lead to the score side by side"
    for each in reversed(distinct):
        if _carries_all(each.op, candidates.found.path, outputs):
            return each, f"{why}; {each.path} is the last layer that all of it passes through"
    return last[-1], f"{why}; {last[-1].path} is one of them"


def _carries_all(
    through: tf.Operation, path: Sequence[tf.Operation], outputs: tf.Operation
) -> bool:
    """Return whether all paths from the images to the outputs pass through an operation."""
    on_path, around = set(path), set[tf.Operation]()
    for op in path:
        above = [tensor.op for tensor in op.inputs if tensor.op in on_path]
        if op is not through and (not above or any(each in around for each in above)):
            around.add(op)
    return outputs not in around


def _why_early(candidate: Candidate, candidates: Candidates) -> str:
    """Return why the last candidate is early in the model; empty if it is not.

    It is early if layers behind it have several positions without a place, and it is neither behind
    such layers itself, like the sum of a residual connection, nor behind another convolution.
    """
    path = {op: number for number, op in enumerate(candidates.found.path)}
    wider = [each for each in candidates.all if any(each.radius) and each.radius < candidate.radius]
    later = [
        (call, why)
        for call, why in candidates.refused
        if candidates.is_alive(call)
        and path[call.outputs.op] > path[candidate.op]
        and _has_several_positions(call)
    ]
    if wider or not later or _is_behind_mixing(candidate.op, candidates):
        return ""
    call, why = later[-1]
    return f"{candidate.path} is early, and no later layer qualifies; of {call.path}, {why}"


def _has_several_positions(call: LayerCall) -> bool:
    shape = call.outputs.shape
    return shape.rank is not None and shape.rank > 2 and any(n != 1 for n in shape[1:-1])


def _is_behind_mixing(last: tf.Operation, candidates: Candidates) -> bool:
    """Return whether an operation depends on tensors without a place."""
    behind: set[tf.Operation] = set()
    for op in candidates.found.path:
        lost = any(isinstance(candidates.found.place_of(t), Unplaced) for t in op.outputs)
        if lost or any(tensor.op in behind for tensor in op.inputs):
            behind.add(op)
    return last in behind
