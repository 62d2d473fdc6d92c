"""Which layers get new weights at which step, and models that have them.

A step is a set of layers. What each of them gets depends on the seed and on its own position in
the model alone (draws), not on the step: step 5 computed alone is bit-identical to step 5 of a
run. The caller's model is read and never assigned to.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from .arrays import Array
from .draws import Draw, Drawn, Unit, copy_of, draw_named, draw_weights, normal, units_of
from .endpoints import has_visible_layers
from .errors import ModelError, OptionError, unknown_option

PLANS = ("cascade", "bottom_up", "independent", "all")
Plan = str | Sequence[str | Sequence[str]]

_ORIGINAL = normal(0.01)


class Step(NamedTuple):
    """Some layers that are randomized together.

    Parameters
    ----------
    name
        Of the layer that this step adds or consists of.
    units
        The positions of the layers in units_of(model), in the order in which the model runs them.
    """

    name: str
    units: tuple[int, ...]


def plan_steps(plan: Plan, units: Sequence[Unit], order: Sequence[int]) -> tuple[Step, ...]:
    """Return the steps of a plan.

    Parameters
    ----------
    plan
        "cascade" (step k: the last k layers), "bottom_up" (the first k), "independent" (layer
        L-k+1 alone), "all" (one step), or a list of names: each a step of its own, and names in
        a tuple one step together.
    units
        All layers with parameters.
    order
        Their positions, those alone that the score depends on, from input to output.

    Raises
    ------
    OptionError
        For an unknown plan or layer.
    """
    paths = [unit.path for unit in units]
    if isinstance(plan, str) and plan not in PLANS and plan in paths:
        plan = [plan]
    if isinstance(plan, str):
        if plan not in PLANS:
            raise unknown_option("plan or layer", plan, [*PLANS, *paths])
        ways: dict[str, list[Sequence[int]]] = {
            "cascade": [order[start:] for start in reversed(range(len(order)))],
            "bottom_up": [order[: end + 1] for end in range(len(order))],
            "independent": [[position] for position in reversed(order)],
            "all": [order],
        }
        added = list(order) if plan == "bottom_up" else list(reversed(order))
        names = ["all layers"] if plan == "all" else [units[position].path for position in added]
        return tuple(Step(n, tuple(way)) for n, way in zip(names, ways[plan], strict=True))
    steps = []
    if not isinstance(plan, (list, tuple)) or not all(map(_is_names, plan)):
        raise OptionError(
            f"Expected plan as one of {', '.join(PLANS)}, or a list of layer names and of tuples "
            f"of them. Received: {plan!r}."
        )
    for entry in plan:
        together = (entry,) if isinstance(entry, str) else tuple(entry)
        together = tuple(dict.fromkeys(together))
        positions = {p for name in together for p in _named(name, units, order)}
        steps.append(Step(" + ".join(together), tuple(p for p in order if p in positions)))
    if not steps or len({step.name for step in steps}) < len(steps):
        raise OptionError(f"Expected names of different layers as plan. Received: {plan!r}.")
    return tuple(steps)


def order_of_use(model: keras.Model, units: Sequence[Unit], used: Sequence[int]) -> tuple[int, ...]:
    """Return the positions of the layers that a score depends on, from input to output.

    Where all layers can be seen that is the order of model.layers; those inside a custom layer or
    a subclassed model are in the order of their attributes, and so the order in which the weights
    are read decides.

    Parameters
    ----------
    model
        The model.
    units
        All of its layers with parameters.
    used
        The indices of the weights that the score depends on, in the order in which they are read.
    """
    weights = model.weights
    rank = {id(weights[index]): place for place, index in enumerate(used)}
    first = {
        position: min(rank[id(w)] for w in unit.parameters if id(w) in rank)
        for position, unit in enumerate(units)
        if any(id(w) in rank for w in unit.parameters)
    }
    holders = (layer for layer in model._flatten_layers() if layer._layers)
    if all(isinstance(h, keras.Model) and has_visible_layers(h) for h in holders):
        return tuple(first)
    return tuple(sorted(first, key=first.__getitem__))


def new_weights(
    units: Sequence[Unit], step: Step, drawn: Mapping[int, Drawn], weights: Sequence[keras.Variable]
) -> list[Array | None]:
    """Return the weights of a step in the order of the model's weights; None for those that stay.

    Parameters
    ----------
    units, step
        All layers with parameters, and which of them.
    drawn
        What was drawn, by position in units.
    weights
        The model's weights.
    """
    values = {
        id(weight): array
        for position in step.units
        for weight, array in zip(units[position].weights, drawn[position].arrays, strict=True)
    }
    return [values.get(id(weight)) for weight in weights]


def randomize_layer(
    layer: keras.layers.Layer, *, draw: str | Draw = _ORIGINAL, seed: int = 0
) -> keras.layers.Layer:
    """Return a copy of a built layer with new random weights.

    Parameters
    ----------
    layer
        A built layer, or a model; not changed. Layers inside it count.
    draw
        How: a key of DRAWS or a Draw; by default normal(0.01), weights and biases alike.
    seed
        What the random numbers come of.

    Returns
    -------
    A layer of the same class, config and name, whose weights have the same shapes, (...).

    Raises
    ------
    OptionError
        For an unknown draw, a layer without weights, or one that Keras cannot copy.

    References
    ----------
    randomizeLearnableParameters of the MATLAB repository compare-gradient-attribution-maps.

    Examples
    --------
    >>> import keras, tfsaliency as tfs
    >>> layer = keras.layers.Dense(100)
    >>> layer.build((None, 100))
    >>> bool(tfs.randomize_layer(layer).kernel.numpy().std() < 0.011)
    True
    """
    _check_layer(layer)
    fresh = copy_of(layer)
    _assign(layer, fresh, range(len(units_of(layer))), draw_named(draw), seed)
    return fresh


def randomize_model_parameters(
    model: keras.Model,
    start: int | str,
    count: int = 0,
    *,
    draw: str | Draw = _ORIGINAL,
    seed: int = 0,
) -> tuple[keras.Model, list[str]]:
    """Return a copy of a model with new random weights in some of its layers.

    Parameters
    ----------
    model
        A built Sequential or Functional model; not changed.
    start
        The first layer: an index into model.layers, or a name; "outer/inner" for a layer inside
        a nested model.
    count
        How many of the following layers, in the order of the layers of the model that start is
        in, are randomized too. Layers without weights are passed over, and counted.
    draw, seed
        As for randomize_layer.

    Returns
    -------
    The new model, and the names of the layers that were randomized, from input to output. Weights
    keep their shapes, (...).

    Raises
    ------
    OptionError
        For an unknown layer or draw, a count that leads past the last layer, layers without any
        weights, or a model that Keras cannot copy.
    ModelError
        For a model whose layers cannot be seen.

    References
    ----------
    parameterRandomization of the MATLAB repository compare-gradient-attribution-maps; Adebayo et
    al. 2018, arXiv:1810.03292.

    Examples
    --------
    >>> import keras, tfsaliency as tfs
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
    ...                           keras.layers.ReLU(), keras.layers.Dense(2, name="top")])
    >>> randomized, names = tfs.randomize_model_parameters(model, "hidden", count=2)
    >>> names
    ['hidden', 'top']
    """
    _check_layer(model)
    chosen = _layers_from(model, start, count)
    inside = {id(inner) for layer in chosen for inner in layer._flatten_layers()}
    units = units_of(model)
    positions = [position for position, unit in enumerate(units) if id(unit.layer) in inside]
    if not positions:
        raise OptionError(
            "Expected layers with weights to randomize. Received: "
            f"{', '.join(repr(layer.name) for layer in chosen)}, which have none."
        )
    fresh = copy_of(model)
    _assign(model, fresh, positions, draw_named(draw), seed)
    return fresh, [units[position].path for position in positions]


def _assign(
    source: keras.layers.Layer, copy: Any, positions: Iterable[int], draw: Draw, seed: int
) -> None:
    """Give a copy new weights at some positions, and see that it differs there and nowhere else."""
    units, copies = units_of(source), units_of(copy)
    if [_shapes(unit) for unit in units] != [_shapes(unit) for unit in copies]:
        raise OptionError(
            f"The copy of {source.name!r} that Keras made has other layers than it. Expected "
            "layers that get_config describes. sanity_check needs no copy."
        )
    targeted = set()
    unchanged: list[str] = []
    for position in positions:
        drawn = draw_weights(units[position], draw, seed, position)
        unchanged += drawn.unchanged
        for weight, array in zip(copies[position].weights, drawn.arrays, strict=True):
            if array is not None:
                weight.assign(array)
                targeted.add(id(weight))
    differing = {
        id(new): not (old.numpy() == new.numpy()).all()
        for old, new in zip(source.weights, copy.weights, strict=True)
    }
    if any(differs for new, differs in differing.items() if new not in targeted):
        raise OptionError(f"The copy of {source.name!r} that Keras made has other weights than it.")
    if not any(differing.values()):
        raise OptionError(
            f"The draw {draw.name!r} left all weights as they are: {', '.join(unchanged)}. "
            "Expected weights that were trained, or a draw of more than one value."
        )


def _shapes(unit: Unit) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in unit.weights]


def _check_layer(layer: Any) -> None:
    if not isinstance(layer, keras.layers.Layer) or not units_of(layer):
        raise OptionError(
            "Expected a built Keras layer or model with weights to randomize. "
            f"Received: {layer!r:.100}."
        )


def _layers_from(model: keras.Model, start: int | str, count: int) -> list[keras.layers.Layer]:
    """Return the layer at start and the count that follow it in the model it is in."""
    holder = model
    if isinstance(start, str):
        *outer, name = start.split("/")
        for step in outer:
            holder = _visible(holder, start).layers[_index(holder, step)]
        index = _index(_visible(holder, start), name)
    else:
        index = _whole(start, "start")
    listed = _visible(holder, start).layers
    last = index + _whole(count, "count")
    if last >= len(listed):
        raise OptionError(
            f"Expected start and count within the {len(listed)} layers of {holder.name!r}. "
            f"Received: start={start!r} (layer {index}), count={count}."
        )
    return list(listed[index : last + 1])


def _whole(number: Any, what: str) -> int:
    try:
        value = -1 if isinstance(number, bool) else operator.index(number)
    except TypeError:
        value = -1
    if value < 0:
        raise OptionError(f"Expected {what} as a whole number from 0. Received: {number!r}.")
    return value


def _visible(model: Any, start: int | str) -> Any:
    if not isinstance(model, keras.Model) or not has_visible_layers(model):
        raise ModelError(
            f"Cannot see the layers of {model.name!r} in their order. Expected a Sequential or "
            f"Functional model, and for start={start!r} a path through such models."
        )
    return model


def _index(model: keras.Model, name: str) -> int:
    names = [layer.name for layer in model.layers]
    if name not in names:
        raise unknown_option(f"layer of {model.name!r}", name, names)
    return names.index(name)


def _is_names(entry: Any) -> bool:
    listed = entry if isinstance(entry, (list, tuple)) and entry else (entry,)
    return all(isinstance(name, str) for name in listed)


def _named(name: str, units: Sequence[Unit], order: Sequence[int]) -> list[int]:
    """Return the positions of the layer of a name, or of all layers in the one of that name."""
    found = [
        position
        for position, unit in enumerate(units)
        if unit.path == name or unit.path.startswith(f"{name}/")
    ]
    if not found:
        paths = [unit.path for unit in units]
        raise unknown_option("layer with weights", name, [*paths, *PLANS])
    used = [position for position in found if position in set(order)]
    if not used:
        raise OptionError(
            f"The score does not depend on the weights of {name!r}. Expected layers between the "
            "image and the score."
        )
    return used
