"""Plans of a sanity check: the layers that get new weights at each step.

A step is a set of layers. The new weights of a layer depend only on the seed and on its position in
the model, so step 5 computed alone is bit-identical to step 5 of a run. The caller's model is read,
and never assigned to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import keras

from ..arrays import Array
from ..engine.model_io import has_visible_layers
from ..errors import OptionError, unknown_option
from ..tables import PlanName
from .randomizers import Drawn
from .units import Unit

PLANS: tuple[PlanName, ...] = get_args(PlanName)
Plan = PlanName | str | Sequence[str | Sequence[str]]


class Step(NamedTuple):
    """A set of layers to randomize together.

    Parameters
    ----------
    name
        The name of the layer that the step adds or consists of.
    units
        The positions of the layers in list_units(model), in the order of execution.
    """

    name: str
    units: tuple[int, ...]


def plan_steps(plan: Plan, units: Sequence[Unit], order: Sequence[int]) -> tuple[Step, ...]:
    """Return the steps of a plan.

    Parameters
    ----------
    plan
        "cascade" (at step k, the last k layers), "bottom_up" (the first k), "independent" (layer
        L-k+1 alone), "all" (one step), or a list with one name, or a tuple of names, per step.
    units
        All layers with parameters.
    order
        The positions of the layers on which the score depends, from input to output.

    Raises
    ------
    OptionError
        If a plan or layer is unknown.
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


def order_by_use(model: keras.Model, units: Sequence[Unit], used: Sequence[int]) -> tuple[int, ...]:
    """Return the positions of the layers that a score depends on, from input to output.

    If all layers can be inspected, this is the order of model.layers. Layers inside a custom layer
    or a subclassed model are listed in the order of attributes, so for those the order in which the
    trace reads the weights decides.

    Parameters
    ----------
    model
        The model.
    units
        All of its layers with parameters.
    used
        The indices of the weights on which the score depends, in the order in which they are read.
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


def assemble_weights(
    units: Sequence[Unit], step: Step, drawn: Mapping[int, Drawn], weights: Sequence[keras.Variable]
) -> list[Array | None]:
    """Return the weights of a step in the order of the model's weights; None if unchanged.

    Parameters
    ----------
    units, step
        All layers with parameters, and those to randomize.
    drawn
        The new weights by position in units.
    weights
        The model's weights.
    """
    values = {
        id(weight): array
        for position in step.units
        for weight, array in zip(units[position].weights, drawn[position].arrays, strict=True)
    }
    return [values.get(id(weight)) for weight in weights]


def _is_names(entry: Any) -> bool:
    listed = entry if isinstance(entry, (list, tuple)) and entry else (entry,)
    return all(isinstance(name, str) for name in listed)


def _named(name: str, units: Sequence[Unit], order: Sequence[int]) -> list[int]:
    """Return the position of a named layer, or of all layers inside it."""
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
