"""One tiny model for each way of writing a ReLU, and its expected treatment.

All models of SPELLINGS and HIDDEN are conv - ReLU - conv - ReLU - average - dense, so that they
share one NumPy reference. A clone reaches the ReLUs of SPELLINGS; the traced graph reaches those of
HIDDEN; those of REFUSED are refused by name.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from reference import backprop

import tfsaliency as tfs

SIZE, CHANNELS, CLASSES = 7, 3, 4
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}  # of the largest value
# Rules of single values; 2 % of a tiny layer, for RectGrad, may be no value at all.
RULES = ["gradient", "guided_backprop", "zeiler_fergus"]


def assert_equal_maps(ours: np.ndarray, reference: np.ndarray, tolerance: float) -> None:
    """Compare maps at a tolerance relative to the largest value, which is not zero."""
    largest = np.abs(reference).max()
    assert largest > 0
    assert np.abs(ours - reference).max() <= tolerance * largest


def assert_equal_to_reference(
    rule: str, ours: np.ndarray, reference: np.ndarray, tolerance: float
) -> None:
    """Compare maps of a rule; RectGrad's are zero if the largest values are all equal."""
    if rule == "rect_grad" and not reference.any():
        assert not ours.any()
    else:
        assert_equal_maps(ours, reference, tolerance)


class Spelling(NamedTuple):
    build: Callable[[str], keras.Model]
    form: Mapping[str, float] = MappingProxyType({})


