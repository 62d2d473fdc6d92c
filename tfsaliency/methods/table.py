"""The METHODS table and the record of a method.

A method is a rule for the backward pass of the ReLUs, a composition of the gradients, and a
reduction of the channels. Tests and the command line read their choices from METHODS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeAlias

from ..arrays import resolve_reduction
from ..errors import OptionError
from ..tables import MethodName, ReductionName, Table, by_name, first_line, is_iterable
from .attention import Attention
from .blur_ig import BlurIG
from .cam import CAM, check_layer
from .cell_grids import CellGrid
from .deep_lift import DeepLIFT
from .expected_gradients import ExpectedGradients
from .guided_ig import GuidedIG
from .integrated_gradients import IntegratedGradients
from .lrp import LRP, TransformerLRP
from .occlusion import Occlusion
from .product import InputXGradient, Product
from .protocol import Composition
from .rise import RISE
from .rules import RULES, Rule, RuleName, Site, rect_grad_at, resolve_rule
from .score_cam import ScoreCAM
from .smooth_grad import SmoothGrad

__all__ = [
    "Attention",
    "BlurIG",
    "CAM",
    "CellGrid",
    "DeepLIFT",
    "ExpectedGradients",
    "GuidedIG",
    "InputXGradient",
    "IntegratedGradients",
    "LRP",
    "METHODS",
    "Method",
    "Occlusion",
    "Product",
    "RISE",
    "RULES",
    "ScoreCAM",
    "Site",
    "SmoothGrad",
    "TransformerLRP",
    "rect_grad_at",
]


@dataclass(frozen=True, eq=False)
class Method:
    """An attribution method: a rule for each ReLU, a composition of gradients, a reduction.

    Parameters
    ----------
    name : str
        The name of its maps in the result.
    rule : str or callable
        A key of RULES, or a function (upstream, site) -> gradient. For a float16 model, the
        upstream gradient is scaled by a power of two, and the result must scale with it.
    composition : callable or None
        The composition of the gradients under the rule, such as SmoothGrad(); None for the
        gradient at the image.
    reduction : str or None
        Default reduction of channels: "sum_abs", "max_abs" or "sum"; None for the composition's
        own, which is "sum" if its values are never negative, else "sum_abs".

    Raises
    ------
    OptionError
        For an unknown rule or reduction, or a composition that cannot be called.

    Examples
    --------
    A method or a composition is accepted wherever a name is:

    >>> import keras, numpy as np, tensorflow as tf, tfsaliency as tfs
    >>> blocked = tfs.Method("blocked", lambda upstream, site: tf.zeros_like(upstream))
    >>> smooth = tfs.Method("smooth", "guided_backprop", tfs.SmoothGrad(samples=2))
    >>> model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.ReLU(),
    ...                           keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    >>> maps = tfs.saliency_map(model, np.ones((4, 4, 3)), ["gradient", blocked, smooth],
    ...                         on_problem="ignore")
    >>> [name for name in maps if maps[name].any()]
    ['gradient', 'smooth']
    """

    name: str
    rule: RuleName | Rule = "gradient"
    composition: Composition | None = None
    reduction: ReductionName | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise OptionError(
                f"Expected the name of a method as a nonempty string. Received: {self.name!r}."
            )
        resolve_rule(self.rule)
        if self.composition is not None and not callable(self.composition):
            raise OptionError(
                f"Expected the composition of {self.name!r} as a function (attribute, points, "
                f"image_index) -> Attributions, such as SmoothGrad(). Received: "
                f"{self.composition!r}."
            )
        resolve_reduction(self.channel_reduction)

    @property
    def backward_rule(self) -> Rule:
        """The rule as a function."""
        return resolve_rule(self.rule)

    @property
    def channel_reduction(self) -> str:
        """The default reduction of channels."""
        own: str = getattr(self.composition, "reduction", "sum_abs")
        return own if self.reduction is None else self.reduction

    @property
    def needs_gradient(self) -> bool:
        """False for a composition of forward passes alone."""
        return bool(getattr(self.composition, "needs_gradient", True))

    def is_never_negative(self, reduction: str | None = None) -> bool:
        """Return whether no value of its maps is negative, for a reduction of channels."""
        if (self.channel_reduction if reduction is None else reduction) != "sum":
            return True
        return bool(getattr(self.composition, "never_negative", False))


# The argument `methods` of the public functions: one method, or several.
Methods: TypeAlias = MethodName | str | Method | Composition
MethodsArgument: TypeAlias = Methods | Sequence[Methods]


def _describe(method: Method) -> str:
    """Describe a method in one line: its expression, and the quantity it computes."""
    if method.composition is None:
        return first_line(method.backward_rule)
    rule = "" if method.rule == "gradient" else f" under {method.rule}"
    return f"{_expression(method.composition)}{rule}: {first_line(method.composition)}"


def describe_method(method: Method) -> str:
    """Describe a method with all its settings."""
    settings = " ".join(f"{method.composition!r}".split())
    return f"{method.name}: {settings:.300}"


def _expression(part: Any) -> str:
    """Return the expression that builds a composition, without default options."""
    options = [
        f"{field.name}={_expression(value) if is_dataclass(value) else repr(value)}"
        for field in fields(part)
        if (value := getattr(part, field.name)) != field.default
    ]
    return f"{type(part).__name__}({', '.join(options)})"


METHODS: Table[Method] = Table(
    "method",
    by_name(
        (
            Method("gradient"),
            Method("guided_backprop", "guided_backprop"),
            Method("zeiler_fergus", "zeiler_fergus"),
            Method("rect_grad", "rect_grad"),
            Method("input_x_gradient", composition=InputXGradient()),
            Method("smooth_grad", composition=SmoothGrad()),
            Method("smooth_grad_squared", composition=SmoothGrad(statistic="mean_square")),
            Method("var_grad", composition=SmoothGrad(statistic="variance")),
            Method("integrated_gradients", composition=IntegratedGradients()),
            Method("expected_gradients", composition=ExpectedGradients()),
            Method("blur_ig", composition=BlurIG()),
            Method("guided_ig", composition=GuidedIG()),
            Method("grad_cam", composition=CAM("grad_cam")),
            Method("grad_cam_plus_plus", composition=CAM("grad_cam_plus_plus")),
            Method("layer_cam", composition=CAM("layer_cam")),
            Method("hires_cam", composition=CAM("hires_cam")),
            Method("xgrad_cam", composition=CAM("xgrad_cam")),
            Method("score_cam", composition=ScoreCAM()),
            Method("occlusion", composition=Occlusion()),
            Method("rise", composition=RISE()),
            Method("lrp_epsilon", composition=LRP()),
            Method("lrp_z_plus", composition=LRP("z_plus")),
            Method("lrp_alpha2_beta1", composition=LRP("alpha2_beta1")),
            Method("lrp_epsilon_plus", composition=LRP({"convolution": "z_plus"})),
            Method(
                "lrp_epsilon_plus_flat",
                composition=LRP({"convolution": "z_plus", "first": "flat"}),
            ),
            Method("deep_lift", composition=DeepLIFT()),
            Method("attention_rollout", composition=Attention("rollout")),
            Method("generic_attention", composition=Attention()),
            Method("legrad", composition=Attention("legrad")),
            Method("transformer_lrp", composition=TransformerLRP()),
            Method("guided_grad_cam", "guided_backprop", Product(CAM(rule="gradient"))),
        )
    ),
    _describe,
)

# The default methods of evaluate and the command line; each takes one backward pass.


def resolve_methods(methods: MethodsArgument) -> tuple[Method, ...]:
    """Return the methods as a tuple of Methods.

    Parameters
    ----------
    methods
        A key of METHODS, a Method or a composition, or a sequence of these.

    Raises
    ------
    OptionError
        If a name is unknown, there are no methods, or two have the same name.
    """
    single = isinstance(methods, (str, bytes, Method)) or not is_iterable(methods)
    listed: Iterable[Any] = [methods] if single else methods  # type: ignore[assignment]
    resolved = tuple(map(_resolve, listed))
    names = [method.name for method in resolved]
    if not names or len(set(names)) < len(names):
        raise OptionError(
            f"Expected one or more methods of different names. Received: {names}. "
            f"Known: {', '.join(METHODS)}."
        )
    return resolved


def with_layer(methods: Sequence[Method], layer: Any) -> tuple[Method, ...]:
    """Return the methods with a layer for each class activation map that names none.

    Raises
    ------
    OptionError
        If no method is or contains such a class activation map.
    """
    check_layer(layer)
    if layer is None:
        return tuple(methods)
    if not any(map(_takes_layer, methods)):
        cams = ", ".join(name for name, method in METHODS.items() if _takes_layer(method))
        raise OptionError(
            f"Expected layer= beside a class activation map that names none: {cams}. "
            f"Received: layer={layer!r} with {', '.join(m.name for m in methods)}."
        )
    return tuple(replace(m, composition=_at_layer(m.composition, layer)) for m in methods)


def needs_sizes(method: Method) -> bool:
    """Return whether a method or a part of it must know the size of the images."""
    return _needs_sizes(method.composition)


def _needs_sizes(part: Any) -> bool:
    if getattr(part, "needs_sizes", False):
        return True
    if not is_dataclass(part) or isinstance(part, type):
        return False
    return any(_needs_sizes(getattr(part, each.name)) for each in fields(part) if each.init)


def _takes_layer(method: Method) -> bool:
    """Return whether a method is or contains a class activation map that names no layer."""
    return _at_layer(method.composition, "any") is not method.composition


def _at_layer(part: Any, layer: Any) -> Any:
    """Return a composition with the layer in all parts that are class activation maps."""
    if isinstance(part, (CAM, ScoreCAM)):
        return replace(part, layer=layer) if part.layer is None else part
    if not is_dataclass(part) or isinstance(part, type):
        return part
    changed = {
        field.name: new
        for field in fields(part)
        if field.init and (new := _at_layer(old := getattr(part, field.name), layer)) is not old
    }
    return replace(part, **changed) if changed else part


def identify(method: Method) -> tuple[Any, ...] | None:
    """Return a key that is equal for methods that compute the same, apart from the reduction.

    Return None for a method with a part that may change between calls: a user's callable, or an
    array.
    """
    try:
        return method.name, _identity(method.backward_rule), _identity(method.composition)
    except LookupError:
        return None


def _identity(part: Any) -> Any:
    if part is None or isinstance(part, (str, int, float)):
        return part
    if isinstance(part, tuple):
        return tuple(map(_identity, part))
    if any(part is rule for rule in RULES.values()):
        return part
    if is_dataclass(part) and type(part).__module__.startswith(f"{__package__}."):
        return type(part), *(_identity(getattr(part, field.name)) for field in fields(part))
    raise LookupError


def _resolve(method: Any) -> Method:
    if isinstance(method, Method):
        return method
    if callable(method) and not isinstance(method, type):
        return Method(_default_name(method), composition=method)
    return METHODS.named(method)


def _default_name(composition: Any) -> str:
    """Return the name of a composition's maps: its own, or that of its function or class."""
    name = getattr(composition, "name", None) or getattr(composition, "__name__", None)
    name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(composition).__name__).lower()
    if not isinstance(name, str) or not name.isidentifier():
        raise OptionError(
            f"Expected a composition with a name. Received: {composition!r}. Give it one: "
            "Method('name', 'gradient', composition)."
        )
    return name
