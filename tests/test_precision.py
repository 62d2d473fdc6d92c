"""prepare(precision=, jit_compile=): layers that compute in bfloat16, and compiled by XLA."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers
from reference import slow
from setups import slow_but

import tfsaliency as tfs
from tfsaliency import synthetic

BUILT = {**zoo.SPELLINGS, **zoo.HIDDEN}
SPELLINGS = [  # of each way to reach a ReLU one
    "ReLU layer",
    "Conv2D(activation='relu')",
    "Activation(tf.nn.relu)",
    "ReLU(.875, .125, .375)",
    "PReLU",
    "keras.ops.leaky_relu(h, .25)",
    "AttributionReLU of another rule",
    "layer without get_config",
    "shared ReLU layer",
    "nested",
    "compiled",
    "layers called with training=True",
    "activation=lambda",
    "custom layer with a ReLU layer",
    "tf.function in a tf.function",
    "cond in a function in a while_loop",
    "TimeDistributed(ReLU)",
    "subclassed model",
]
FAST = slow_but(SPELLINGS, "nested", "layers called with training=True", "subclassed model")
LOW = {"precision": "bfloat16"}


def _distance(a, b):
    """The largest difference relative to the largest value."""
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize("spelling", FAST)
def test_maps_are_those_of_a_model_built_in_mixed_precision(spelling):
    model, mixed = (BUILT[spelling].build(dtype) for dtype in ("float32", "mixed_bfloat16"))
    x = zoo.images().astype("float32")
    found = tfs.attributions(tfs.prepare(model, **LOW), x, zoo.RULES, targets=1)
    expected = tfs.attributions(mixed, x, zoo.RULES, targets=1)
    exact = tfs.attributions(model, x, zoo.RULES, targets=1)
    for name in zoo.RULES:
        zoo.assert_equal_maps(found[name], expected[name], 1e-6)
        assert 1e-3 < _distance(found[name], exact[name]) < 0.1
    assert str(found.coverage) == str(exact.coverage)


def test_the_gradient_is_that_of_a_tape_on_a_model_of_mixed_precision():
    model, mixed = (zoo.SPELLINGS["nested"].build(d) for d in ("float32", "mixed_bfloat16"))
    logits = keras.Model(mixed.input, mixed.output)
    logits.layers[-1].activation = keras.activations.linear

    @tf.function
    def bare(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            scores = tf.cast(logits(x, training=False)[:, 2], tf.float32)
        return scores, tape.gradient(scores, x)

    x = tf.constant(zoo.images().astype("float32"))
    scores, expected = bare(x)
    found = tfs.attributions(tfs.prepare(model, **LOW), x, targets=2)
    zoo.assert_equal_maps(found["gradient"], expected.numpy(), 1e-6)
    np.testing.assert_array_equal(found.scores, scores)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_what_follows_the_logits_is_float32(activation):
    """In bfloat16 probabilities above .998 are 1, and there is no derivative."""

    def build(last):
        model = keras.Sequential(
            [
                keras.Input((3, 3, 1)),
                layers.Conv2D(2, 3),
                layers.Flatten(),
                layers.Activation(last),
            ]
        )
        kernel = np.linspace(-1, 1, 18).reshape(3, 3, 1, 2)
        model.set_weights([kernel, np.array([7.0, 0.0])])
        return model

    x = np.random.default_rng(0).uniform(0, 1, (2, 3, 3, 1)).astype("float32")
    logits = tfs.attributions(tfs.prepare(build("linear"), **LOW), x, targets=0)
    model = build(activation)
    found = tfs.attributions(
        tfs.prepare(model, score="log_probability", **LOW), x, targets=0, on_problem="raise"
    )
    z = logits.outputs.astype(np.float64)
    p = (
        np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        if activation == "softmax"
        else 1 / (1 + np.exp(-z))
    )
    np.testing.assert_allclose(found.outputs, p, rtol=1e-6)
    np.testing.assert_allclose(found.scores, np.log(p[:, 0]), rtol=1e-4)
    assert {found.outputs.dtype, found.scores.dtype, found["gradient"].dtype} == {np.dtype("f4")}


def test_the_model_is_left_as_it_was():
    model = synthetic.shapes_model()
    images = synthetic.make_shapes(2, seed=0).images
    predicted = model.predict(images, verbose=0)
    before = [dict(vars(layer)) for layer in model._flatten_layers()]
    tfs.saliency_map(tfs.prepare(model, **LOW), images, ["gradient", "guided_backprop"])
    for layer, kept in zip(model._flatten_layers(), before, strict=True):
        assert vars(layer).keys() == kept.keys()
        assert all(vars(layer)[name] is kept[name] for name in ("_dtype_policy",))
        assert layer.compute_dtype == "float32"
    np.testing.assert_array_equal(model.predict(images, verbose=0), predicted)


def test_what_another_thread_calls_meanwhile_is_in_the_models_own_precision():
    model = zoo.SPELLINGS["ReLU layer"].build("float32")
    first = model.layers[1]
    plain, dtypes = first.call, []

    def call(x, **_):
        thread = threading.Thread(
            target=lambda: dtypes.append(model.layers[-1](np.ones((1, 5), "float32")).dtype)
        )
        thread.start()
        thread.join()
        dtypes.append(x.dtype)
        return plain(x)

    vars(first)["call"] = call
    tfs.attributions(tfs.prepare(model, **LOW), zoo.images())
    del vars(first)["call"]
    assert dtypes == [tf.float32, tf.bfloat16]


def test_weights_stay_and_are_read_at_every_call():
    model = zoo.SPELLINGS["Sequential"].build("float32")
    prepared, x = tfs.prepare(model, **LOW), zoo.images().astype("float32")
    tfs.attributions(prepared, x, zoo.RULES, targets=1)
    zoo.random_weights(model, seed=5)
    mixed = zoo.random_weights(zoo.SPELLINGS["Sequential"].build("mixed_bfloat16"), seed=5)
    expected = tfs.attributions(mixed, x, zoo.RULES, targets=1)
    found = tfs.attributions(prepared, x, zoo.RULES, targets=1)
    for name in zoo.RULES:
        zoo.assert_equal_maps(found[name], expected[name], 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("of", [LOW, {"jit_compile": True}])
def test_checks_and_compositions_take_it(of):
    model, twins = synthetic.shapes_model(), synthetic.permuted_label_models()
    images = synthetic.make_shapes(8, seed=0).images
    methods = ["gradient", "guided_backprop", slow.method(tfs.SmoothGrad(5)), "grad_cam"]
    exact, found = (
        tfs.data_randomization_check(
            each, images, methods, permuted=twins, verbose=0, on_problem="ignore"
        )
        for each in (model, tfs.prepare(model, **of))
    )
    for method in exact.methods:
        index = found.verdicts[method][0].invariance
        assert index == pytest.approx(exact.verdicts[method][0].invariance, abs=0.03)


@pytest.mark.parametrize(
    "spelling", slow_but(["ReLU layer", "nested", "custom layer, keras.ops.relu"], "nested")
)
def test_compiled_maps_are_the_same(spelling):
    model, x = BUILT[spelling].build("float32"), zoo.images().astype("float32")
    methods = [*zoo.RULES, slow.method(tfs.SmoothGrad(3))]
    prepared = tfs.prepare(model, jit_compile=True)
    found, expected = (tfs.attributions(each, x, methods) for each in (prepared, model))
    for name in found:
        zoo.assert_equal_maps(found[name], expected[name], 1e-5)
    trace = prepared.trace(tuple(tfs.METHODS[name] for name in zoo.RULES), prepared.check(x))
    assert trace.run.function_def.attr["_XlaMustCompile"].b


class _Own(layers.Layer):
    """A layer that multiplies in float32, regardless of its dtype policy."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3))

    def call(self, x):
        return tf.cast(x, tf.float32)[:, :3] * tf.convert_to_tensor(self.kernel[0])


