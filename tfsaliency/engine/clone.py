"""AttributionReLU, and the clone of a model that has it in place of each ReLU.

keras.models.clone_model makes the clone. Only changed parts of it are new: each ReLU becomes an
AttributionReLU, a layer with a fused ReLU is copied shallowly with another activation, and every
other layer is called through a Borrowed operation. The clone therefore has no weights, does not
rely on get_config (which loses, for example, the statistics of an adapted Normalization layer), and
adds no nodes to the caller's layers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tensorflow.python.framework import ops as _tf_ops

from ..errors import OpaqueModelError
from ..methods.rules import RULES, Rule, RuleName, Site, gradient
from .coverage import CUSTOM, LEAKY_SCOPE, MARK, SITE_SCOPE, match_site
from .model_io import has_visible_layers, symbolic_ends


class _Active(NamedTuple):
    rule: Rule
    gates: Collection[str]
    passed: set[str]


_active: ContextVar[_Active | None] = ContextVar("tfsaliency_active_rule", default=None)


@contextmanager
def backward_rule(rule: Rule, gates: Collection[str] = ()) -> Iterator[set[str]]:
    """Apply a rule to every ReLU whose backward pass is built inside; yield their names.

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
    """Return the rule for a ReLU in the backward pass being built; None outside of one."""
    active = _active.get()
    if active is None:
        return None
    active.passed.add(name)
    return gradient if name in active.gates else active.rule


@keras.saving.register_keras_serializable(package="tfsaliency")
class AttributionReLU(keras.layers.ReLU):
    """A ReLU whose backward pass follows an attribution rule.

    The forward pass is that of keras.layers.ReLU. In maps of saliency_map, the rule of the
    requested method replaces the layer's own rule, so that a map is correct on a model that already
    contains this layer.

    Parameters
    ----------
    rule : str
        A key of RULES.
    max_value : float or None
        The ceiling; None for none.
    negative_slope : float
        The slope below the threshold.
    threshold : float
        The input above which the ReLU is the identity.
    **kwargs
        Arguments of keras.layers.Layer.

    Raises
    ------
    OptionError
        If the rule is unknown.

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
        """The name of the rule; read-only."""
        return self._rule

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the ReLU of inputs of any shape; its backward pass follows the rule."""
        form = _attributes(self, _RELU_PARAMETERS)
        scope = LEAKY_SCOPE if self.negative_slope else SITE_SCOPE
        function = partial(keras.activations.relu, **form)
        return _attribution_relu(inputs, function, RULES[self.rule], scope)

    def compute_output_spec(self, inputs: Any) -> Any:
        """Return the symbolic output, which has the shape of the inputs."""
        dtype = self.compute_dtype if self.autocast else inputs.dtype
        return keras.KerasTensor(inputs.shape, dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of the layer, for from_config."""
        return {**super().get_config(), "rule": self.rule}


def _attribution_relu(
    inputs: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor], own_rule: Rule, scope: str
) -> tf.Tensor:
    @tf.custom_gradient
    def relu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        # The inner tape differentiates the ops that ran forward, by TensorFlow's own kernels. It is
        # persistent because several rules may share one forward pass.
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
    """A node of the clone that calls one of the caller's layers or operations.

    It is an Operation instead of a Layer: the clone does not track the borrowed layer, and casts
    and checks are left to that layer's own __call__. No symbolic tensor reaches the layer, so it
    gains no node.
    """

    def __init__(self, operation: Any, name: str) -> None:
        super().__init__(name=name)
        self.operation = operation

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the borrowed operation, in inference mode."""
        # A node remembers training=True if the layer was called with it, or has it as a default
        # (random augmentation). A Functional model overrides it only for operations that it knows
        # to have the argument.
        if "training" in kwargs:
            kwargs["training"] = False
        return self.operation(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output specification of the borrowed operation."""
        return self.operation.compute_output_spec(*args, **kwargs)


class BorrowedPReLU(Borrowed):
    """A borrowed PReLU layer whose backward pass follows the active rule."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the PReLU of inputs, of any shape."""
        if self.operation.autocast:  # outside, so that the gradient has the dtype of the inputs
            inputs = tf.cast(inputs, self.operation.compute_dtype)
        alpha = self.operation.alpha
        slope = tf.identity(alpha.value)  # tf.custom_gradient must not read variables

        def prelu(x: tf.Tensor) -> tf.Tensor:
            with keras.StatelessScope([(alpha, slope)], initialize_variables=False):
                return self.operation(x)

        return _attribution_relu(inputs, prelu, gradient, LEAKY_SCOPE)


def inject(model: keras.Model) -> keras.Model:
    """Return a clone of a Sequential or Functional model with an AttributionReLU for each ReLU.

    It reaches ReLU, LeakyReLU and PReLU layers, Activation layers, the activation of any other
    layer, and keras.ops.relu nodes, in nested models too. The census finds ReLUs that it does not
    reach.

    Raises
    ------
    OpaqueModelError
        If the layers of the model cannot be inspected.
    """
    if not has_visible_layers(model):
        raise OpaqueModelError(
            "A modified rule needs a model whose layers can be inspected. Expected a Sequential or "
            f"Functional keras.Model. Received: {type(model).__name__}, with a call() of its own. "
            "Build it with keras.Model(inputs, outputs), or use methods='gradient'."
        )
    clones: dict[int, Any] = {}  # a layer or model that is used several times has one clone

    def clone_operation(operation: Any) -> Any:
        if id(operation) not in clones:
            nested = isinstance(operation, keras.Model) and has_visible_layers(operation)
            clones[id(operation)] = clone(operation) if nested else _replace(operation)
        return clones[id(operation)]

    def clone(original: keras.Model) -> keras.Model:
        # A plain Functional view, because clone_model compiles the clone of a compiled model.
        view = keras.Model(*symbolic_ends(original), name=original.name)
        return keras.models.clone_model(view, clone_function=clone_operation)

    return clone(model)


def forget_custom_gradients(graph: tf.Graph) -> None:
    """Drop a graph's entries from TensorFlow's registry of gradient functions.

    tf.custom_gradient adds an entry for each call, and never removes it. Each holds the whole
    graph, some 3 MB for a model of ten ReLUs. The graph cannot be differentiated afterwards.
    """
    registered = _tf_ops.gradient_registry._registry
    for op in graph.get_operations():
        if op.type == "IdentityN":
            name = op.node_def.attr[MARK].s.decode()
            if name.startswith(CUSTOM):
                registered.pop(name, None)


_RELU_PARAMETERS = ("max_value", "negative_slope", "threshold")

# Layers that are ReLUs, unless a subclass overrides call, and their parameters.
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

# Functions that are passed as an activation, and the ReLUs they are.
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
    """Return the arguments by which a layer casts its inputs like the operation it replaces."""
    if isinstance(operation, keras.layers.Layer):
        return {"dtype": operation.dtype_policy, "autocast": operation.autocast}
    return {"autocast": False}


def _relu_form(candidate: Any) -> dict[str, Any] | None:
    """Return the ReLU parameters of a layer, operation or function; None if it is not a ReLU."""
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
    """Return whether an operation has the call method of a class, not an override."""
    return type(operation).call is kind.call and "call" not in vars(operation)


def _attributes(owner: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(owner, name) for name in names}


def _with_activation(layer: keras.layers.Layer, activation: Any) -> keras.layers.Layer:
    """Copy a layer shallowly, with another activation: same variables, same call.

    copy.copy would serialize the layer, and a built layer does not allow setting the attribute.
    """
    copied = object.__new__(type(layer))
    vars(copied).update(vars(layer))
    vars(copied)["activation"] = activation
    return copied
