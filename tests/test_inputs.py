"""Inputs of all kinds: functions, features, many sizes, arrays of other libraries, ranges."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers

import tfsaliency as tfs
from tfsaliency.engine import kept_traces
from tfsaliency.models.ranges import find_trained_range

RNG = np.random.default_rng(5)


def _by_tape(function, x, target):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)[:, target]
    return tape.gradient(y, x).numpy()


# Functions of other ranks.

KERNEL = tf.constant(RNG.normal(size=(3, 2)).astype("float32"))


def _of_sequences(x):
    return tf.tanh(tf.reduce_mean(tf.square(x), 1) @ KERNEL)


class _Module(tf.Module):
    def __init__(self, shape):
        super().__init__()
        self.kernel = tf.Variable(KERNEL)
        self.call = tf.function(
            lambda x: tf.tanh(tf.reduce_mean(tf.square(x), range(1, len(shape) - 1)) @ self.kernel),
            input_signature=[tf.TensorSpec(shape)],
        )


SHAPES = {"sequences": (5, 7, 3), "images": (5, 4, 7, 3), "volumes": (5, 2, 4, 7, 3)}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("how", ["signature", "no signature", "SavedModel"])
def test_functions_of_all_ranks_take_a_batch(kind, how, tmp_path):
    shape = SHAPES[kind]
    x = RNG.normal(size=shape).astype("float32")
    axes = range(1, len(shape) - 1)

    def plain(x):
        return tf.tanh(tf.reduce_mean(tf.square(x), axes) @ KERNEL)

    function = plain
    if how == "signature":
        function = tf.function(plain, input_signature=[tf.TensorSpec((None, *shape[1:]))])
    elif how == "SavedModel":
        module = _Module((None, *shape[1:]))
        tf.saved_model.save(module, tmp_path, signatures=module.call)
        loaded = tf.saved_model.load(tmp_path)
        function = loaded.signatures["serving_default"]
    maps = tfs.attributions(function, x, score=lambda o, t: _first(o)[:, 1])
    np.testing.assert_allclose(maps["gradient"], _by_tape(plain, x, 1), rtol=1e-5, atol=1e-8)
    assert (
        tfs.saliency_map(function, x, score=lambda o, t: _first(o)[:, 1])["gradient"].shape
        == (shape[:-1])
    )


def _first(outputs):
    return next(iter(outputs.values())) if isinstance(outputs, dict) else outputs


def test_a_single_photo_of_a_function_of_images_stays_one():
    model = keras.Sequential(
        [keras.Input((6, 6, 3)), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(2, "softmax")]
    )
    photo = RNG.normal(size=(6, 6, 3)).astype("float32")
    one = tfs.saliency_map(lambda x: model(x), photo)
    assert one["gradient"].shape == (1, 6, 6)
    np.testing.assert_allclose(
        one["gradient"], tfs.saliency_map(model, photo)["gradient"], rtol=1e-5
    )


def test_one_channel_that_is_a_photo_or_a_batch_asks_which():
    def function(x):
        flat = tf.reshape(x, [tf.shape(x)[0], -1])
        return tf.nn.softmax(tf.stack([tf.reduce_sum(flat**2, 1) / 99, flat[:, 0]], 1))

    x = np.arange(28, dtype="float32").reshape(4, 7, 1) - 9
    with pytest.raises(tfs.ImageError, match="as one image and as a batch.*input_signature"):
        tfs.saliency_map(function, x)
    assert tfs.saliency_map(function, x[np.newaxis])["gradient"].shape == (1, 4, 7)
    declared = tf.function(function, input_signature=[tf.TensorSpec((None, 7, 1))])
    assert tfs.saliency_map(declared, x)["gradient"].shape == (4, 7)


class _TwoInputs(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 4, 3)), tf.TensorSpec((None,), tf.int32)])
    def serve(self, photo, age):
        years = tf.cast(age, tf.float32)[:, tf.newaxis]
        return {"risk": tf.nn.softmax(tf.reduce_sum(photo**2, 1) * years)}


def test_a_signature_of_several_inputs(tmp_path):
    module = _TwoInputs()
    tf.saved_model.save(module, tmp_path, signatures=module.serve)
    function = tf.saved_model.load(tmp_path).signatures["serving_default"]
    x, ages = RNG.normal(size=(3, 4, 3)).astype("float32"), np.array([1, 2, 3])
    prepared = tfs.prepare(function, input="photo", score=lambda o, _: tf.math.log(o)[:, 1])
    for age in (ages, ages.tolist(), ages.astype("int32")):
        maps = tfs.attributions(prepared, {"photo": x, "age": age}, targets=1)
        z = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = tf.nn.log_softmax(tf.reduce_sum(z**2, 1) * ages[:, np.newaxis].astype("float32"))[
                :, 1
            ]
        np.testing.assert_allclose(maps["gradient"], tape.gradient(y, z), rtol=1e-4, atol=1e-6)
    with pytest.raises(tfs.ImageError, match="a dict of the inputs 'age', 'photo'"):
        tfs.saliency_map(prepared, {"image": x, "age": ages})


# Features.


def _of_features(dtype="float32"):
    inputs = keras.Input((9,), dtype=dtype)
    h = layers.Dense(12, activation="relu", dtype=dtype)(inputs)
    return zoo.random_weights(
        keras.Model(inputs, layers.Dense(3, activation="softmax", dtype=dtype)(h))
    )


def test_features_have_attributions_and_maps_of_one_value_each():
    model = _of_features("float64")
    x = RNG.normal(size=(4, 9))
    a, b, c, _ = model.get_weights()
    h = x @ a + b
    targets = np.array([0, 2, 1, 1])
    upstream = c.T[targets]
    expected = {
        "gradient": (upstream * (h > 0)) @ a.T,
        "guided_backprop": (np.maximum(upstream, 0) * (h > 0)) @ a.T,
        "zeiler_fergus": np.maximum(upstream, 0) @ a.T,
        "input_x_gradient": x * ((upstream * (h > 0)) @ a.T),
    }
    signed = tfs.attributions(model, x, list(expected), targets=targets, on_problem="ignore")
    maps = tfs.saliency_map(model, x, list(expected), targets=targets, on_problem="ignore")
    for name, values in expected.items():
        np.testing.assert_allclose(signed[name], values, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(maps[name], np.abs(values), rtol=1e-9, atol=1e-12)
    assert signed["gradient"].shape == maps["gradient"].shape == (4, 9)
    one = tfs.attributions(model, x[0], targets=0, on_problem="ignore")
    np.testing.assert_allclose(one["gradient"][0], ((c.T[[0]] * (h[:1] > 0)) @ a.T)[0], rtol=1e-9)


def test_features_of_functions_and_with_compositions(tmp_path):
    model, x = _of_features(), RNG.normal(size=(4, 9)).astype("float32")
    maps = tfs.attributions(lambda f: model(f), x)
    np.testing.assert_allclose(
        maps["gradient"], tfs.attributions(model, x)["gradient"], rtol=1e-5, atol=1e-7
    )
    complete = tfs.attributions(model, x, "integrated_gradients", score="probability")
    p = model(x).numpy().max(-1) - model(np.zeros((1, 9))).numpy()[0][complete.targets]
    np.testing.assert_allclose(complete["integrated_gradients"].sum(1), p, rtol=0.02, atol=1e-3)
    complete.save(tmp_path / "maps.npz")
    loaded = tfs.SaliencyMaps.load(tmp_path / "maps.npz")
    assert np.array_equal(loaded["integrated_gradients"], complete["integrated_gradients"])
    with pytest.raises(tfs.OptionError, match=r"features \(9,\), which have no neighbors"):
        tfs.saliency_map(model, x, "blur_ig")
    with pytest.raises(tfs.GeometryError):
        tfs.saliency_map(model, x, "grad_cam")


# Keras 2.


@pytest.mark.slow
def test_a_model_of_keras_2_is_a_function():
    tf_keras = pytest.importorskip("tf_keras")  # it needs one version of TensorFlow
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Input((6, 6, 3)),
            tf_keras.layers.Conv2D(4, 3, activation="relu"),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(3, activation="softmax"),
        ]
    )
    x = RNG.normal(size=(2, 6, 6, 3)).astype("float32")
    maps = tfs.attributions(model, x, ["gradient", "guided_backprop"], targets=1)
    logits = tf_keras.Sequential(model.layers[:-1])
    kernel, bias = model.layers[-1].get_weights()
    expected = _by_tape(lambda v: logits(v) @ kernel + bias, x, 1)
    np.testing.assert_allclose(maps["gradient"], expected, rtol=1e-4, atol=1e-7)
    assert maps.coverage["guided_backprop"].reached == 1
    with pytest.raises(tfs.ModelError, match="Expected a keras.Model"):
        tfs.sanity_check(model, x, verbose=0)


# Many sizes.


def _of_any_size(*between):
    return zoo.random_weights(
        keras.Sequential(
            [
                keras.Input((None, None, 3)),
                layers.Conv2D(6, 3, strides=2, padding="same", activation="relu"),
                *between,
                layers.Conv2D(6, 3, activation="relu"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3, activation="softmax"),
            ]
        )
    )


@pytest.mark.parametrize(
    "method", ["gradient", "guided_backprop", "smooth_grad", "integrated_gradients"]
)
def test_one_trace_serves_images_of_any_size(method, monkeypatch):
    made = []
    build = kept_traces.build_trace
    monkeypatch.setattr(kept_traces, "build_trace", lambda *a: made.append(1) or build(*a))
    model = _of_any_size()
    for side in (21, 34, 55):
        x = RNG.normal(size=(2, side, side + 1, 3)).astype("float32")
        ours = tfs.attributions(model, x, method, targets=1)
        assert len(made) == 1
        fixed = keras.Sequential([keras.Input(x.shape[1:]), *model.layers])
        theirs = tfs.attributions(fixed, x, method, targets=1)
        np.testing.assert_allclose(ours[method], theirs[method], rtol=1e-5, atol=1e-8)
        made.pop()


class _ReadsTheSize(layers.Layer):
    """A layer whose result depends on whether it knows the size of the image."""

    def call(self, h):
        return h * (1.0 if h.shape[1] is None else h.shape[1] / 8)


def test_a_layer_that_reads_the_size_has_a_trace_for_each():
    model = _of_any_size(_ReadsTheSize())
    for side in (16, 32, 48):
        x = RNG.normal(size=(1, side, side, 3)).astype("float32")
        ours = tfs.attributions(model, x, targets=1)
        factor = ((side + 1) // 2) / 8
        plain = _of_any_size()
        plain.set_weights(model.get_weights())
        z = keras.Model(plain.inputs, plain.layers[-2].output)
        kernel = plain.get_weights()[-2]

        def logits(v, z=z, plain=plain, factor=factor, kernel=kernel):
            h = plain.layers[0](v) * factor
            for layer in plain.layers[1:-1]:
                h = layer(h)
            return h @ kernel

        np.testing.assert_allclose(ours["gradient"], _by_tape(logits, x, 1), rtol=1e-4, atol=1e-7)


class _StopsAtEight(layers.Layer):
    """A layer of which only the gradient depends on the size."""

    def call(self, h):
        return tf.stop_gradient(h) if h.shape[1] == 8 else h


def test_a_layer_of_which_only_the_gradient_reads_the_size():
    i = keras.Input((None, None, 3))
    h = layers.GlobalAveragePooling2D()(_StopsAtEight()(i) + 2.0 * i)
    model = zoo.random_weights(keras.Model(i, layers.Dense(3, activation="softmax")(h)))
    kernel = model.get_weights()[0][:, 1]
    for side, factor in ((8, 2.0), (16, 3.0)):
        x = RNG.normal(size=(1, side, side, 3)).astype("float32")
        maps = tfs.attributions(model, x, targets=1, on_problem="ignore")
        np.testing.assert_allclose(
            maps["gradient"][0, 0, 0], factor * kernel / side**2, rtol=1e-5, atol=1e-6
        )


class _Scales(keras.Operation):
    """An operation, which is no layer, that reads the size."""

    def call(self, h):
        return h * (1.0 if h.shape[1] is None else h.shape[1] / 8)

    def compute_output_spec(self, h):
        return keras.KerasTensor(h.shape, h.dtype)


def _frames():
    i = keras.Input((None, 8, 8, 2))
    h = layers.TimeDistributed(layers.Conv2D(4, 3, activation="relu"))(i)
    h = layers.TimeDistributed(layers.GlobalAveragePooling2D())(h)
    return keras.Model(i, layers.Dense(3, activation="softmax")(layers.LSTM(4)(h)))


def _activation():
    def scaled(h):
        return tf.nn.relu(h) * (1.0 if h.shape[1] is None else h.shape[1] / 8)

    i = keras.Input((None, None, 2))
    h = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation=scaled)(i))
    return keras.Model(i, layers.Dense(3, activation="softmax")(h))


def _operation():
    i = keras.Input((None, None, 2))
    h = layers.GlobalAveragePooling2D()(_Scales()(layers.Conv2D(4, 3)(i)))
    return keras.Model(i, layers.Dense(3, activation="softmax")(h))


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (_frames, [(5, 8, 8, 2), (3, 8, 8, 2)]),
        (_activation, [(16, 16, 2), (24, 16, 2)]),
        (_operation, [(16, 16, 2), (24, 16, 2)]),
    ],
)
@pytest.mark.parametrize("method", ["gradient", "smooth_grad"])
def test_code_that_reads_a_size_anywhere(make, shapes, method):
    """Of the caller, or of Keras: TimeDistributed is wrong for a sequence of unknown length."""
    model = zoo.random_weights(make())
    for shape in shapes:
        x = RNG.normal(size=(2, *shape)).astype("float32")
        ours = tfs.attributions(model, x, method, targets=1)
        np.testing.assert_allclose(ours.outputs, model(x), rtol=1e-4, atol=1e-6)
        if method == "gradient":
            z = tf.constant(x)
            with tf.GradientTape() as tape:
                tape.watch(z)
                y = tf.math.log(model(z))
                y = y[:, 1] + tf.reduce_logsumexp(0 * y, 1) * 0
            slope = tape.gradient(y, z).numpy()
            theirs = tfs.attributions(model, x, method, targets=1, score="log_probability")
            np.testing.assert_allclose(theirs[method], slope, rtol=1e-3, atol=1e-6)


def test_class_activation_maps_are_placed_in_each_size():
    model = _of_any_size()
    for side in (24, 40):
        x = RNG.normal(size=(1, side, side, 3)).astype("float32")
        fixed = keras.Sequential([keras.Input(x.shape[1:]), *model.layers])
        ours, theirs = (tfs.saliency_map(m, x, "grad_cam", targets=0) for m in (model, fixed))
        np.testing.assert_allclose(ours["grad_cam"], theirs["grad_cam"], rtol=1e-5, atol=1e-8)


# Stale traces.


def _squares(layer):
    inputs = keras.Input((3, 3, 1))
    outputs = layers.Dense(2, activation="softmax")(layers.Flatten()(layer(inputs)))
    return zoo.random_weights(keras.Model(inputs, outputs))


class _Held:
    factor = None

    def __init__(self):
        self.factor = 2.0


class _Holding(layers.Layer):
    def __init__(self):
        super().__init__()
        self.table, self.held = np.array([3.0], "float32"), _Held()

    def call(self, x):
        return x * self.table * self.held.factor


def test_what_a_layer_holds_may_change_in_place():
    layer, x = _Holding(), np.ones((1, 3, 3, 1), "float32")
    model = _squares(layer)
    before = tfs.saliency_map(model, x, targets=0)["gradient"]
    layer.table[0] = 6.0
    np.testing.assert_allclose(tfs.saliency_map(model, x, targets=0)["gradient"], 2 * before)
    layer.held.factor = 1.0
    np.testing.assert_allclose(tfs.saliency_map(model, x, targets=0)["gradient"], before)


def test_what_is_not_seen_is_forgotten_on_demand():
    numbers = {"factor": 1.0}
    model = _squares(layers.Lambda(lambda x: x * numbers["factor"]))
    x = np.ones((1, 3, 3, 1), "float32")
    prepared = tfs.prepare(model)
    before = tfs.saliency_map(prepared, x, targets=0)["gradient"]
    numbers["factor"] = 3.0
    for each in (model, prepared):
        tfs.clear_traces(each)
        np.testing.assert_allclose(
            tfs.saliency_map(each, x, targets=0)["gradient"], 3 * before, rtol=1e-6
        )
    tfs.clear_traces(lambda x: x)  # has none


# Arrays of other libraries, and images that are none.


class _Torch:
    """As a torch tensor that requires a gradient."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


