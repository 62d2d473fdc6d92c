"""Modified ReLUs, and the clone of a model that has them in place of its own.

The clone is made with keras.models.clone_model. Only what changes is new in it: each ReLU
becomes an AttributionReLU, a layer with a fused ReLU is copied shallowly with its activation
exchanged, and everything else is called as it is through a Borrowed operation. So the clone has
no weights of its own, nothing goes through get_config (which loses, for example, the statistics
of an adapted Normalization layer), and the caller's layers gain no nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ..errors import OpaqueModelError
from ..methods.rules import RULES, Rule, RuleName, Site, gradient
from .coverage import LEAKY_SCOPE, SITE_SCOPE, match_site
from .model_io import has_visible_layers, symbolic_ends


class _Active(NamedTuple):
    rule: Rule
    gates: Collection[str]
    passed: set[str]


_active: ContextVar[_Active | None] = ContextVar("tfsaliency_active_rule", default=None)


@contextmanager
def backward_rule(rule: Rule, gates: Collection[str] = ()) -> Iterator[set[str]]:
    """Make every ReLU whose backward pass is built inside obey this rule; yield their names.

    Parameters
    ----------
    rule
        (upstream, site) -> gradient.
    gates
        The names of the AttributionReLUs that keep their own derivative, see census.
    """
    active = _Active(rule, gates, set())
    token = _active.set(active)
    try:
        yield active.passed
    finally:
        _active.reset(token)


def active_rule(name: str) -> Rule | None:
    """Return the rule for a ReLU of the backward pass that is being built, None outside of any."""
    active = _active.get()
    if active is None:
        return None
    active.passed.add(name)
    return gradient if name in active.gates else active.rule


@keras.saving.register_keras_serializable(package="tfsaliency")
class AttributionReLU(keras.layers.ReLU):
    """A ReLU whose backward pass follows an attribution rule.

    Forward it is keras.layers.ReLU with the same parameters. While saliency_map builds a
    backward pass, the rule of the method asked for stands in for the layer's own: a map is what
    its name says on a model that contains this layer, too.

    Parameters
    ----------
    rule : str
        A key of RULES.
    max_value : float or None
        The ceiling; None for none.
    negative_slope : float
        The slope below the threshold.
    threshold : float
        Where the rectified part begins.
    **kwargs
        Those of keras.layers.Layer.

    Raises
    ------
    OptionError
        For an unknown rule.

    References
    ----------
    Springenberg et al. 2014, arXiv:1412.6806; Zeiler and Fergus 2014, arXiv:1311.2901.

    Examples
    --------
    >>> import tensorflow as tf, tfsaliency as tfs
    >>> relu = tfs.AttributionReLU("guided_backprop")
    >>> x = tf.constant([-1.0, 1.0, 2.0])
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(x)
    ...     y = relu(x)
    >>> tape.gradient(y, x, output_gradients=tf.constant([5.0, -6.0, 7.0])).numpy().tolist()
    [0.0, 0.0, 7.0]
    """

    def __init__(
        self,
        rule: RuleName = "guided_backprop",
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        RULES.named(rule)
        super().__init__(max_value, negative_slope, threshold, **kwargs)
        self._rule = rule

    @property
    def rule(self) -> str:
        """The rule's name; it cannot be changed, make a new layer instead."""
        return self._rule

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the ReLU of inputs, of any shape, with the rule on its way back."""
        form = _attributes(self, _RELU_PARAMETERS)
        scope = LEAKY_SCOPE if self.negative_slope else SITE_SCOPE
        function = partial(keras.activations.relu, **form)
        return _attribution_relu(inputs, function, RULES[self.rule], scope)

    def compute_output_spec(self, inputs: Any) -> Any:
        """Return the symbolic output, of the shape of the inputs."""
        dtype = self.compute_dtype if self.autocast else inputs.dtype
        return keras.KerasTensor(inputs.shape, dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what from_config needs to make this layer again."""
        return {**super().get_config(), "rule": self.rule}


