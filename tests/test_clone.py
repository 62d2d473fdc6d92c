"""The clone: borrowed layers, unchanged models, and AttributionReLU."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers
from tensorflow.python.framework import ops

import tfsaliency as tfs

ALL = zoo.RULES


class Plain(keras.Model):
    """A subclassed model."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(5, 3, activation="relu")
        self.dense = layers.Dense(zoo.CLASSES, activation="softmax")
        # Built here: Keras would build them inside the tf.function, with weights that never change.
        self.conv.build((None, zoo.SIZE, zoo.SIZE, zoo.CHANNELS))
        self.dense.build((None, 5))

    def call(self, x):
        return self.dense(tf.reduce_mean(self.conv(x), axis=(1, 2)))


class Decorated(Plain):
    """The same, with a call that is a tf.function, which keeps its trace."""

    @tf.function
    def call(self, x):
        return self.dense(tf.reduce_mean(self.conv(x), axis=(1, 2)))


class PlainLayer(layers.Layer):
    """A layer with weights."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return tf.nn.relu(x * self.scale)


class DecoratedLayer(PlainLayer):
    """The same, with a call that is a tf.function."""

    @tf.function
    def call(self, x):
        return tf.nn.relu(x * self.scale)


def _with(layer):
    return keras.Sequential(
        [
            keras.Input((zoo.SIZE, zoo.SIZE, zoo.CHANNELS)),
            layer(),
            layers.Flatten(),
            layers.Dense(zoo.CLASSES, activation="softmax"),
        ]
    )


DECORATED = {
    "model": (Decorated, Plain),
    "layer": (lambda: _with(DecoratedLayer), lambda: _with(PlainLayer)),
}


def _pair(kind):
    """A model with a tf.function in it, and one without, of the same weights."""
    models = [build() for build in DECORATED[kind]]
    for model in models:
        model(zoo.images().astype("float32"))
        zoo.random_weights(model)
    return models


@pytest.mark.parametrize("kind", DECORATED)
def test_a_tf_function_in_a_model_is_left_as_it_was(kind, tmp_path):
    x = zoo.images().astype("float32")
    model, plain = _pair(kind)
    before = [tfs.attributions(model, x, ALL, targets=1) for _ in range(2)]
    tfs.saliency_map(model, x)
    tfs.saliency_map(model, x, score=lambda y, t: tf.gather(y, t, batch_dims=1))
    for each in (model, plain):
        each.compile("sgd", "sparse_categorical_crossentropy")
        each.fit(x, np.array([0, 1]), epochs=2, verbose=0)
    for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    np.testing.assert_allclose(model.predict(x, verbose=0), plain(x), rtol=1e-5)
    model.export(tmp_path / "exported", verbose=False)
    after = tfs.attributions(model, x, ALL, targets=1)
    expected = tfs.attributions(plain, x, ALL, targets=1)
    for method in ALL:
        np.testing.assert_array_equal(before[0][method], before[1][method])
        np.testing.assert_allclose(after[method], expected[method], rtol=1e-4, atol=1e-7)
        assert not np.allclose(after[method], before[0][method], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", DECORATED)
@pytest.mark.parametrize("called_first", [False, True])
def test_other_weights_reach_into_a_tf_function(kind, called_first):
    x, targets = zoo.images().astype("float32"), np.array([1, 2], "int32")
    model, other = _pair(kind)
    other.set_weights([w * 0.5 + 0.1 for w in model.get_weights()])
    if called_first:
        model.predict(x, verbose=0)
    prepared = tfs.prepare(model)
    trace = prepared.trace([tfs.METHODS[name] for name in zoo.RULES], prepared.check(x))
    result = trace.run_with(other.get_weights(), [x], targets, tf.constant(1.0))
    expected = tfs.attributions(other, x, ALL, targets=targets)
    for ours, method in zip(result.gradients, ALL, strict=True):
        np.testing.assert_allclose(ours, expected[method], rtol=1e-4, atol=1e-7)


def test_seeds_and_layer_names_are_left_alone():
    def draws():
        keras.utils.set_random_seed(3)
        keras.backend.clear_session()
        model = zoo.SPELLINGS["nested"].build("float32")
        yield model
        yield np.random.rand(), tf.random.uniform(()).numpy(), keras.random.uniform(()).numpy()
        yield layers.ReLU().name, layers.Dense(1).name, keras.Sequential().name

    plain, mapped = draws(), draws()
    next(plain)
    expected = list(plain)
    tfs.saliency_map(next(mapped), zoo.images(), ALL)
    assert list(mapped) == expected


def test_the_present_weights_are_used_after_every_kind_of_change():
    model = zoo.SPELLINGS["Conv2D(activation='relu')"].build("float64")
    x = zoo.images()

    def assert_current():
        ours = tfs.attributions(model, x, ALL, targets=1)
        for rule in ALL:
            _, reference = zoo.reference_gradient(model, x[0], 1, rule, {})
            np.testing.assert_allclose(ours[rule][0], reference, rtol=1e-7, atol=1e-12)

    assert_current()
    model.layers[1].kernel.assign(model.layers[1].kernel * -0.5)
    assert_current()
    model.set_weights([w + 0.1 for w in model.get_weights()])
    assert_current()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, np.array([0, 1]), epochs=2, verbose=0)
    assert_current()


def test_a_layer_changed_in_place_is_seen():
    model = zoo.SPELLINGS["ReLU(negative_slope=.125)"].build("float64")
    x = zoo.images()
    tfs.attributions(model, x, ALL, targets=1)
    for relu in (layer for layer in model.layers if isinstance(layer, layers.ReLU)):
        relu.negative_slope = 0.5
    ours = tfs.attributions(model, x, ALL, targets=1)
    for rule in ALL:
        _, reference = zoo.reference_gradient(model, x[0], 1, rule, {"negative_slope": 0.5})
        np.testing.assert_allclose(ours[rule][0], reference, rtol=1e-7, atol=1e-12)
    model.layers[-1].activation = keras.activations.linear  # the softmax
    assert tfs.saliency_map(model, x, "guided_backprop", score="logit").score == "logit"


def test_a_layer_changed_in_place_twice_is_seen():
    model = zoo.SPELLINGS["ReLU(negative_slope=.125)"].build("float64")
    x = zoo.images()
    relus = [layer for layer in model.layers if isinstance(layer, layers.ReLU)]
    for turn in range(1, 8):
        for relu in relus:
            relu.negative_slope = 0.5 * turn  # its address is free again after the next line,
            relu.negative_slope = 0.25 * turn  # and may be this one's
        ours = tfs.attributions(model, x, "gradient", targets=1)["gradient"][0]
        form = {"negative_slope": 0.25 * turn}
        _, reference = zoo.reference_gradient(model, x[0], 1, "gradient", form)
        np.testing.assert_allclose(ours, reference, rtol=1e-7, atol=1e-12)


def test_a_setting_inside_a_dict_of_a_layer_is_seen():
    class Scaled(layers.Layer):
        def __init__(self):
            super().__init__()
            self.settings = {"scale": 1.0}

        def call(self, x):
            return keras.ops.relu(x) * self.settings["scale"]

    layer = Scaled()
    i = keras.Input((4, 4, 3))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(layer(i))))
    x = np.ones((1, 4, 4, 3), "float32")
    first = tfs.attributions(model, x, "guided_backprop", targets=0)["guided_backprop"]
    layer.settings["scale"] = 2.0
    second = tfs.attributions(model, x, "guided_backprop", targets=0)["guided_backprop"]
    np.testing.assert_allclose(second, 2 * first, rtol=1e-6)


def test_adapted_normalization_keeps_its_statistics():
    x = zoo.images(4).astype("float32")
    normalization = layers.Normalization()
    inputs = keras.Input(x.shape[1:])
    normalization.adapt(x)
    h = layers.ReLU()(normalization(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(h)))
    kernel = model.get_weights()[-2][:, 0].reshape(x.shape[1:])
    for statistics in (10 + 5 * x, x - 3, 2 * x):
        normalization.adapt(statistics)
        ours = tfs.attributions(
            model, x, ["gradient", "guided_backprop"], targets=0, on_problem="ignore"
        )
        mean, variance = statistics.mean(axis=(0, 1, 2)), statistics.var(axis=(0, 1, 2))
        reference = np.where(x > mean, np.maximum(kernel, 0), 0) / np.sqrt(variance)
        np.testing.assert_allclose(ours["guided_backprop"], reference, rtol=1e-4)


def test_mixed_precision_runs_through_the_same_dtypes():
    model = zoo.SPELLINGS["Conv2D(activation='relu')"].build("float32")
    low = zoo.SPELLINGS["Conv2D(activation='relu')"].build("mixed_bfloat16")
    low.set_weights(model.get_weights())
    x = zoo.images().astype("float32")
    exact = tfs.saliency_map(model, x, "guided_backprop", targets=1)["guided_backprop"]
    rounded = tfs.saliency_map(low, x, "guided_backprop", targets=1)["guided_backprop"]
    assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.99


def test_a_cast_by_an_activation_layer_stays():
    inputs = keras.Input((4, 4, 3), dtype="float64")
    h = layers.Activation("relu", dtype="float32")(inputs)  # casts to float32 on its way
    model = keras.Model(
        inputs, layers.Dense(2, dtype="float32")(layers.Flatten(dtype="float32")(h))
    )
    maps = tfs.attributions(model, np.ones((4, 4, 3)), ["gradient", "guided_backprop"], targets=0)
    kernel = model.get_weights()[0][:, 0].reshape(4, 4, 3)
    np.testing.assert_allclose(maps["guided_backprop"][0], np.maximum(kernel, 0), rtol=1e-6)
    assert maps.scores.dtype == np.float32


def test_attribution_relu_survives_configs_clones_and_files(tmp_path):
    x = np.linspace(-1, 2, 48, dtype="float32").reshape(1, 4, 4, 3)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            tfs.AttributionReLU("zeiler_fergus", 0.9, 0.1, 0.3, name="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    path = tmp_path / "model.keras"
    model.save(path)
    layer = model.get_layer("relu")
    copies = {
        "from_config": type(layer).from_config(layer.get_config()),
        "clone_model": keras.models.clone_model(model).get_layer("relu"),
        "file": keras.saving.load_model(path).get_layer("relu"),
    }
    upstream = tf.random.stateless_normal(x.shape, (0, 1))
    kept = {"rule": "zeiler_fergus", "max_value": 0.9, "negative_slope": 0.1, "threshold": 0.3}
    for copy in copies.values():
        assert copy is not layer
        assert {k: copy.get_config()[k] for k in kept} == kept
        variable = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(variable)
            y = copy(variable)
        np.testing.assert_array_equal(y, layers.ReLU(0.9, 0.1, 0.3)(x))
        np.testing.assert_array_equal(
            tape.gradient(y, variable, output_gradients=upstream), np.maximum(upstream, 0)
        )


def test_the_rule_of_attribution_relu_cannot_be_changed():
    layer = tfs.AttributionReLU()
    with pytest.raises(AttributeError):
        layer.rule = "gradient"
    with pytest.raises(tfs.OptionError, match="Did you mean 'zeiler_fergus'"):
        tfs.AttributionReLU("zeiler_fergu")


def test_nothing_stays_behind_when_the_model_goes():
    def registered():
        names = map(str, ops.gradient_registry._registry)
        return {name for name in names if name.startswith("CustomGradient-")}

    before = registered()
    model = zoo.SPELLINGS["nested"].build("float32")
    tfs.saliency_map(model, zoo.images(), ALL)
    watched = [weakref.ref(model), weakref.ref(model.layers[1]), weakref.ref(model.weights[0])]
    del model
    gc.collect()
    assert [reference() for reference in watched] == [None, None, None]
    assert registered() == before
