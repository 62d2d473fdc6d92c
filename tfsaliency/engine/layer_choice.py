"""The layer of a class activation map: the named one, or the best of those that qualify."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ..errors import GeometryError, OptionError
from ..placement.parts import Placement, UnplaceableError, Unplaced
from .cells import Cells, LayerChoice, given_grid
from .graph_nodes import find_influenced
from .layer_calls import LayerCall
from .layer_candidates import Candidate, Candidates
from .layer_names import NamedLayer, find_named
from .subject import LayerRequest

_LISTED, _REASONS = 10, 3  # layers and reasons in a message
_WIDER = 0.25  # pixels


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
        return LayerChoice(best.cells, why), _numbers(best)
    listed = [each.path for each in (best, *reversed(candidates.distinct)) if each is not None]
    ranked = list(dict.fromkeys(listed))
    of_name = find_named(layers, str(request.layer), ranked)
    if request.grid is not None:
        return _with_grid(candidates, calls, of_name, request)
    named = _named(candidates, of_name, str(request.layer), ranked)
    return LayerChoice(named.cells, ""), _numbers(named)


def _numbers(candidate: Candidate) -> tuple[int, ...]:
    return tuple(call.number for call in candidate.calls)


def _named(
    candidates: Candidates, layers: Sequence[NamedLayer], name: str, ranked: Sequence[str]
) -> Candidate:
    """Return the candidate among the layers of a name."""
    ids = {id(layer) for _, layer in layers}
    found = [each for each in candidates.all if id(each.call.layer) in ids]
    if len(found) > 1:
        raise _ambiguous(name, [each.path for each in found])
    if not found:
        reasons = [why for call, why in candidates.refused if id(call.layer) in ids]
        raise GeometryError(
            "Expected a layer that returns a grid of cells with a place in the image. "
            f"Received: {name!r}: {(reasons or ['it is not called'])[0]}. "
            f"Layers that qualify, best first: {', '.join(ranked[:_LISTED]) or 'none'}."
        )
    return found[0]


def _with_grid(
    candidates: Candidates,
    calls: Sequence[LayerCall],
    layers: Sequence[NamedLayer],
    request: LayerRequest,
) -> tuple[LayerChoice, tuple[int, ...]]:
    """Return the last call of the layer of a name, with the cells that the caller describes."""
    grid, prefix = request.grid or (), request.prefix
    if len(grid) != len(candidates.size):
        raise OptionError(
            f"Expected grid as {len(candidates.size)} numbers of cells, one for each axis of the "
            f"image. Received: {grid}."
        )
    of_name = [call for call in calls if any(call.layer is layer for _, layer in layers)]
    alive = [call for call in of_name if candidates.is_alive(call)]
    if len({call.path for call in alive}) > 1:
        raise _ambiguous(str(request.layer), list(dict.fromkeys(call.path for call in alive)))
    try:
        if not of_name:
            raise UnplaceableError("it is not called")
        call = (alive or of_name)[-1]
        if not alive:
            raise UnplaceableError(candidates.why_dead(call))
        candidates.check_attention(call)
        cells = given_grid(call.outputs, call.path, candidates.size, grid, prefix)
    except UnplaceableError as error:
        raise GeometryError(
            f"Expected a layer of {' x '.join(map(str, grid))} cells behind {prefix} other tokens. "
            f"Received: {request.layer!r}: {error}."
        ) from error
    return LayerChoice(_checked(cells, candidates, call), ""), (call.number,)


def _ambiguous(name: str, paths: Sequence[str]) -> OptionError:
    return OptionError(
        f"Expected the path of one layer. Received: {name!r}, the name of {' and '.join(paths)}."
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
    widest = candidates.widest
    if not widest:
        return None, ""
    place = candidates.found.place_of(outputs)
    if isinstance(place, Placement) and place.places:
        return _bottleneck(widest, candidates)
    last = _last_ones(widest, candidates)
    if len(last) > 1 or not _carries_all(last[0], candidates, outputs):
        return _common(widest, last, candidates, outputs)
    return last[0], _why_early(last[0], candidates)


def _bottleneck(widest: Sequence[Candidate], candidates: Candidates) -> tuple[Candidate, str]:
    """Return the last layer of the lowest resolution, for outputs that have places themselves.

    Layers of which each output sees a single cell are left out: the map of an output would show
    nothing but where it is.
    """
    spread: set[tf.Operation] = set()  # operations behind which cells are mixed
    found = candidates.found
    for op in reversed(found.path):
        consumers = [c for t in op.outputs for c in t.consumers() if c in found.on_path]
        if any(c in spread or _mixes(c, candidates) for c in consumers):
            spread.add(op)
    usable = [each for each in widest if each.op in spread]
    if not usable:
        return widest[0], "each output sees a single cell of every layer"
    fewest = min(math.prod(each.cells.grid.cells) for each in usable)
    return [each for each in usable if math.prod(each.cells.grid.cells) == fewest][-1], ""


def _mixes(op: tf.Operation, candidates: Candidates) -> bool:
    """Return whether an output of an operation sees several cells of its inputs."""
    if _enlarges(op):
        return False
    before = [candidates.found.place_of(tensor) for tensor in op.inputs]
    places = [place for place in before if isinstance(place, Placement) and place.places]
    after = [candidates.found.place_of(tensor) for tensor in op.outputs]
    for place in after:
        if isinstance(place, Unplaced) and places:
            return True
        for source, field in enumerate(place.fields if isinstance(place, Placement) else ()):
            widths = [each.fields[source].radius for each in places]
            if widths and field.radius > max(widths) + _WIDER:
                return True
    return False


def _enlarges(op: tf.Operation) -> bool:
    """Return whether an operation repeats cells, or interpolates between neighbors."""
    if "BackpropInput" in op.type:
        kernel, stride = list(op.inputs[1].shape)[:-2], op.get_attr("strides")
        return max(kernel) <= 2 * max(stride)
    return op.type.startswith("Resize") or op.type in ("ScaleAndTranslate", "Reshape")


def _last_ones(widest: Sequence[Candidate], candidates: Candidates) -> list[Candidate]:
    """Return the candidates that are not behind another one."""
    ops = {each.op for each in widest}
    earlier: set[tf.Operation] = set()  # operations with a candidate behind them
    for op in reversed(candidates.found.path):
        if any(c in earlier or c in ops for t in op.outputs for c in t.consumers()):
            earlier.add(op)
    return [each for each in widest if each.op not in earlier]


def _common(
    widest: Sequence[Candidate],
    last: Sequence[Candidate],
    candidates: Candidates,
    outputs: tf.Tensor,
) -> tuple[Candidate, str]:
    """Return the last candidate that all cells pass through, or the last one of all."""
    names = ", ".join(each.path for each in last[:_REASONS]) + ", ..." * (len(last) > _REASONS)
    several = len(last) > 1
    why = f"{names} lead to the score side by side" if several else f"{names} is on one branch"
    for each in reversed(widest):
        if _carries_all(each, candidates, outputs):
            return each, f"{why}; {each.path} is the last layer that everything passes through"
    return last[-1], f"{why}; {last[-1].path} is taken"


def _carries_all(candidate: Candidate, candidates: Candidates, outputs: tf.Tensor) -> bool:
    """Return whether all paths of cells from the images to the outputs pass through a layer."""
    found, around = candidates.found, set[Any]()
    through = {call.outputs.op for call in candidate.calls}
    for op in found.path:
        if op in through:
            continue
        above = [tensor for tensor in op.inputs if tensor.op in found.on_path]
        for output in op.outputs:
            ways = [t for t in above if t.ref() in around and not found.drops(t, output)]
            if ways or not above:
                around.add(output.ref())
    return outputs.ref() not in around


def _why_early(candidate: Candidate, candidates: Candidates) -> str:
    """Return why the last candidate is early in the model; empty if it is not.

    It is early if it shows single pixels; or if layers behind it have several positions without a
    place, and it is neither behind such layers itself, like the sum of a residual connection, nor
    behind another convolution.
    """
    if not any(candidate.radius):
        return f"{candidate.path} shows single pixels, and no later layer qualifies"
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
    found = candidates.found
    tensors = [tensor for op in found.path for tensor in op.outputs]
    lost = [tensor for tensor in tensors if isinstance(found.place_of(tensor), Unplaced)]
    return bool(lost) and last in find_influenced(lost)