GRAY = keras.Sequential(
    [keras.Input((6, 6, 1)), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(2, "softmax")]
)
X = RNG.uniform(size=(4, 6, 6, 1)).astype("float32")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (X[..., 0], r"images\[..., np.newaxis\]"),
        (X[0, ..., 0], r"images\[..., np.newaxis\]"),
        ((X, np.arange(4)), "without labels.*targets=labels"),
        (tf.data.Dataset.from_tensor_slices(X).batch(2), "saliency_map_batches"),
        ((image for image in X), "saliency_map_batches"),
        (_Torch(), r"detach\(\).cpu\(\).numpy\(\)"),
        ([_Torch()], r"detach\(\).cpu\(\).numpy\(\)"),
        (np.ma.masked_greater(X, 0.5), r"masked. Fill them.*images.filled\(value\)"),
        (X > 0.5, r"dtype bool. Convert them with astype\('float32'\)"),
        (X.astype(object), "dtype object"),
        (X * 1j, "dtype complex64"),
        (None, "Received: None"),
        ("cat.jpg", "load_images"),
        (np.moveaxis(X, -1, 1), "Channels come last"),
        ({"a": X}, "a dict of the inputs"),
    ],
)
def test_what_is_no_batch_of_images_is_refused_with_a_remedy(images, message):
    with pytest.raises(tfs.ImageError, match=message):
        tfs.saliency_map(GRAY, images)


