"""Methods as JSON values, for records, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args

import numpy as np

from ..arrays import digest_array
from ..errors import OptionError
from ..tables import ReductionName, code_name
from .attention import Attention
from .blur_ig import BlurIG
from .cam import CAM
from .deep_lift import DeepLIFT
from .expected_gradients import ExpectedGradients
from .guided_ig import GuidedIG
from .integrated_gradients import IntegratedGradients
from .lrp import LRP, TransformerLRP
from .occlusion import Occlusion
from .product import InputXGradient, Product
from .rise import RISE
from .rules import RULES
from .score_cam import ScoreCAM
from .smooth_grad import SmoothGrad
from .table import Method

_COMPOSITIONS: dict[str, Any] = {
    each.__name__: each
    for each in (
        Attention,
        BlurIG,
        CAM,
        DeepLIFT,
        ExpectedGradients,
        GuidedIG,
        InputXGradient,
        IntegratedGradients,
        LRP,
        Occlusion,
        Product,
        RISE,
        ScoreCAM,
        SmoothGrad,
        TransformerLRP,
    )
}
_OPAQUE = ("function", "array")  # keys of what a record names, and does not contain


def method_to_plain(method: Method) -> dict[str, Any]:
    """Return a method with all its settings as JSON values.

    A function is recorded by its name, an array by its digest.

    >>> method_to_plain(Method("smooth", composition=SmoothGrad(samples=2)))["composition"]
    {'type': 'SmoothGrad', 'samples': 2, 'noise': 0.15, 'statistic': 'mean', 'seed': 0, 'inner': None}
    """  # noqa: E501
    return {
        "name": method.name,
        "rule": _plain(method.rule),
        "composition": _plain(method.composition),
        "reduction": method.reduction,
    }


def _plain(value: Any) -> Any:
    """Return the rule, the composition or an option of either as a JSON value."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if _COMPOSITIONS.get(type(value).__name__) is type(value):
        own = {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"type": type(value).__name__, **own}
    rule = next((name for name, known in RULES.items() if known is value), None)
    return describe_value(value) if rule is None else rule


def describe_value(value: Any) -> Any:
    """Return an option as a JSON value: a function by its name, an array by its digest."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [describe_value(item) for item in value]
    if isinstance(named := getattr(value, "name", None), str):  # a layer, or a row of a table
        return named
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        array = np.asarray(value)
        return array.item() if array.ndim == 0 else {"array": digest_array(array)}
    if is_dataclass(value) and not isinstance(value, type):
        return {"function": " ".join(repr(value).split())}
    return {"function": code_name(value)}


def method_from_plain(value: Mapping[str, Any]) -> Method:
    """Return the method that method_to_plain recorded.

    Raises
    ------
    OptionError
        If it has a function or an array of the caller, or parts of another version.
    """
    name, reduction = value.get("name"), value.get("reduction")
    try:
        rule, composition = _built(value["rule"]), _built(value["composition"])
        if reduction not in (None, *get_args(ReductionName)):
            raise LookupError(f"the reduction {reduction!r}")
        return Method(str(name), rule, composition, reduction)
    except (LookupError, TypeError, OptionError) as error:
        raise OptionError(
            f"Expected the method {name!r} as a part of this version of tfsaliency. Received: "
            f"{error}. Pass the methods of the record as methods=."
        ) from error


def _built(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_built, value))
    if not isinstance(value, Mapping):
        return value
    for key in _OPAQUE:
        if key in value:
            raise LookupError(f"the {key} {value[key]:.60}, of which only the name is known")
    kind = value.get("type")
    if kind not in _COMPOSITIONS:
        raise LookupError(f"{kind!r}, which is unknown")
    return _COMPOSITIONS[kind](**{k: _built(v) for k, v in value.items() if k != "type"})