def _attribution_relu(
    inputs: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor], own_rule: Rule, scope: str
) -> tf.Tensor:
    @tf.custom_gradient
    def relu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        # The inner tape yields the derivative of exactly what ran forward, in TensorFlow's own
        # kernel for it. It is persistent because several rules may share one forward pass.
        with tf.name_scope(scope), tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = function(x)
        site = Site(y, lambda upstream: tape.gradient(y, x, output_gradients=upstream))
        return y, lambda upstream: _rule_at(y, own_rule)(upstream, site)

    return relu(inputs)


def _rule_at(outputs: tf.Tensor, own_rule: Rule) -> Rule:
    if _active.get() is None:  # not for saliency_map
        return own_rule
    return active_rule(match_site(outputs.op.name) or "") or own_rule


class Borrowed(keras.Operation):
    """A node of the clone that calls one of the caller's own layers or operations.

    It is an Operation and not a Layer, so the clone does not track what is borrowed, and neither
    casts nor checks on the way: the layer's own __call__ does. The layer meets no symbolic
    tensor through it, so it gains no node.
    """

    def __init__(self, operation: Any, name: str) -> None:
        super().__init__(name=name)
        self.operation = operation

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the borrowed operation, in inference mode."""
        # A node remembers training=True where the layer was called with it, and where that is its
        # default (random augmentation). A Functional model puts its own mode over it, but only
        # for operations that it knows to have the argument.
        if "training" in kwargs:
            kwargs["training"] = False
        return self.operation(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the borrowed operation says of its outputs."""
        return self.operation.compute_output_spec(*args, **kwargs)


class BorrowedPReLU(Borrowed):
    """A borrowed PReLU layer, with the active rule on its way back."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the PReLU of inputs, of any shape."""
        if self.operation.autocast:  # out here, so that what comes back is of the dtype that went
            inputs = tf.cast(inputs, self.operation.compute_dtype)
        alpha = self.operation.alpha
        slope = tf.identity(alpha.value)  # tf.custom_gradient lets no variable be read inside

        def prelu(x: tf.Tensor) -> tf.Tensor:
            with keras.StatelessScope([(alpha, slope)], initialize_variables=False):
                return self.operation(x)

        return _attribution_relu(inputs, prelu, gradient, LEAKY_SCOPE)


def inject(model: keras.Model) -> keras.Model:
    """Return a clone of a Sequential or Functional model with an AttributionReLU for each ReLU.

    Reached are ReLU, LeakyReLU and PReLU layers, Activation layers, the activation of any other
    layer, and keras.ops.relu nodes; in nested models, too. What is not reached stays as it is,
    and the census finds it.

    Raises
    ------
    OpaqueModelError
        For a model whose layers cannot be seen.
    """
    if not has_visible_layers(model):
        raise OpaqueModelError(
            "A modified rule needs a model whose layers can be seen. Expected a Sequential or "
            f"Functional keras.Model. Received: {type(model).__name__}, with a call() of its own. "
            "Build it with keras.Model(inputs, outputs), or use methods='gradient'."
        )
    clones: dict[int, Any] = {}  # one clone for a layer or model that is used more than once

    def clone_operation(operation: Any) -> Any:
        if id(operation) not in clones:
            nested = isinstance(operation, keras.Model) and has_visible_layers(operation)
            clones[id(operation)] = clone(operation) if nested else _replace(operation)
        return clones[id(operation)]

    def clone(original: keras.Model) -> keras.Model:
        # A plain Functional view: clone_model would also compile a compiled model's clone.
        view = keras.Model(*symbolic_ends(original), name=original.name)
        return keras.models.clone_model(view, clone_function=clone_operation)

    return clone(model)