def test_arrays_without_masked_values_and_arrays_of_others_are_taken():
    class Array:  # as those of JAX
        shape, dtype = X.shape, X.dtype

        def __array__(self, dtype=None, copy=None):
            return X

    expected = tfs.saliency_map(GRAY, X)["gradient"]
    for images in (np.ma.masked_array(X), Array(), X.tolist(), list(X)):
        np.testing.assert_allclose(
            tfs.saliency_map(GRAY, images)["gradient"], expected, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (b"gradient", "Did you mean 'gradient'"),
        ("GradCAM", "Did you mean 'grad_cam'"),
        ("Grad-CAM++", "Did you mean 'grad_cam_plus_plus'"),
        (7, "Unknown method: 7. Known: gradient.*guided_grad_cam"),
    ],
)
def test_an_unknown_method_is_answered_with_all_known_ones(method, message):
    with pytest.raises(tfs.OptionError, match=message):
        tfs.saliency_map(GRAY, X, method)


# Ranges that the model's own layers tell.


def _scaled(*first):
    return keras.Sequential([keras.Input((6, 6, 3)), *first, layers.Flatten(), layers.Dense(2)])


def _normalization(mean, variance):
    layer = layers.Normalization(mean=mean, variance=variance)
    layer.build((None, 6, 6, 3))
    return layer


