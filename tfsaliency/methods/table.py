"""What a map is called and how it is made: the METHODS table.

A method is a rule for the backward pass of the ReLUs, what is made of the gradients, and how the
channels become one. Tests, the command line's choices and the README's table come from METHODS.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from .arrays import reduction_named
from .compositions import (
    CAM,
    BlurIG,
    Composition,
    ExpectedGradients,
    GuidedIG,
    InputXGradient,
    IntegratedGradients,
    Product,
    SmoothGrad,
)
from .errors import OptionError, unknown_option
from .rules import RULES, Rule, gradient, guided_backprop, rect_grad, zeiler_fergus


class Method(NamedTuple):
    """An attribution method: a rule for each ReLU, a composition of gradients, a reduction.

    Parameters
    ----------
    name
        The key of its maps in the result.
    rule
        (upstream, site) -> gradient; see RULES. On a model that computes in float16 it gets the
        upstream gradient times a power of two, and should return its result times the same.
    composition
        What is made of the gradients under the rule, see tfsaliency.compositions; None for the
        gradient at the image itself.
    reduction
        How gradient_map makes one channel of several, if it is not told: "sum_abs", "max_abs" or
        "sum".

    Examples
    --------
    A method of one's own is passed wherever a name is:

    >>> import keras, numpy as np, tensorflow as tf, tfsaliency as tfs
    >>> blocked = tfs.Method("blocked", lambda upstream, site: tf.zeros_like(upstream))
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.ReLU(),
    ...                           keras.layers.Flatten(), keras.layers.Dense(2)])
    >>> maps = tfs.gradient_map(model, np.ones((4, 4, 3)), ["gradient", blocked],
    ...                         on_problem="ignore")
    >>> [name for name in maps if maps[name].any()]
    ['gradient']
    """

    name: str
    rule: Rule
    composition: Composition | None = None
    reduction: str = "sum_abs"


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("gradient", gradient),
        Method("guided_backprop", guided_backprop),
        Method("zeiler_fergus", zeiler_fergus),
        Method("rect_grad", rect_grad),
        Method("input_x_gradient", gradient, InputXGradient()),
        Method("smooth_grad", gradient, SmoothGrad()),
        Method("smooth_grad_squared", gradient, SmoothGrad(statistic="mean_square"), "sum"),
        Method("var_grad", gradient, SmoothGrad(statistic="variance"), "sum"),
        Method("integrated_gradients", gradient, IntegratedGradients()),
        Method("expected_gradients", gradient, ExpectedGradients()),
        Method("blur_ig", gradient, BlurIG()),
        Method("guided_ig", gradient, GuidedIG()),
        Method("grad_cam", gradient, CAM("grad_cam"), "sum"),
        Method("grad_cam_plus_plus", gradient, CAM("grad_cam_plus_plus"), "sum"),
        Method("layer_cam", gradient, CAM("layer_cam"), "sum"),
        Method("guided_grad_cam", guided_backprop, Product(CAM("grad_cam", rule=gradient))),
    )
}

# Compared where nobody says which: one backward pass each, and nothing to choose.
DEFAULT_METHODS = ("gradient", "guided_backprop", "zeiler_fergus")


def resolve_methods(methods: str | Method | Sequence[str | Method]) -> tuple[Method, ...]:
    """Return the methods asked for.

    Parameters
    ----------
    methods
        A key of METHODS, a Method, or a sequence of these.

    Raises
    ------
    OptionError
        For an unknown name, none at all, or two methods of one name.
    """
    single = isinstance(methods, (str, Method)) or not isinstance(methods, Iterable)
    listed: list[Any] = [methods] if single else list(methods)
    resolved = tuple(_resolve(method) for method in listed)
    names = [method.name for method in resolved]
    if not names or len(set(names)) < len(names):
        raise OptionError(
            f"Expected one or more methods of different names. Received: {names}. "
            f"Known: {', '.join(METHODS)}."
        )
    return resolved


_OWN = f"{__package__}.compositions."  # how the modules of this package's compositions begin


def identity_of(method: Method) -> tuple[Any, ...] | None:
    """Return what is equal for methods that compute the same, whatever their reduction.

    None for a method with a part that may compute something else in the next call: a callable of
    the caller's own, or an array.
    """
    try:
        return method.name, _known(method.rule), _known(method.composition)
    except LookupError:
        return None


def _known(part: Any) -> Any:
    if part is None or isinstance(part, (str, int, float)):
        return part
    if any(part is rule for rule in RULES.values()):
        return part
    if is_dataclass(part) and type(part).__module__.startswith(_OWN):
        return type(part), *(_known(getattr(part, field.name)) for field in fields(part))
    raise LookupError


def _resolve(method: str | Method) -> Method:
    if isinstance(method, Method):
        if not callable(method.rule):
            raise OptionError(
                f"Expected the rule of {method.name!r} as a function (upstream, site) -> gradient. "
                f"Received: {method.rule!r}."
            )
        if method.composition is not None and not callable(method.composition):
            raise OptionError(
                f"Expected the composition of {method.name!r} as a function (explain, points, "
                f"rows) -> Explained, such as SmoothGrad(). Received: {method.composition!r}."
            )
        reduction_named(method.reduction)
        return method
    if not isinstance(method, str) or method not in METHODS:
        raise unknown_option("method", method, METHODS)
    return METHODS[method]