def random_weights(model: keras.Model, seed: int = 0) -> keras.Model:
    """Set weights with which every form of ReLU shows all of its slopes."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.normal(0.05, 0.45, weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return model


def images(n: int = 2, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 1.5, (n, SIZE, SIZE, CHANNELS))


def _input(dtype: str) -> Any:
    return keras.Input((SIZE, SIZE, CHANNELS), dtype=keras.DTypePolicy(dtype).variable_dtype)


def _body(relu: Callable[[Any, str], Any], fused: Any = None, softmax: Any = "softmax"):
    """Return a builder of the common model: relu(x, dtype) as a step, or fused in the conv."""

    def build(dtype: str = "float32") -> keras.Model:
        x = inputs = _input(dtype)
        for _ in range(2):
            activation = fused() if fused else None
            x = layers.Conv2D(5, 3, activation=activation, dtype=dtype)(x)
            x = relu(x, dtype)
        x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
        x = layers.Dense(CLASSES, activation=softmax, dtype=dtype)(x)
        return random_weights(keras.Model(inputs, x))

    return build


def _layer(make: Callable[..., Any]):
    return _body(lambda x, dtype: make(dtype=dtype)(x))


def _function(function: Callable[[Any], Any]):
    return _body(lambda x, dtype: function(x))


def _fused(activation: Any):
    return _body(lambda x, dtype: x, fused=lambda: activation)


def _with(make: Callable[..., Any], *args: Any, **kwargs: Any):
    return lambda dtype: make(*args, dtype=dtype, **kwargs)


@keras.saving.register_keras_serializable("zoo")
class MyConv(layers.Conv2D):
    """A subclass that overrides call and still uses self.activation."""

    def call(self, inputs):
        return super().call(inputs) * 1.0


@keras.saving.register_keras_serializable("zoo")
class NoConfig(layers.Layer):
    """A layer that get_config cannot describe, with the usual attribute."""

    def __init__(self, function, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.activation = function

    def call(self, x):
        return self.activation(x)


def _compiled(dtype: str = "float32") -> keras.Model:
    model = _layer(layers.ReLU)(dtype)
    model.compile("adam", "categorical_crossentropy")
    return model


def _sequential(dtype: str = "float32") -> keras.Model:
    steps = [_input(dtype)]
    for _ in range(2):
        steps += [layers.Conv2D(5, 3, dtype=dtype), layers.ReLU(dtype=dtype)]
    steps += [
        layers.GlobalAveragePooling2D(dtype=dtype),
        layers.Dense(CLASSES, "softmax", dtype=dtype),
    ]
    return random_weights(keras.Sequential(steps))


def _nested(dtype: str = "float32") -> keras.Model:
    """A Sequential in a Functional in a Functional."""
    block = keras.Sequential(
        [
            _input(dtype),
            layers.Conv2D(5, 3, dtype=dtype),
            layers.Activation("relu", dtype=dtype),
        ]
    )
    h = i = _input(dtype)
    h = layers.Conv2D(5, 3, activation="relu", dtype=dtype)(block(h))
    backbone = keras.Model(i, h, name="backbone")
    backbone.compile("sgd", "mse")
    x = i = _input(dtype)
    x = layers.GlobalAveragePooling2D(dtype=dtype)(backbone(x, training=False))
    x = layers.Dropout(0.5, dtype=dtype)(x)
    return random_weights(keras.Model(i, layers.Dense(CLASSES, "softmax", dtype=dtype)(x)))


def _shared(dtype: str = "float32") -> keras.Model:
    """One ReLU layer called twice."""
    relu = layers.ReLU(dtype=dtype)
    return _body(lambda x, _: relu(x))(dtype)


def _prelu(dtype: str = "float32") -> keras.Model:
    model = _body(lambda x, d: layers.PReLU(shared_axes=[1, 2], dtype=d)(x))(dtype)
    for layer in model.layers:
        if isinstance(layer, layers.PReLU):
            layer.alpha.assign(0.25 * np.ones(layer.alpha.shape))
    return model


SPELLINGS: dict[str, Spelling] = {
    "ReLU layer": Spelling(_layer(layers.ReLU)),
    "Conv2D(activation='relu')": Spelling(_fused("relu")),
    "Conv2D(activation=keras.activations.relu)": Spelling(_fused(keras.activations.relu)),
    "Conv2D(activation=keras.ops.relu)": Spelling(_fused(keras.ops.relu)),
    "Conv2D(activation=tf.nn.relu)": Spelling(_fused(tf.nn.relu)),
    "Conv2D(activation=ReLU())": Spelling(
        _body(lambda x, _: x, fused=lambda: layers.ReLU(dtype="float64"))
    ),
    "Activation('relu')": Spelling(_body(lambda x, d: layers.Activation("relu", dtype=d)(x))),
    "Activation(tf.nn.relu)": Spelling(
        _body(lambda x, d: layers.Activation(tf.nn.relu, dtype=d)(x))
    ),
    "Activation(ReLU())": Spelling(
        _body(lambda x, d: layers.Activation(layers.ReLU(dtype=d), dtype=d)(x))
    ),
    "ReLU(6.)": Spelling(_body(lambda x, d: layers.ReLU(6.0, dtype=d)(x)), {"max_value": 6.0}),
    "ReLU(max_value=.625)": Spelling(
        _body(lambda x, d: layers.ReLU(max_value=0.625, dtype=d)(x)), {"max_value": 0.625}
    ),
    "Conv2D(activation='relu6')": Spelling(_fused("relu6"), {"max_value": 6.0}),
    "ReLU(negative_slope=.125)": Spelling(
        _body(lambda x, d: layers.ReLU(negative_slope=0.125, dtype=d)(x)), {"negative_slope": 0.125}
    ),
    "LeakyReLU(.25)": Spelling(
        _body(lambda x, d: layers.LeakyReLU(0.25, dtype=d)(x)), {"negative_slope": 0.25}
    ),
    "Conv2D(activation='leaky_relu')": Spelling(
        _fused("leaky_relu"), {"negative_slope": float(np.float32(0.2))}
    ),
    "ReLU(threshold=.375)": Spelling(
        _body(lambda x, d: layers.ReLU(threshold=0.375, dtype=d)(x)), {"threshold": 0.375}
    ),
    "ReLU(.875, .125, .375)": Spelling(
        _body(lambda x, d: layers.ReLU(0.875, 0.125, 0.375, dtype=d)(x)),
        {"max_value": 0.875, "negative_slope": 0.125, "threshold": 0.375},
    ),
    "PReLU": Spelling(_prelu, {"negative_slope": 0.25}),
    "keras.ops.relu(h)": Spelling(_function(keras.ops.relu)),
    "keras.ops.relu6(h)": Spelling(_function(keras.ops.relu6), {"max_value": 6.0}),
    "keras.ops.leaky_relu(h, .25)": Spelling(
        _function(lambda h: keras.ops.leaky_relu(h, 0.25)), {"negative_slope": 0.25}
    ),
    "keras.activations.relu(h)": Spelling(_function(keras.activations.relu)),
    "keras.activations.relu(h, max_value=.625)": Spelling(
        _function(lambda h: keras.activations.relu(h, max_value=0.625)), {"max_value": 0.625}
    ),
    "AttributionReLU of another rule": Spelling(
        _body(lambda x, d: tfs.AttributionReLU("zeiler_fergus", dtype=d)(x))
    ),
    "subclass of Conv2D": Spelling(
        _body(lambda x, d: MyConv(5, 1, activation="relu", use_bias=False, dtype=d)(x))
    ),
    "layer without get_config": Spelling(
        _body(lambda x, d: NoConfig(keras.activations.relu, dtype=d)(x))
    ),
    "shared ReLU layer": Spelling(_shared),
    "Sequential": Spelling(_sequential),
    "nested": Spelling(_nested),
    "compiled": Spelling(_compiled),
    "random augmentation": Spelling(
        _body(lambda x, d: layers.RandomFlip(dtype=d)(layers.ReLU(dtype=d)(x)))
    ),
    "layers called with training=True": Spelling(
        _body(lambda x, d: layers.Dropout(0.5, dtype=d)(layers.ReLU(dtype=d)(x), training=True))
    ),
    "no softmax": Spelling(_body(lambda x, d: layers.ReLU(dtype=d)(x), softmax=None)),
}


def reference_gradient(model: keras.Model, x: np.ndarray, target: int, rule: str, form: dict):
    """Gradient of a logit of a SPELLINGS model in NumPy, for one image (h, w, c)."""
    weights = [
        np.asarray(w.numpy(), dtype=np.float64) for w in model.weights if "alpha" not in w.path
    ]
    steps = []
    while len(weights) > 2:
        kernel = weights.pop(0)
        bias = weights.pop(0) if weights[0].ndim == 1 else np.zeros(kernel.shape[-1])
        steps.append(lambda h, k=kernel, b=bias: backprop.conv(h, k, b))
        # In the model of MyConv only that one, 1x1, has a ReLU.
        if kernel.shape[0] == 1 or not any(isinstance(layer, MyConv) for layer in model.layers):
            steps.append(lambda h: backprop.relu(h, rule, **form))
    steps.append(backprop.global_average)
    steps.append(lambda h: backprop.dense(h, *weights))
    logits, backward = backprop.chain(x.astype(np.float64), *steps)
    return logits, backward(np.eye(len(logits))[target])


# ReLUs that no clone reaches.


@keras.saving.register_keras_serializable("zoo")
class Calls(layers.Layer):
    """A layer that calls a function, with no ReLU visible from outside."""

    def __init__(self, function=keras.ops.relu, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


@keras.saving.register_keras_serializable("zoo")
class HasRelu(layers.Layer):
    """A layer with a ReLU layer in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.relu = layers.ReLU(dtype=self.dtype_policy)

    def call(self, x):
        return self.relu(x)