def _normalization_of_pixels():
    layer = layers.Normalization(axis=(1, 2, 3))
    layer.adapt(RNG.normal(size=(4, 6, 6, 3)))
    return layer


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ([layers.Rescaling(1 / 255)], (0, 255)),
        ([layers.Rescaling(1 / 127.5, offset=-1)], (0, 255)),
        ([layers.RandomFlip(), layers.Resizing(6, 6), layers.Rescaling(1 / 255)], (0, 255)),
        ([keras.Sequential([layers.RandomFlip(), layers.Rescaling(1 / 255)])], (0, 255)),
        ([layers.Rescaling(255.0)], (0, 1)),
        ([layers.Rescaling(2.0, offset=-1)], (0, 1)),
        ([layers.Rescaling(0.5, offset=0.5)], (-1, 1)),
        ([layers.Rescaling(1 / 255), _normalization([0.5] * 3, [0.0625] * 3)], (0, 255)),
        ([_normalization([100.0, 120, 140], [400.0, 900, 400])], (60, 180)),
        ([layers.Rescaling(3.0)], None),
        ([layers.Conv2D(3, 1), layers.Rescaling(1 / 255)], None),
        ([_normalization(0.0, 0.0)], None),
        ([layers.Rescaling([1.0, 1.0, 2.0]), _normalization_of_pixels()], None),
    ],
)
def test_the_range_that_the_first_layers_expect(first, expected):
    found = find_trained_range(_scaled(*first))
    if expected is None:
        assert found is None
    else:
        np.testing.assert_allclose(found[:2], expected, atol=1e-4)


