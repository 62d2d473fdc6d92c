"""ReLUs that a modified rule cannot reach are refused by name."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers
from setups import slow_but

import tfsaliency as tfs

MODIFIED = ["guided_backprop", "zeiler_fergus"]


@pytest.mark.parametrize("rule", slow_but(MODIFIED, MODIFIED[0]))
@pytest.mark.parametrize("case", zoo.REFUSED)
def test_an_unreached_relu_is_refused_by_name(case, rule):
    build, name = zoo.REFUSED[case]
    with pytest.raises(tfs.UncoveredReluError) as caught:
        tfs.saliency_map(build("float32"), zoo.images(), rule)
    assert name in str(caught.value)
    assert rule in str(caught.value)


@pytest.mark.parametrize("case", sorted(set(zoo.REFUSED) - {"MapDefun"}))  # has no gradient
def test_the_gradient_needs_no_reach(case):
    model = zoo.REFUSED[case][0]("float32")
    x = tf.constant(zoo.images(), tf.float32)
    maps = tfs.attributions(model, x, targets=1, score=lambda y, t: tf.gather(y, t, batch_dims=1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model(x)[:, 1]
    np.testing.assert_allclose(maps["gradient"], tape.gradient(y, x), rtol=1e-4, atol=1e-7)
    coverage = maps.coverage["gradient"]
    assert coverage.reached == coverage.relus >= 1


@pytest.mark.parametrize("rule", MODIFIED)
@pytest.mark.parametrize("activation", zoo.WITHOUT_RELU)
def test_a_model_without_relu_is_refused(activation, rule):
    with pytest.raises(tfs.NoReluError, match=rule):
        tfs.saliency_map(zoo.WITHOUT_RELU[activation]("float32"), zoo.images(), rule)


def test_only_what_lies_between_image_and_score_counts():
    x = i = keras.Input((4, 4, 3))
    kernel_like = keras.ops.relu(keras.ops.sum(x * 0.0))  # reached, on the path
    h = layers.ReLU()(x) + kernel_like
    side = layers.Lambda(keras.ops.relu)(x)  # beside it: an unused output of the block
    block = keras.Model(i, [h, side])
    x = i = keras.Input((4, 4, 3))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(block(x)[0])))
    coverage = tfs.saliency_map(
        model, np.ones((4, 4, 3)), "guided_backprop", score="logit"
    ).coverage
    assert coverage["guided_backprop"] == tfs.Coverage("guided_backprop", relus=2, reached=2)
    assert str(coverage) == "guided_backprop: 2 of 2 ReLUs (clone)"


def test_a_relu_of_weights_alone_is_none_of_the_maps():
    class Positive(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

        def call(self, x):
            return x * keras.ops.relu(self.scale)

    x = i = keras.Input((4, 4, 3))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(layers.ReLU()(Positive()(x)))))
    coverage = tfs.saliency_map(
        model, np.ones((4, 4, 3)), "guided_backprop", score="logit"
    ).coverage
    assert coverage["guided_backprop"].relus == 1


def test_a_maximum_with_something_else_is_no_relu():
    x = i = keras.Input((4, 4, 3))
    h = layers.ReLU()(keras.ops.maximum(x, -1.0))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(h)))
    assert tfs.saliency_map(model, np.ones((4, 4, 3)), "guided_backprop", score="logit")[
        "guided_backprop"
    ].any()


def test_a_product_with_a_functions_argument_is_no_relu():
    x = i = keras.Input((4, 4, 3))
    h = zoo.CastInFunction()(layers.ReLU()(x))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(h)))
    coverage = tfs.saliency_map(
        model, np.ones((4, 4, 3)), "guided_backprop", score="logit"
    ).coverage
    assert coverage["guided_backprop"].relus == 1


def _ops(function):
    """Write a layer of plain TensorFlow operations."""
    return lambda x: zoo.Calls(function)(x)


def _captured_gate(x):
    three, six = tf.constant(3.0), tf.constant(6.0)
    return tf.while_loop(
        lambda i, h: i < 1, lambda i, h: (i + 1, h * tf.nn.relu6(h + three) / six), [0, x]
    )[1]


# Hard sigmoids and similar gates: left alone on purpose, and reported.
GATES = {
    "Activation('hard_silu')": layers.Activation("hard_silu"),
    "Activation('hard_swish')": layers.Activation("hard_swish"),
    "Activation('hard_sigmoid')": layers.Activation("hard_sigmoid"),
    "Conv2D(activation='hard_silu')": lambda x: layers.Conv2D(3, 1, activation="hard_silu")(x),
    "keras.ops.hard_silu": keras.ops.hard_silu,
    "keras.ops.hard_sigmoid": keras.ops.hard_sigmoid,
    "x * ReLU(6)(x + 3) * (1 / 6)": lambda x: x * (layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)),
    "x * relu6(x + 3) / 6": lambda x: x * keras.ops.relu6(x + 3.0) / 6.0,
    "ops.clip(x + 3, 0, 6) / 6": lambda x: x * keras.ops.clip(x + 3.0, 0.0, 6.0) / 6.0,
    "x * tf.nn.relu6(x + 3) / 6 in a layer": _ops(lambda x: x * tf.nn.relu6(x + 3.0) / 6.0),
    "hard sigmoid in a tf.function": _ops(
        zoo.in_function(lambda x: x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0))
    ),
    "(x / 6) * relu6(x + 3)": lambda x: (x / 6.0) * keras.ops.relu6(x + 3.0),
    "x / 6 by a Rescaling layer": lambda x: layers.Multiply()(
        [layers.Rescaling(1 / 6)(x), layers.ReLU(6.0)(x + 3.0)]
    ),
    "relu6(x - -3) / 6 in a layer": _ops(lambda x: tf.nn.relu6(x - (-3.0)) / 6.0),
    "hard sigmoid with other dimensions": _ops(
        lambda x: x * tf.squeeze(tf.nn.relu6(tf.expand_dims(x + 3.0, 0)), 0) / 6.0
    ),
    "hard sigmoid of captured numbers in a loop": _ops(_captured_gate),
    "min(relu(x + 3), 6) / 6 in a layer": _ops(
        lambda x: x * tf.minimum(tf.nn.relu(x + 3.0), 6.0) / 6.0
    ),
}


def _gated(gate, dtype="float32"):
    """ReLU, gate and dense layer, with weights that cover the range of the gate."""
    x = i = keras.Input((zoo.SIZE, zoo.SIZE, zoo.CHANNELS), dtype=dtype)
    h = layers.Conv2D(3, 1, dtype=dtype)(layers.ReLU(dtype=dtype)(x))
    h = layers.Flatten(dtype=dtype)(gate(layers.Rescaling(4.0, dtype=dtype)(h)))
    return zoo.random_weights(keras.Model(i, layers.Dense(2, dtype=dtype)(h)))


@pytest.mark.parametrize("gate", GATES)
def test_gates_keep_their_own_derivative(gate):
    model, x = _gated(GATES[gate]), zoo.images()
    maps = tfs.attributions(model, x, ["gradient", *MODIFIED], targets=0)
    # The true gradient of all following layers arrives at the ReLU.
    relu = next(layer for layer in model.layers if isinstance(layer, layers.ReLU))
    rest = keras.Model(relu.output, model.output)
    h = tf.constant(np.maximum(x, 0), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(h)
        y = rest(h)[:, 0]
    upstream = tape.gradient(y, h).numpy()
    expected = {
        "gradient": upstream * (x > 0),
        "guided_backprop": np.maximum(upstream, 0) * (x > 0),
        "zeiler_fergus": np.maximum(upstream, 0),
    }
    for method, reference in expected.items():
        np.testing.assert_allclose(maps[method], reference, rtol=1e-4, atol=1e-5)
        coverage = maps.coverage[method]
        assert (coverage.relus, coverage.reached, len(coverage.gates)) == (1, 1, 1)
        assert "1 gate keeps its own derivative" in str(coverage)


NO_GATES = {
    "relu6(x + 3)": lambda x: keras.ops.relu6(x + 3.0),
    "relu6(x + 2) / 6": lambda x: keras.ops.relu6(x + 2.0) / 6.0,
    "relu6(x + 3) / 5": lambda x: keras.ops.relu6(x + 3.0) / 5.0,
    "relu(x + 3) / 6": lambda x: keras.ops.relu(x + 3.0) / 6.0,
    "ReLU(6)": layers.ReLU(6.0),
    "relu6(x + 3) in a layer": _ops(lambda x: tf.nn.relu6(x + 3.0)),
}


@pytest.mark.parametrize("relu", NO_GATES)
def test_what_only_looks_like_a_gate_is_a_relu(relu):
    coverage = tfs.saliency_map(
        _gated(NO_GATES[relu]), zoo.images(), MODIFIED, score="logit"
    ).coverage
    for method in MODIFIED:
        assert (coverage[method].relus, coverage[method].reached) == (2, 2)
        assert coverage[method].gates == ()


@pytest.mark.parametrize("gate", ["hard_silu", "hard_sigmoid"])
def test_a_model_of_gates_alone_is_refused(gate):
    x = i = keras.Input((4, 4, 3))
    x = layers.Flatten()(layers.Activation(gate)(x))
    model = keras.Model(i, layers.Dense(2)(x))
    with pytest.raises(tfs.NoReluError, match="are not rectifiers"):
        tfs.saliency_map(model, np.ones((4, 4, 3)), "guided_backprop")
    assert tfs.saliency_map(model, np.ones((4, 4, 3)), score="logit")["gradient"].any()


# Not rectifiers: they keep their own derivative. Those with an op or a pattern are counted.
SMOOTH = {
    "elu": 1, "selu": 1, "celu": 2, "gelu": 0, "silu": 0, "softplus": 0, "mish": 0, "tanh": 0,
    "sigmoid": 0,
}  # fmt: skip


@pytest.mark.parametrize("activation", SMOOTH)
def test_smooth_activations_keep_their_own_derivative(activation):
    model, x = _gated(layers.Activation(activation)), zoo.images()
    maps = tfs.attributions(model, x, ["gradient", "zeiler_fergus"], targets=0)
    coverage = maps.coverage["zeiler_fergus"]
    assert (coverage.relus, coverage.reached, len(coverage.smooth)) == (1, 1, SMOOTH[activation])
    rest = keras.Model(model.layers[1].output, model.output)
    h = tf.constant(np.maximum(x, 0), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(h)
        y = rest(h)[:, 0]
    expected = np.maximum(tape.gradient(y, h), 0)
    np.testing.assert_allclose(maps["zeiler_fergus"], expected, rtol=1e-4, atol=1e-5)


def test_an_elu_of_another_alpha_is_no_relu():
    model = _gated(layers.ELU(alpha=0.5))
    coverage = tfs.saliency_map(model, zoo.images(), "guided_backprop", score="logit").coverage
    assert coverage["guided_backprop"].relus == 1
    assert len(coverage["guided_backprop"].smooth) >= 1


@pytest.mark.parametrize(
    "leaky", [layers.LeakyReLU(0.3), layers.PReLU(), layers.ReLU(negative_slope=0.2), _ops(
        lambda x: tf.nn.leaky_relu(x, 0.1))], ids=["LeakyReLU", "PReLU", "ReLU", "op"]
)  # fmt: skip
def test_leaky_relus_are_reported(leaky):
    coverage = tfs.saliency_map(_gated(leaky), zoo.images(), MODIFIED, score="logit").coverage
    for method in MODIFIED:
        assert (coverage[method].relus, coverage[method].leaky) == (2, 1)
        assert "2 of 2 ReLUs, 1 of them leaky" in str(coverage[method])


# Ops that resemble a mask or a ReLU: their condition does not depend on the image.
NO_MASKS = {
    "a mask of weights": _ops(lambda x: x * tf.cast(tf.abs(_WEIGHT) > 0.1, x.dtype)),
    "a choice by weights": _ops(lambda x: tf.where(_WEIGHT > 0.0, x, -x)),
    "dropout": _ops(lambda x: tf.nn.dropout(x, 1e-6, seed=1)),
    "a running maximum": _ops(
        lambda x: tf.scan(tf.maximum, x, initializer=tf.zeros_like(x[0]) - 9.0)
    ),
    "maximum of two": _ops(lambda x: tf.maximum(x, tf.roll(x, 1, axis=1))),
}
_WEIGHT = tf.constant([0.5, -0.05, 1.0])


@pytest.mark.parametrize("case", NO_MASKS)
def test_what_only_looks_like_a_mask_is_left_alone(case):
    model = _gated(NO_MASKS[case])
    maps = tfs.saliency_map(model, zoo.images(), MODIFIED, targets=0, on_problem="ignore")
    coverage = maps.coverage["guided_backprop"]
    assert (coverage.relus, coverage.reached) == (1, 1)


def test_a_relu_that_no_gradient_passes_is_none():
    x = i = keras.Input((4, 4, 3))
    gate = zoo.Calls(tf.stop_gradient)(layers.ReLU()(layers.Conv2D(3, 1)(x)))
    h = layers.Conv2D(3, 1, activation="gelu")(x) * gate
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(h)))
    with pytest.raises(tfs.NoReluError):
        tfs.saliency_map(model, np.ones((4, 4, 3)), "guided_backprop")


@pytest.mark.parametrize("rule", MODIFIED)
def test_a_gradient_put_over_that_of_a_relu_is_refused(rule):
    model = zoo._partly(lambda x: zoo.OwnGradient()(x))("float32")
    with pytest.raises(tfs.ModelError, match="tf.custom_gradient"):
        tfs.saliency_map(model, zoo.images(), rule)


def test_a_relu_in_a_vectorized_map_is_reached():
    layer = _ops(lambda x: tf.vectorized_map(tf.nn.relu, x))
    coverage = tfs.saliency_map(
        _gated(layer), zoo.images(), "guided_backprop", score="logit"
    ).coverage
    assert (coverage["guided_backprop"].relus, coverage["guided_backprop"].reached) == (2, 2)


def test_a_layer_that_is_called_like_ours_is_not_taken_for_it():
    model = zoo._body(
        lambda x, d: zoo.Calls(tf.nn.relu, dtype=d, name=f"tfsaliency_attribution_relu_{id(x)}")(x)
    )("float64")
    x = zoo.images()
    ours = tfs.attributions(model, x, "guided_backprop", targets=1)
    _, reference = zoo.reference_gradient(model, x[0], 1, "guided_backprop", {})
    np.testing.assert_allclose(ours["guided_backprop"][0], reference, rtol=1e-7, atol=1e-12)


def test_crelu_is_two_relus_and_no_prelu():
    def crelu(x):
        return tf.concat([tf.nn.relu(x), tf.nn.relu(-x)], axis=-1)

    coverage = tfs.saliency_map(
        _gated(_ops(crelu)), zoo.images(), "guided_backprop", score="logit"
    ).coverage
    assert (coverage["guided_backprop"].relus, coverage["guided_backprop"].reached) == (3, 3)


def test_coverage_of_several_methods_prints_a_line_each():
    maps = tfs.saliency_map(
        _gated(layers.Activation("hard_silu")), zoo.images(), MODIFIED, score="logit"
    )
    assert str(maps.coverage).splitlines() == [
        "guided_backprop: 1 of 1 ReLUs (clone); 1 gate keeps its own derivative",
        "zeiler_fergus: 1 of 1 ReLUs (clone); 1 gate keeps its own derivative",
    ]