def in_function(function: Callable[[Any], Any], **options: Any) -> Callable[[Any], Any]:
    """Wrap a function in one tf.function, like a decorator."""
    return tf.function(function, autograph=False, **options)


def in_loop(x):
    """A while loop of two iterations with a ReLU in each; the second changes nothing."""
    return tf.while_loop(lambda i, h: i < 2, lambda i, h: (i + 1, tf.nn.relu(h)), [0, x])[1]


def in_branch(x):
    """A ReLU in either branch of a condition on the data."""
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.nn.relu(x), lambda: tf.nn.relu(x) + 0.0)


def in_everything(x):
    """A branch in a function in a loop in a function."""
    body = in_function(in_branch)
    loop = tf.while_loop(lambda i, h: i < 2, lambda i, h: (i + 1, body(h)), [0, x])
    return loop[1]


class Subclassed(keras.Model):
    """A subclassed model with the layers of the common one."""

    def __init__(self, dtype):
        super().__init__(dtype=dtype)
        self.first = layers.Conv2D(5, 3, activation="relu", dtype=dtype)
        self.second = layers.Conv2D(5, 3, dtype=dtype)
        self.dense = layers.Dense(CLASSES, "softmax", dtype=dtype)

    def call(self, x):
        h = keras.ops.relu(self.second(self.first(x)))
        return self.dense(keras.ops.mean(h, axis=(1, 2)))