def test_what_cannot_be_done_is_refused():
    model = zoo.SPELLINGS["ReLU layer"].build("float32")
    with pytest.raises(tfs.OptionError, match="Did you mean 'bfloat16'"):
        tfs.prepare(model, precision="bfloat")
    with pytest.raises(tfs.OptionError, match="jit_compile as True or False. Received: 'auto'"):
        tfs.prepare(model, jit_compile="auto")
    with pytest.raises(tfs.ModelError, match="layers can compute in bfloat16.*function"):
        tfs.attributions(tfs.prepare(lambda x: model(x), **LOW), zoo.images())
    own = keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten(), _Own()])
    with pytest.raises(tfs.ModelError, match="layers cannot compute in bfloat16: "):
        tfs.attributions(tfs.prepare(own, **LOW), np.ones((1, 4, 4, 3)))
    assert own.layers[-1].compute_dtype == "float32"


def test_quantized_layers_are_refused():
    model = zoo.SPELLINGS["ReLU layer"].build("float32")
    model.layers[-1].quantize("int8")
    with pytest.raises(tfs.ModelError, match="layers of floating point.*quantized ones, dense"):
        tfs.attributions(tfs.prepare(model, **LOW), zoo.images())


def test_policies_by_layer_are_followed():
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    policies["first"] = keras.DTypePolicy("float64")

    def build(dtype):
        first = layers.Conv2D(3, 3, name="first", dtype=dtype)
        model = keras.Sequential([keras.Input((5, 5, 2)), first, layers.Flatten(), layers.Dense(2)])
        return zoo.random_weights(model)

    x = np.random.default_rng(0).normal(size=(2, 5, 5, 2)).astype("float32")
    found, expected = (
        tfs.attributions(tfs.prepare(build(dtype), **LOW), x, targets=1)["gradient"]
        for dtype in (policies, "float32")
    )
    zoo.assert_equal_maps(found, expected, 1e-6)


class EndsInAFunction(keras.Model):
    """A model that ends inside a tf.function with a wrong custom gradient."""

    def __init__(self):
        super().__init__()
        self.dense, self.flatten = layers.Dense(3), layers.Flatten()

    @tf.function
    def inner(self, x):
        @tf.custom_gradient
        def square(h):
            return h * h, lambda upstream: upstream * 7.0

        return tf.nn.softmax(square(self.dense(self.flatten(x))))

    def call(self, x):
        return self.inner(x)


@pytest.mark.parametrize("of", [{}, LOW])
def test_a_gradient_of_the_models_own_is_noticed_in_any_precision(of):
    model = EndsInAFunction()
    model(np.ones((1, 4, 4, 3), "float32"))
    with pytest.raises(tfs.ModelError, match="no tf.custom_gradient in"):
        tfs.attributions(tfs.prepare(model, **of), np.ones((2, 4, 4, 3)), targets=0)