def test_the_range_of_a_known_network_behind_a_rescaling():
    network = keras.Sequential(
        [keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(2)], name="mobilenetv2_1.00_224"
    )
    i = keras.Input((6, 6, 3))
    model = keras.Model(i, network(layers.Rescaling(1 / 127.5, offset=-1)(layers.RandomFlip()(i))))
    np.testing.assert_allclose(find_trained_range(model)[:2], (0, 255), atol=1e-3)


@pytest.mark.parametrize(
    ("first", "wrong", "right"),
    [
        ([layers.Rescaling(1 / 255)], 1.0, 255.0),
        ([layers.Rescaling(2.0, offset=-1)], 255.0, 1.0),
        ([_normalization([120.0] * 3, [3600.0] * 3)], 1.0, 255.0),
        ([_normalization([0.5] * 3, [0.06] * 3)], 255.0, 1.0),
    ],
)
def test_images_of_another_range_are_said(first, wrong, right):
    model, pixels = _scaled(*first), RNG.uniform(size=(3, 6, 6, 3))
    with pytest.warns(tfs.SaliencyWarning, match="unusual_range"):
        tfs.saliency_map(model, pixels * wrong, targets=0)
    assert not tfs.saliency_map(model, pixels * right, targets=0).problems


def test_a_few_images_of_another_range_among_many():
    model, pixels = _scaled(layers.Rescaling(1 / 127.5, offset=-1)), RNG.uniform(size=(4, 6, 6, 3))
    pixels[0] *= 255
    pixels[3] = 2 * pixels[3] - 1
    maps = tfs.saliency_map(model, pixels, targets=0, on_problem="ignore")
    assert [(p.cause, p.images) for p in maps.problems] == [("unusual_range", (1, 2, 3))]
    wall = 100 + RNG.integers(0, 2, (1, 6, 6, 3)).astype("float32")
    assert not tfs.saliency_map(model, wall, targets=0).problems