class FunctionalWithCall(keras.Model):
    """A Functional model whose overridden call differs from its graph."""

    def call(self, x, training=None, mask=None):
        return super().call(keras.ops.relu(x) - keras.ops.relu(-x))


def _subclassed(dtype: str = "float32") -> keras.Model:
    model = Subclassed(dtype)
    model(np.zeros((1, SIZE, SIZE, CHANNELS), keras.DTypePolicy(dtype).variable_dtype))
    return random_weights(model)


def _call_put_over(dtype: str = "float32") -> keras.Model:
    model = _body(lambda x, d: x)(dtype)
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    head = next(layer for layer in model.layers if isinstance(layer, layers.Dense))

    def call(x, training=None, mask=None):
        for layer in convolutions:
            x = keras.ops.relu(layer(x))
        return head(keras.ops.mean(x, axis=(1, 2)))

    model.call = call
    return model


def _activation_put_over(dtype: str = "float32") -> keras.Model:
    """ReLU layers whose call was replaced on the object."""

    def changed(dtype):
        relu = layers.ReLU(dtype=dtype)
        relu.call = tf.nn.relu
        return relu

    return _body(lambda x, d: changed(d)(x))(dtype)


def _calls(function: Callable[[Any], Any]):
    return Spelling(_body(lambda x, d: Calls(function, dtype=d)(x)))


HIDDEN: dict[str, Spelling] = {
    "Lambda(tf.nn.relu)": Spelling(_body(lambda x, d: layers.Lambda(tf.nn.relu, dtype=d)(x))),
    "Lambda(tf.nn.relu6)": Spelling(
        _body(lambda x, d: layers.Lambda(tf.nn.relu6, dtype=d)(x)), {"max_value": 6.0}
    ),
    "Lambda(leaky_relu)": Spelling(
        _body(lambda x, d: layers.Lambda(lambda h: tf.nn.leaky_relu(h, 0.125), dtype=d)(x)),
        {"negative_slope": 0.125},
    ),
    "activation=lambda": Spelling(_fused(lambda h: tf.nn.relu(h))),
    "custom layer, keras.ops.relu": _calls(keras.ops.relu),
    "custom layer, tf.nn.relu": _calls(tf.nn.relu),
    "custom layer with a ReLU layer": Spelling(_body(lambda x, d: HasRelu(dtype=d)(x))),
    "custom layer beside others": Spelling(
        _body(lambda x, d: Calls(dtype=d)(layers.ReLU(dtype=d)(x)))
    ),
    "AttributionReLU in a tf.function": Spelling(
        _body(lambda x, d: Calls(in_function(tfs.AttributionReLU(dtype=d)), dtype=d)(x))
    ),
    "ReLU layer with another call put over its own": Spelling(_activation_put_over),
    "tf.function in a layer": _calls(in_function(tf.nn.relu)),
    "tf.function in a tf.function": _calls(in_function(in_function(tf.nn.relu))),
    "tf.function with jit_compile": _calls(in_function(tf.nn.relu, jit_compile=True)),
    "tf.function that asks not to be inlined": _calls(
        in_function(tf.nn.relu, experimental_attributes={"_noinline": True})
    ),
    "while_loop": _calls(in_loop),
    "cond": _calls(in_branch),
    "cond in a function in a while_loop": _calls(in_function(in_everything)),
    "TimeDistributed(ReLU)": Spelling(
        _body(lambda x, d: layers.TimeDistributed(layers.ReLU(dtype=d), dtype=d)(x))
    ),
    "subclassed model": Spelling(_subclassed),
    "call put over that of one model": Spelling(_call_put_over),
}


# Explainable objects without visible layers, made of a Keras model: (model, folder) -> object.


_ALIVE: list[Any] = []


def _exported(model: keras.Model, folder: Path) -> Any:
    model.export(folder, verbose=False)
    loaded = tf.saved_model.load(folder)
    _ALIVE.append(loaded)  # its functions do not keep its variables alive
    return loaded


