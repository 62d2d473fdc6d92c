"""One tiny model per way of writing a ReLU, and what must become of it.

All models of SPELLINGS are conv - ReLU - conv - ReLU - average - dense, so that one NumPy
reference serves them all; STRUCTURES have references of their own.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from reference import backprop

import tfsaliency as tfs

SIZE, CHANNELS, CLASSES = 7, 3, 4


class Spelling(NamedTuple):
    build: Callable[[str], keras.Model]
    form: Mapping[str, float] = MappingProxyType({})


def random_weights(model: keras.Model, seed: int = 0) -> keras.Model:
    """Fill a model with weights that make every ReLU form show all of its slopes."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.normal(0.05, 0.45, weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return model


def images(n: int = 2, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 1.5, (n, SIZE, SIZE, CHANNELS))


def _body(relu: Callable[[Any, str], Any], fused: Any = None, softmax: Any = "softmax"):
    """Return a builder of the common model: relu(x, dtype) as a step, or fused in the conv."""

    def build(dtype: str = "float32") -> keras.Model:
        x = inputs = keras.Input(
            (SIZE, SIZE, CHANNELS), dtype=keras.DTypePolicy(dtype).variable_dtype
        )
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
    """A subclass with a call of its own that still uses self.activation."""

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
    steps = [keras.Input((SIZE, SIZE, CHANNELS), dtype=dtype)]
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
            keras.Input((SIZE, SIZE, CHANNELS), dtype=dtype),
            layers.Conv2D(5, 3, dtype=dtype),
            layers.Activation("relu", dtype=dtype),
        ]
    )
    h = i = keras.Input((SIZE, SIZE, CHANNELS), dtype=dtype)
    h = layers.Conv2D(5, 3, activation="relu", dtype=dtype)(block(h))
    backbone = keras.Model(i, h, name="backbone")
    backbone.compile("sgd", "mse")
    x = i = keras.Input((SIZE, SIZE, CHANNELS), dtype=dtype)
    x = layers.GlobalAveragePooling2D(dtype=dtype)(backbone(x, training=False))
    x = layers.Dropout(0.5, dtype=dtype)(x)
    return random_weights(keras.Model(i, layers.Dense(CLASSES, "softmax", dtype=dtype)(x)))


def _shared(dtype: str = "float32") -> keras.Model:
    """One ReLU layer called twice."""
    relu = layers.ReLU(dtype=dtype)
    return _body(lambda x, _: relu(x))(dtype)


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
    weights = [np.asarray(w, dtype=np.float64) for w in model.get_weights()]
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


# What a clone cannot reach, or what is no ReLU: each raises, by name.


@keras.saving.register_keras_serializable("zoo")
class CallsRelu(layers.Layer):
    def call(self, x):
        return keras.ops.relu(x)


@keras.saving.register_keras_serializable("zoo")
class CallsReluInFunction(layers.Layer):
    def call(self, x):
        return tf.function(tf.nn.relu)(x)


@keras.saving.register_keras_serializable("zoo")
class MaximumInFunction(layers.Layer):
    def call(self, x):
        return tf.function(lambda h: tf.maximum(h, 0.0))(x)


@keras.saving.register_keras_serializable("zoo")
class WhereInFunction(layers.Layer):
    def call(self, x):
        return tf.function(lambda h: tf.where(h > 0.0, h, 0.0))(x)


@keras.saving.register_keras_serializable("zoo")
class MaskInFunction(layers.Layer):
    def call(self, x):
        return tf.function(lambda h: h * tf.cast(h > 0.0, h.dtype))(x)


@keras.saving.register_keras_serializable("zoo")
class CastInFunction(layers.Layer):
    def call(self, x):
        return tf.function(lambda h, scale: h * tf.cast(scale, h.dtype))(x, tf.constant(2))


@keras.saving.register_keras_serializable("zoo")
class ThresholdInFunction(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.activation = layers.ReLU(threshold=0.5)

    def call(self, x):
        return tf.function(self.activation)(x)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(5, 3, activation="relu")
        self.dense = layers.Dense(CLASSES)

    def call(self, x):
        return self.dense(keras.ops.mean(self.conv(x), axis=(1, 2)))


class FunctionalWithCall(keras.Model):
    """Built as a Functional model, but its call does something else than its graph."""

    def call(self, x, training=None, mask=None):
        return keras.ops.relu(super().call(x))


def _subclassed(dtype: str = "float32") -> keras.Model:
    model = Subclassed()
    model(np.zeros((1, SIZE, SIZE, CHANNELS), "float32"))
    return model


def _functional_with_call(dtype: str = "float32") -> keras.Model:
    plain = _layer(layers.ReLU)(dtype)
    return FunctionalWithCall(plain.input, plain.output)


def _rnn(dtype: str = "float32") -> keras.Model:
    x = i = keras.Input((SIZE, SIZE, CHANNELS))
    x = layers.ReLU()(x)
    x = layers.Reshape((SIZE, SIZE * CHANNELS))(x)
    return keras.Model(i, layers.Dense(CLASSES)(layers.SimpleRNN(4, activation="relu")(x)))


def _double(relu: layers.ReLU) -> layers.ReLU:
    plain = relu.call
    relu.call = lambda x: 2.0 * plain(x)
    return relu


def _partly(function: Callable[[Any], Any]):
    """A ReLU layer that can be reached, and something behind it that cannot."""
    return _body(lambda x, d: function(layers.ReLU(dtype=d)(x)))


UNREACHED: dict[str, tuple[Callable[[str], keras.Model], str]] = {
    "Lambda": (_partly(lambda x: layers.Lambda(tf.nn.relu)(x)), "lambda"),
    "custom layer": (_partly(lambda x: CallsRelu()(x)), "calls_relu"),
    "tf.function in a layer": (_partly(lambda x: CallsReluInFunction()(x)), "calls_relu_in"),
    "TimeDistributed": (
        _partly(lambda x: layers.TimeDistributed(layers.Dense(5, activation="relu"))(x)),
        "time_distributed",
    ),
    "SimpleRNN(activation='relu')": (_rnn, "simple_rnn"),
    "ReLU layer with another call put over its own": (
        _partly(lambda x: _double(layers.ReLU())(x)),
        "re_lu",
    ),
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
    "where in a tf.function": (_partly(lambda x: WhereInFunction()(x)), "where_in_function"),
    "mask in a tf.function": (_partly(lambda x: MaskInFunction()(x)), "mask_in_function"),
    "maximum in a tf.function": (_partly(lambda x: MaximumInFunction()(x)), "maximum_in_function"),
    "AttributionReLU in a tf.function": (
        _partly(lambda x: ThresholdInFunction()(x)),
        "threshold_in_function",
    ),
    "lambda activation": (
        _partly(lambda x: layers.Dense(5, activation=lambda h: tf.nn.relu(h))(x)),
        "dense",
    ),
}


def _call_put_over(dtype: str = "float32") -> keras.Model:
    model = _layer(layers.ReLU)(dtype)
    plain = model.call
    model.call = lambda *args, **kwargs: keras.ops.relu(plain(*args, **kwargs))
    return model


OPAQUE = {
    "subclassed": _subclassed,
    "Functional with a call of its own": _functional_with_call,
    "call put over that of one model": _call_put_over,
}

WITHOUT_RELU = {
    name: _body(lambda x, d, name=name: layers.Activation(name, dtype=d)(x))
    for name in ("gelu", "silu", "tanh", "linear")
}