def _photo_and_features():
    photo, features = keras.Input((6, 6, 3)), keras.Input((6, 6, 3))
    scaled = _normalization([0.0] * 3, [1e-4] * 3)(features)
    inner = keras.Model([features, photo], layers.Dense(2)(layers.Flatten()(scaled + photo)))
    a, b = keras.Input((6, 6, 3)), keras.Input((6, 6, 3))
    return keras.Model([a, b], inner([b, a]))


@pytest.mark.parametrize(
    ("make", "images"),
    [
        (lambda: _scaled(_normalization([10.0] * 3, [121.0] * 3)), np.full((2, 6, 6, 3), 10.0)),
        (lambda: _scaled(layers.Rescaling(1 / 255)), RNG.integers(250, 254, (1, 6, 6, 3))),
        (lambda: _scaled(layers.Rescaling(1 / 255)), RNG.integers(0, 5, (1, 6, 6, 3))),
        (
            lambda: keras.Sequential(
                [
                    keras.Input((6, 6, 3)),
                    layers.Rescaling(1 / 255),
                    keras.Sequential(
                        [keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(2)], name="resnet50"
                    ),
                ]
            ),
            RNG.uniform(0, 255, (2, 6, 6, 3)),
        ),
    ],
)
def test_ordinary_images_of_ordinary_models_are_not_unusual(make, images):
    """Stars on a dark sky, a white wall, the night, and a network trained on its own scaling."""
    images = images.astype("float32")
    if images.max() == 10:
        images[:, 0, 0] = 255.0
    maps = tfs.saliency_map(make(), images, targets=0)
    assert "unusual_range" not in [problem.cause for problem in maps.problems]


def test_the_range_is_that_of_the_chosen_input_of_a_nested_model():
    model = _photo_and_features()
    assert find_trained_range(model, 0) is None
    assert find_trained_range(model, 1)[:2] == (pytest.approx(-0.02), pytest.approx(0.02))