def _tfsm_layer(model: keras.Model, folder: Path) -> keras.Model:
    model.export(folder, verbose=False)
    i = keras.Input(model.input_shape[1:], dtype=model.input.dtype)
    return keras.Model(i, layers.TFSMLayer(folder, call_endpoint="serve")(i))


WRAPPED: dict[str, Callable[[keras.Model, Path], Any]] = {
    "tf.function(model)": lambda model, _: tf.function(model),
    "lambda": lambda model, _: lambda x: model(x, training=False),
    "endpoint of a SavedModel": lambda model, folder: _exported(model, folder).serve,
    "signature of a SavedModel": lambda model, folder: _exported(model, folder).signatures[
        "serving_default"
    ],
    "TFSMLayer": _tfsm_layer,
    "layer that calls a tf.function of the model": lambda model, _: keras.Sequential(
        [keras.Input(model.input_shape[1:], dtype=model.input.dtype), Calls(tf.function(model))]
    ),
}


# ReLUs that are refused by name.


@keras.saving.register_keras_serializable("zoo")
class CastInFunction(layers.Layer):
    def call(self, x):
        return tf.function(lambda h, scale: h * tf.cast(scale, h.dtype))(x, tf.constant(2))


def _partly(function: Callable[[Any], Any]):
    """A ReLU layer that can be reached, followed by something that cannot."""
    return _body(lambda x, d: function(layers.ReLU(dtype=d)(x)))


def _map_defun(x):
    """A ReLU in a function that TensorFlow does not inline."""
    function = in_function(tf.nn.relu).get_concrete_function(tf.TensorSpec(x.shape[1:], x.dtype))
    function.add_to_graph()
    options = {"output_types": [x.dtype], "output_shapes": [x.shape[1:]], "f": function}
    return tf.raw_ops.MapDefun(arguments=[x], captured_inputs=[], **options)[0]


def _captured_in_loop(x):
    zero = tf.constant(0.0)
    return tf.while_loop(lambda i, h: i < 2, lambda i, h: (i + 1, tf.maximum(h, zero)), [0, x])[1]


def _captured_in_branch(x):
    zero = tf.constant(0.0)
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.maximum(x, zero), lambda: x + 0.0)