def list_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield what may be called inside a model or a clone: its layers, and the layers in these."""
    if not has_visible_layers(model):
        yield from model._flatten_layers(include_self=False)
        return
    for operation in getattr(model, "operations", model.layers):
        inner = operation.operation if isinstance(operation, Borrowed) else operation
        if isinstance(inner, keras.layers.Layer):
            yield inner
            yield from list_layers(inner)


_RELU_PARAMETERS = ("max_value", "negative_slope", "threshold")

# Layers that are ReLUs, unless a subclass has a call of its own, and their parameters.
_RELU_LAYERS: dict[Any, tuple[str, ...]] = {
    AttributionReLU: _RELU_PARAMETERS,
    keras.layers.ReLU: _RELU_PARAMETERS,
    keras.layers.LeakyReLU: ("negative_slope",),
}

# The nodes of keras.ops.relu(h) and keras.activations.relu(h); their classes are private.
_RELU_NODES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "Relu": lambda node: {},
    "Relu6": lambda node: {"max_value": 6.0},
    "LeakyRelu": lambda node: _attributes(node, ("negative_slope",)),
    "ReLU": lambda node: _attributes(node, _RELU_PARAMETERS),
}

# What people pass as an activation, and the ReLU it is.
_RELU_FUNCTIONS: dict[Any, dict[str, float]] = {
    keras.activations.relu: {},
    keras.ops.relu: {},
    tf.nn.relu: {},
    keras.activations.relu6: {"max_value": 6.0},
    keras.ops.relu6: {"max_value": 6.0},
    tf.nn.relu6: {"max_value": 6.0},
    keras.activations.leaky_relu: {"negative_slope": 0.2},
    keras.ops.leaky_relu: {"negative_slope": 0.2},
    tf.nn.leaky_relu: {"negative_slope": 0.2},
}


def _replace(operation: Any) -> Any:
    form = _relu_form(operation)
    activation = vars(operation).get("activation")
    if form is None and _calls(operation, keras.layers.Activation):
        form = _relu_form(activation)
    if form is not None:
        return AttributionReLU(**form, name=operation.name, **_casting(operation))
    if isinstance(operation, keras.layers.PReLU) and _calls(operation, keras.layers.PReLU):
        return BorrowedPReLU(operation, operation.name)
    form = _relu_form(activation)
    if form is None:
        return Borrowed(operation, operation.name)
    relu = AttributionReLU(**form, name=operation.name, autocast=False)
    return Borrowed(_with_activation(operation, relu), operation.name)


def _casting(operation: Any) -> dict[str, Any]:
    """Return what makes a layer cast its inputs as the operation it replaces does."""
    if isinstance(operation, keras.layers.Layer):
        return {"dtype": operation.dtype_policy, "autocast": operation.autocast}
    return {"autocast": False}


def _relu_form(candidate: Any) -> dict[str, Any] | None:
    """Return the parameters of the ReLU that a layer, operation or function is, else None."""
    kind = type(candidate)
    for known, parameters in _RELU_LAYERS.items():
        if isinstance(candidate, known) and _calls(candidate, known):
            return _attributes(candidate, parameters)
    if isinstance(candidate, keras.layers.Layer):
        return None
    if isinstance(candidate, keras.Operation):
        form = _RELU_NODES.get(kind.__name__) if kind.__module__.startswith("keras.src.") else None
        return None if form is None else form(candidate)
    hashable = callable(candidate) and getattr(candidate, "__hash__", None) is not None
    return _RELU_FUNCTIONS.get(candidate) if hashable else None


def _calls(operation: Any, kind: Any) -> bool:
    """Tell whether the call of an operation is that of a class, and not one put over it."""
    return type(operation).call is kind.call and "call" not in vars(operation)


def _attributes(owner: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(owner, name) for name in names}


def _with_activation(layer: keras.layers.Layer, activation: Any) -> keras.layers.Layer:
    """Copy a layer shallowly, with another activation: same variables, same call.

    copy.copy would write the layer out and read it back, and setting the attribute would be
    refused by a built layer.
    """
    copied = object.__new__(type(layer))
    vars(copied).update(vars(layer))
    vars(copied)["activation"] = activation
    return copied