@keras.saving.register_keras_serializable("zoo")
class OwnGradient(layers.Layer):
    """A layer with a ReLU that a clone reaches, inside a custom gradient."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.relu

    def call(self, x):
        @tf.custom_gradient
        def function(h):
            return self.activation(h), lambda upstream: 2.0 * upstream

        return function(x)


def _in_layer(function: Callable[[Any], Any]):
    return _partly(lambda x: Calls(function, name=f"hidden_{id(x)}")(x))


REFUSED: dict[str, tuple[Callable[[str], keras.Model], str]] = {
    "ops.maximum(h, 0)": (_partly(lambda x: keras.ops.maximum(x, 0.0)), "Maximum"),
    "ops.maximum(h, zeros)": (
        _partly(lambda x: keras.ops.maximum(x, keras.ops.zeros_like(x))),
        "Maximum",
    ),
    "-ops.minimum(-h, 0)": (_partly(lambda x: -keras.ops.minimum(-x, 0.0)), "Minimum"),
    "ops.clip(h, 0, 6)": (_partly(lambda x: keras.ops.clip(x, 0.0, 6.0)), "clip_by_value"),
    "ops.where(h > 0, h, 0)": (_partly(lambda x: keras.ops.where(x > 0, x, 0.0)), "Select"),
    "h * (h > 0)": (_partly(lambda x: x * keras.ops.cast(x > 0, x.dtype)), "Mul"),
    "Lambda(relu(threshold))": (
        _partly(lambda x: layers.Lambda(lambda h: keras.activations.relu(h, threshold=0.1))(x)),
        "lambda",
    ),
    "ReLU(max_value=4) in a layer": (_in_layer(layers.ReLU(max_value=4.0)), "hidden"),
    "ReLU(threshold=.5) in a layer": (_in_layer(layers.ReLU(threshold=0.5)), "hidden"),
    "PReLU in a layer": (_in_layer(layers.PReLU(shared_axes=[1, 2])), "p_re_lu"),
    "where in a tf.function": (
        _in_layer(in_function(lambda h: tf.where(h > 0.0, h, 0.0))),
        "hidden",
    ),
    "mask in a tf.function": (
        _in_layer(in_function(lambda h: h * tf.cast(h > 0.0, h.dtype))),
        "hidden",
    ),
    "maximum in a tf.function": (_in_layer(in_function(lambda h: tf.maximum(h, 0.0))), "hidden"),
    "maximum in a while_loop": (
        _in_layer(
            lambda x: tf.while_loop(
                lambda i, h: i < 2, lambda i, h: (i + 1, tf.maximum(h, 0.0)), [0, x]
            )[1]
        ),
        "while",
    ),
    "maximum(h, .2 h)": (_partly(lambda x: keras.ops.maximum(x, 0.2 * x)), "Maximum"),
    "maximum(h, 0 h)": (_partly(lambda x: keras.ops.maximum(x, 0.0 * x)), "Maximum"),
    "max of a stack with zeros": (
        _in_layer(lambda x: tf.reduce_max(tf.stack([x, tf.zeros_like(x)]), axis=0)),
        "Max",
    ),
    "clip_by_value op": (
        _in_layer(lambda x: tf.raw_ops.ClipByValue(t=x, clip_value_min=0.0, clip_value_max=6.0)),
        "ClipByValue",
    ),
    "where(not h <= 0)": (
        _in_layer(lambda x: tf.where(tf.logical_not(x <= 0), x, 0.0)),
        "Select",
    ),
    "where(h > 0 and h < 6)": (
        _in_layer(lambda x: tf.where((x > 0) & (x < 6), x, 0.0)),
        "Select",
    ),
    "h * stop_gradient(h > 0)": (
        _in_layer(lambda x: x * tf.stop_gradient(tf.cast(x > 0, x.dtype))),
        "hidden",
    ),
    "a mask cast twice": (
        _in_layer(lambda x: x * tf.cast(tf.cast(x > 0, tf.int32), x.dtype)),
        "hidden",
    ),
    "a mask reshaped": (
        _in_layer(lambda x: x * tf.reshape(tf.cast(x > 0, x.dtype), tf.shape(x))),
        "hidden",
    ),
    "multiply_no_nan by a mask": (
        _in_layer(lambda x: tf.math.multiply_no_nan(x, tf.cast(x > 0, x.dtype))),
        "multiply_no_nan",
    ),
    "maximum with an argument of a tf.function": (
        _in_layer(lambda x: in_function(tf.maximum)(x, tf.constant(0.0))),
        "hidden",
    ),
    "mask as an argument of a tf.function": (
        _in_layer(lambda x: in_function(tf.multiply)(x, tf.cast(x > 0, x.dtype))),
        "hidden",
    ),
    "maximum with a captured zero in a loop": (_in_layer(_captured_in_loop), "while"),
    "maximum with a captured zero in a branch": (_in_layer(_captured_in_branch), "cond"),
    "PReLU of two calls": (
        _partly(lambda x: keras.ops.relu(x) - 0.1 * keras.ops.relu(-x)),
        "relu",
    ),
    "PReLU of two calls in a layer": (
        _in_layer(lambda x: tf.nn.relu(x) - 0.1 * tf.nn.relu(-1.0 * tf.identity(x))),
        "hidden",
    ),
    "PReLU of two functions": (
        _in_layer(lambda x: in_function(tf.nn.relu)(x) - 0.1 * in_function(tf.nn.relu)(-x)),
        "hidden",
    ),
    "py_function": (
        _in_layer(lambda x: tf.ensure_shape(tf.py_function(tf.nn.relu, [x], x.dtype), x.shape)),
        "EagerPyFunc",
    ),
    "MapDefun": (_in_layer(_map_defun), "MapDefun"),
    "AttributionReLU(threshold) in a tf.function": (
        _in_layer(in_function(tfs.AttributionReLU("gradient", threshold=0.5))),
        "hidden",
    ),
}

WITHOUT_RELU = {
    name: _body(lambda x, d, name=name: layers.Activation(name, dtype=d)(x))
    for name in ("gelu", "silu", "tanh", "linear")
}
