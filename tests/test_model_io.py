"""Models of every shape: several inputs and outputs, sequences, volumes, dtypes, files."""

import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers
from setups import slow_but

import tfsaliency as tfs

RULES = zoo.RULES
RNG = np.random.default_rng(5)
PHOTO = RNG.normal(0, 1, (2, 4, 4, 3))
SERIES = RNG.normal(0, 1, (2, 6, 3))


def assert_close(ours, expected, tolerance=1e-6):
    zoo.assert_equal_maps(ours, expected, tolerance)


def _relu_dense(upstream, z, rule):
    """The gradient that a rule passes through a ReLU with input z."""
    return {
        "gradient": upstream * (z > 0),
        "guided_backprop": np.maximum(upstream, 0) * (z > 0),
        "zeiler_fergus": np.maximum(upstream, 0) * np.ones_like(z),
    }[rule]


def _two_inputs(pack=list):
    """ReLU of a photo and of a series, one dense layer for both: two known kernels."""
    photo, series = keras.Input((4, 4, 3), name="photo"), keras.Input((6, 3), name="series")
    flat = [layers.Flatten()(layers.ReLU()(x)) for x in (photo, series)]
    outputs = layers.Dense(2, name="scores")(layers.Concatenate()(flat))
    inputs = {"photo": photo, "series": series} if pack is dict else pack([photo, series])
    model = zoo.random_weights(keras.Model(inputs, outputs))
    kernel = model.get_weights()[0]
    return model, kernel[:48].reshape(4, 4, 3, 2), kernel[48:].reshape(6, 3, 2)


@pytest.mark.parametrize("pack", slow_but([list, tuple, dict], list, dict))
@pytest.mark.parametrize("given", slow_but([tuple, list, dict], tuple))
@pytest.mark.parametrize("engine", ["clone", "graph"])
def test_one_of_several_inputs(pack, given, engine):
    model, photo_kernel, series_kernel = _two_inputs(pack)
    if engine == "graph":
        inner = model
        model = keras.Model(inner.input, zoo.Calls(tf.nn.relu)(inner.output))
        signs = (np.asarray(inner(_pack(dict, PHOTO, SERIES) if pack is dict else pack(
            [PHOTO, SERIES]))) > 0).astype(float)  # fmt: skip
    else:
        signs = np.ones((2, 2))
    images = _pack(given, PHOTO, SERIES)
    for wanted, kernel, x in (
        ("photo", photo_kernel, PHOTO), (0, photo_kernel, PHOTO),
        ("series", series_kernel, SERIES), (1, series_kernel, SERIES),
    ):  # fmt: skip
        maps = tfs.attributions(
            tfs.prepare(model, input=wanted), images, RULES, targets=[0, 1], on_problem="ignore"
        )
        assert np.array_equal(maps.images, x)
        for i, target in enumerate([0, 1]):
            for rule in RULES:
                sign = 1.0 if rule == "zeiler_fergus" else signs[i, target]
                expected = _relu_dense(sign * kernel[..., target], x[i], rule)
                if np.any(expected):
                    assert_close(maps[rule][i], expected)
                else:
                    assert not maps[rule][i].any()
        assert maps.coverage["gradient"].relus == (1 if engine == "clone" else 2)


def _pack(kind, photo, series):
    return {"photo": photo, "series": series} if kind is dict else kind([photo, series])


def test_several_inputs_need_a_choice_and_all_of_them():
    model, _, _ = _two_inputs()
    with pytest.raises(tfs.ModelError, match=r"with 2: 'photo', 'series'.*input='photo'"):
        tfs.prepare(model)
    with pytest.raises(tfs.OptionError, match="Unknown input: 'foto'. Did you mean 'photo'"):
        tfs.prepare(model, input="foto")
    with pytest.raises(tfs.OptionError, match="index below 2"):
        tfs.prepare(model, input=2)
    prepared = tfs.prepare(model, input="photo")
    assert prepared.input_shape == (None, 4, 4, 3)
    with pytest.raises(tfs.ImageError, match="dict or a tuple of 2 inputs: 'photo', 'series'"):
        tfs.saliency_map(prepared, PHOTO)
    with pytest.raises(tfs.ImageError, match="dict of the inputs 'photo', 'series'"):
        tfs.saliency_map(prepared, {"photo": PHOTO})
    with pytest.raises(tfs.ImageError, match="Expected 2 entries in every input. Received: 1"):
        tfs.saliency_map(prepared, (PHOTO, SERIES[:1]))
    with pytest.raises(tfs.ImageError, match="input 'series'"):
        tfs.saliency_map(prepared, (PHOTO, SERIES[:, :3]))


def test_the_other_input_may_be_of_integers():
    photo, token = (
        keras.Input((4, 4, 3), name="photo"),
        keras.Input((), dtype="int32", name="token"),
    )
    scale = layers.Embedding(3, 1)(token)
    h = layers.Flatten()(layers.ReLU()(photo)) * scale
    model = zoo.random_weights(keras.Model([photo, token], layers.Dense(2)(h)))
    table, kernel, _ = model.get_weights()
    maps = tfs.attributions(
        tfs.prepare(model, input="photo"), (PHOTO, np.array([2, 0])), RULES, targets=1
    )
    for rule in RULES:
        for i, index in enumerate([2, 0]):
            upstream = (kernel[:, 1] * table[index, 0]).reshape(4, 4, 3)
            assert_close(maps[rule][i], _relu_dense(upstream, PHOTO[i], rule))
    with pytest.raises(tfs.ModelError, match="'token' of dtype int32"):
        tfs.prepare(model, input="token")


@pytest.mark.parametrize("pack", [list, dict])
def test_one_of_several_outputs(pack):
    i = keras.Input((4, 4, 3))
    h = layers.Flatten()(layers.ReLU()(i))
    ends = [layers.Dense(2, name="kind")(h), layers.Dense(1, "sigmoid", name="quality")(h)]
    outputs = dict(zip(("kind", "quality"), ends, strict=True)) if pack is dict else ends
    model = zoo.random_weights(keras.Model(i, outputs))
    kernels = {"kind": model.get_weights()[0], "quality": model.get_weights()[2]}
    with pytest.raises(tfs.ModelError, match=r"with 2: 'kind', 'quality'.*output='kind'"):
        tfs.saliency_map(model, PHOTO)
    for wanted, name in (("kind", "kind"), (0, "kind"), ("quality", "quality"), (1, "quality")):
        target = 1 if name == "quality" else 0  # of a single sigmoid, the class of its output
        maps = tfs.attributions(tfs.prepare(model, output=wanted), PHOTO, RULES, targets=target)
        for rule in RULES:
            expected = _relu_dense(kernels[name][:, 0].reshape(4, 4, 3), PHOTO, rule)
            assert_close(maps[rule], expected)
    assert maps.score == "logit (before the final sigmoid; minus that for class 0)"
    with pytest.raises(tfs.OptionError, match="Unknown output: 'size'"):
        tfs.prepare(model, output="size")


@pytest.mark.parametrize("flat", [False, True], ids=["(n, 1)", "(n,)"])
def test_regression_differentiates_the_output_itself(flat):
    i = keras.Input((4, 4, 3))
    y = layers.Dense(1)(layers.Flatten()(layers.ReLU()(i)))
    model = zoo.random_weights(keras.Model(i, layers.Reshape(())(y) if flat else y))
    kernel = model.get_weights()[0][:, 0].reshape(4, 4, 3)
    maps = tfs.attributions(model, PHOTO, RULES)
    for rule in RULES:
        assert_close(maps[rule], _relu_dense(kernel, PHOTO, rule))
    assert maps.targets.tolist() == [0, 0] and maps.score == "output 0"
    np.testing.assert_allclose(maps.scores, np.ravel(model(PHOTO)), rtol=1e-5)


def test_a_flat_sigmoid_has_a_logit():
    i = keras.Input((4, 4, 3))
    h = layers.Dense(1, "sigmoid")(layers.Flatten()(layers.ReLU()(i)))
    model = zoo.random_weights(keras.Model(i, layers.Reshape(())(h)))
    kernel = model.get_weights()[0][:, 0].reshape(4, 4, 3)
    p = model(PHOTO).numpy().reshape(2, 1, 1, 1)
    for score, slope in {"logit": 1.0, "probability": p * (1 - p)}.items():
        maps = tfs.attributions(model, PHOTO, RULES, score=score, targets=1)
        for rule in RULES:
            assert_close(maps[rule], _relu_dense(slope * kernel, PHOTO, rule), 1e-4)


def test_several_outputs_of_a_sequential_model():
    class Halves(layers.Layer):
        def call(self, x):
            return x[:, :2], x[:, 2:]

    model = keras.Sequential(
        [keras.Input((4, 4, 3)), layers.ReLU(), layers.Flatten(), layers.Dense(4), Halves()]
    )
    kernel = model.get_weights()[0]
    with pytest.raises(tfs.ModelError, match="one output"):
        tfs.prepare(model)
    for index in (0, 1):
        maps = tfs.attributions(tfs.prepare(model, output=index), PHOTO, RULES, targets=1)
        for rule in RULES:
            expected = _relu_dense(kernel[:, 2 * index + 1].reshape(4, 4, 3), PHOTO, rule)
            assert_close(maps[rule], expected)


def test_float16_inside_a_function_does_not_underflow():
    i = keras.Input((4, 4, 3))
    h = layers.Conv2D(4, 3, activation="relu", dtype="mixed_float16")(i)
    h = layers.GlobalAveragePooling2D(dtype="mixed_float16")(h)
    low = zoo.random_weights(keras.Model(i, layers.Dense(2, dtype="float32")(h)))
    low.set_weights([w * 1e-4 if w.ndim > 1 else abs(w) for w in low.get_weights()])
    kernel, _, dense, _ = low.get_weights()
    active = np.einsum("hwck,k->hwc", kernel, dense[:, 1] / 4)  # every ReLU is on
    expected = np.zeros((4, 4, 3))
    for row in range(2):
        for column in range(2):
            expected[row : row + 3, column : column + 3] += active
    ours = tfs.attributions(
        tf.function(lambda x: low(x)), PHOTO, targets=1, score=lambda y, t: y[:, 1]
    )
    assert_close(ours["gradient"][0], expected, 0.02)


@pytest.mark.parametrize(
    "function", [lambda x: x.numpy().sum(axis=(1, 2)), lambda x: np.sum(x, axis=(1, 2, 3)),
                 lambda x: x.reshape(len(x), -1)]
)  # fmt: skip
def test_a_function_of_numpy_is_refused_in_one_sentence(function):
    with pytest.raises(tfs.ModelError, match="function of TensorFlow operations"):
        tfs.saliency_map(function, PHOTO)


def test_a_loaded_saved_model_is_refused_with_its_endpoints(tmp_path):
    model = zoo.SPELLINGS["ReLU layer"].build("float32")
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    with pytest.raises(tfs.ModelError, match=r"endpoints: .*signatures\['serving_default'\]"):
        tfs.saliency_map(loaded, PHOTO)


def test_a_single_sigmoid():
    i = keras.Input((4, 4, 3))
    h = layers.Flatten()(layers.ReLU()(i))
    model = zoo.random_weights(keras.Model(i, layers.Dense(1, "sigmoid")(h)))
    kernel = model.get_weights()[0][:, 0].reshape(4, 4, 3)
    p = model(PHOTO).numpy().reshape(2, 1, 1, 1)
    slopes = {"logit": 1.0, "probability": p * (1 - p), "log_probability": 1 - p}
    for score, slope in slopes.items():
        maps = tfs.attributions(model, PHOTO, RULES, score=score, targets=1)
        for rule in RULES:
            assert_close(maps[rule], _relu_dense(slope * kernel, PHOTO, rule), 1e-4)


@pytest.mark.parametrize("shape", [(6, 3), (3, 4, 4, 2)], ids=["sequence", "volume"])
def test_sequences_and_volumes(shape):
    x = RNG.normal(0, 1, (2, *shape))
    i = keras.Input(shape)
    model = zoo.random_weights(keras.Model(i, layers.Dense(2)(layers.Flatten()(layers.ReLU()(i)))))
    kernel = model.get_weights()[0][:, 1].reshape(shape)
    maps = tfs.saliency_map(model, x, RULES, targets=1)
    single = tfs.saliency_map(model, x[0], RULES, targets=1)
    for rule in RULES:
        expected = np.abs(_relu_dense(kernel, x, rule)).sum(axis=-1)
        assert maps[rule].shape == x.shape[:-1]
        assert_close(maps[rule], expected)
        assert_close(single[rule], expected[:1])
    assert " x ".join(map(str, shape[:-1])) in repr(maps)


def test_convolutions_over_sequences_and_volumes():
    for conv, pool, shape in (
        (layers.Conv1D, layers.GlobalAveragePooling1D, (9, 3)),
        (layers.Conv3D, layers.GlobalAveragePooling3D, (5, 5, 5, 2)),
    ):
        i = keras.Input(shape)
        h = conv(4, 3, activation="relu")(i)
        model = zoo.random_weights(keras.Model(i, layers.Dense(2)(pool()(h))))
        x = tf.constant(RNG.normal(0, 1, (2, *shape)), tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x)[:, 0]
        maps = tfs.attributions(model, x.numpy(), ["gradient", "guided_backprop"], targets=0)
        assert_close(maps["gradient"], tape.gradient(y, x).numpy(), 1e-5)
        assert np.abs(maps["guided_backprop"] - maps["gradient"]).max() > 0


def test_inputs_of_unknown_size():
    def build(size):
        i = keras.Input((*size, 3))
        h = layers.Conv2D(5, 3, activation="relu")(i)
        h = layers.Conv2D(5, 3)(h)
        h = layers.GlobalAveragePooling2D()(layers.ReLU()(h))
        return zoo.random_weights(keras.Model(i, layers.Dense(4, "softmax")(h)))

    model = build((None, None))
    for height, width in ((7, 7), (9, 7), (12, 15)):
        x = RNG.normal(0, 1, (2, height, width, 3))
        known = build((height, width))
        for rule in RULES:
            ours = tfs.attributions(model, x, rule, targets=2)[rule]
            _, first = zoo.reference_gradient(known, x[0], 2, rule, {})
            assert_close(ours[0], first, 1e-4)


def test_a_model_of_batches_of_one_size():
    free = zoo.SPELLINGS["ReLU layer"].build("float32")
    i = keras.Input(batch_shape=(4, zoo.SIZE, zoo.SIZE, 3))
    fixed = keras.Model(i, free(i))
    x = zoo.images(6)
    expected = tfs.attributions(free, x, RULES)
    ours = tfs.attributions(fixed, x, RULES)
    assert ours.targets.tolist() == expected.targets.tolist()
    for rule in RULES:
        assert ours[rule].shape == x.shape
        assert_close(ours[rule], expected[rule], 1e-5)


class Pair(keras.Model):
    """A subclassed model of a dict of two inputs."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        flat = [keras.ops.reshape(inputs[k], (keras.ops.shape(inputs[k])[0], -1)) for k in "ab"]
        return self.dense(keras.ops.relu(keras.ops.concatenate(flat, axis=-1)))


def test_a_subclassed_model_of_two_inputs():
    model = Pair()
    given = {"a": PHOTO.astype("float32"), "b": SERIES.astype("float32")}
    model(given)
    kernel = model.get_weights()[0]
    with pytest.raises(tfs.ModelError, match="with 2: 'a', 'b'"):
        tfs.saliency_map(model, given)
    for name, x, part in (("a", PHOTO, kernel[:48]), ("b", SERIES, kernel[48:])):
        maps = tfs.attributions(tfs.prepare(model, input=name), given, RULES, targets=1)
        for rule in RULES:
            expected = _relu_dense(part[:, 1].reshape(x.shape[1:]), x, rule)
            assert_close(maps[rule], expected)


def test_a_subclassed_model_of_sequences():
    class OfSeries(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(keras.ops.reshape(keras.ops.relu(x), (-1, 18)))

    model = OfSeries()
    model(SERIES)
    kernel = model.get_weights()[0][:, 0].reshape(6, 3)
    maps = tfs.attributions(model, SERIES[0], RULES, targets=0)
    for rule in RULES:
        assert_close(maps[rule][0], _relu_dense(kernel, SERIES[0], rule))


def test_a_function_of_a_scalar_score():
    maps = tfs.attributions(
        lambda x: tf.reduce_sum(tf.nn.relu(x) ** 2, axis=(1, 2, 3)), PHOTO, RULES
    )
    for rule in RULES:
        assert_close(maps[rule], _relu_dense(2 * np.maximum(PHOTO, 0), PHOTO, rule))


def test_float16_does_not_underflow():
    def build(dtype):
        i = keras.Input((zoo.SIZE, zoo.SIZE, 3), dtype="float32")
        h = layers.Conv2D(5, 3, activation="relu", dtype=dtype)(i)
        h = layers.Conv2D(5, 3, activation="relu", dtype=dtype)(h)
        h = layers.GlobalAveragePooling2D(dtype=dtype)(h)
        model = zoo.random_weights(keras.Model(i, layers.Dense(4, dtype=dtype)(h)))
        # float16 underflows below 6e-8: bare gradients of this model are all zero. Its
        # activations are of ordinary size, because its biases are.
        model.set_weights([w * 1e-3 if w.ndim > 1 else abs(w) for w in model.get_weights()])
        return model

    x = zoo.images()
    exact = tfs.attributions(build("float32"), x, RULES, targets=0)
    low = build("mixed_float16")
    images = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        y = low(images)[:, 0]
    assert not np.any(tape.gradient(y, images))
    ours = tfs.attributions(low, x, RULES, targets=0)
    for rule in RULES:
        assert ours[rule].dtype == np.float32
        assert_close(ours[rule], exact[rule], 0.05)


def test_float16_does_not_overflow():
    def build(dtype):
        i = keras.Input((zoo.SIZE, zoo.SIZE, 3), dtype="float32")
        h = layers.Conv2D(5, 3, activation="relu", dtype=dtype)(i)
        h = layers.GlobalAveragePooling2D(dtype=dtype)(h)
        return zoo.random_weights(keras.Model(i, layers.Dense(4, dtype=dtype)(h)))

    x = zoo.images()
    models = [build("float32"), build("mixed_float16")]
    for model in models:
        weights = model.get_weights()
        model.set_weights([weights[0] * 5e3, *weights[1:]])
    exact, ours = (tfs.attributions(m, x, RULES, targets=1) for m in models)
    for rule in RULES:
        assert np.isfinite(ours[rule]).all()
        assert_close(ours[rule], exact[rule], 0.05)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("spelling", ["Conv2D(activation='relu')", "ReLU(6.)"])
def test_mixed_precision_by_either_engine(policy, spelling):
    low = zoo.SPELLINGS[spelling].build(policy)
    x = zoo.images()
    wrapped = tf.function(lambda images: low(images))
    for model, engine in ((low, "clone"), (wrapped, "graph")):
        maps = tfs.attributions(model, x, RULES, targets=1)
        assert maps.coverage["guided_backprop"].engine == engine
        form = zoo.SPELLINGS[spelling].form
        for rule in RULES:
            _, reference = zoo.reference_gradient(low, x[0], 1, rule, form)
            assert np.corrcoef(maps[rule][0].ravel(), reference.ravel())[0, 1] > 0.99


def _preprocessing(dtype="float32"):
    """Rescaling, Normalization, augmentation, BatchNormalization and Dropout before a ReLU."""
    i = keras.Input((4, 4, 3))
    h = layers.Rescaling(1 / 64.0, offset=-1.0)(i)
    h = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 4.0, 0.25])(h)
    h = layers.RandomFlip()(layers.RandomContrast(0.5)(layers.GaussianNoise(1.0)(h)))
    h = layers.BatchNormalization(epsilon=0.0)(layers.Dropout(0.5)(h))
    h = layers.Dropout(0.5)(layers.Flatten()(layers.ReLU()(h)))
    model = keras.Model(i, layers.Dense(2)(h))
    weights = model.get_weights()
    rng = np.random.default_rng(0)
    for j, w in enumerate(weights):
        if np.issubdtype(w.dtype, np.floating):
            weights[j] = rng.uniform(0.5, 2.0, w.shape) if w.shape == (3,) else (
                rng.normal(0, 1, w.shape))  # fmt: skip
    model.set_weights(weights)
    return model


def test_the_models_own_preprocessing_is_in_inference_mode():
    model = _preprocessing()
    gamma, beta, mean, variance = (
        next(w.numpy() for w in model.weights if w.path.endswith(f"/{n}"))
        for n in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    kernel = next(w.numpy() for w in model.weights if w.path.endswith("kernel"))
    x = np.random.default_rng(2).uniform(0, 255, (2, 4, 4, 3))
    normal = (x / 64 - 1 - [0.1, 0.2, 0.3]) / np.sqrt([1.0, 4.0, 0.25])
    slope = gamma / np.sqrt(variance)
    z = (normal - mean) * slope + beta
    chain = slope / np.sqrt([1.0, 4.0, 0.25]) / 64
    for model_ in (model, tf.function(lambda images: model(images, training=False))):
        maps = tfs.attributions(model_, x, RULES, targets=1)
        for rule in RULES:
            upstream = kernel[:, 1].reshape(4, 4, 3)
            assert_close(maps[rule], _relu_dense(upstream, z, rule) * chain, 1e-4)


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_files_that_tf_keras_wrote(kind):
    """Whole models in the legacy HDF5 format, written by tf_keras 2.20."""
    path = Path(__file__).parent / "files" / f"tf_keras_{kind}.h5"
    with warnings.catch_warnings():  # Keras's own, of input_shape given to a layer
        warnings.simplefilter("ignore")
        model = keras.saving.load_model(path, compile=False)
    x = zoo.images()
    maps = tfs.attributions(model, x, RULES, targets=1)
    for rule in RULES:
        _, reference = zoo.reference_gradient(model, x[0], 1, rule, {})
        assert_close(maps[rule][0], reference, 1e-4)
        assert maps.coverage[rule].reached == 2


@pytest.mark.parametrize("ending", ["keras", "h5", "weights.h5"])
def test_models_from_files(ending, tmp_path):
    model = zoo.SPELLINGS["nested"].build("float32")
    path = tmp_path / f"model.{ending}"
    if ending == "weights.h5":
        model.save_weights(path)
        loaded = zoo.SPELLINGS["nested"].build("float32")
        loaded.set_weights([w * 0 for w in loaded.get_weights()])
        loaded.load_weights(path)
    else:
        model.save(path)
        loaded = keras.saving.load_model(path)
    x = zoo.images()
    for rule in RULES:
        ours = tfs.attributions(loaded, x, rule, targets=1)[rule]
        _, reference = zoo.reference_gradient(model, x[0], 1, rule, {})
        assert_close(ours[0], reference, 1e-4)


class IgnoresOne(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.dense = layers.Conv2D(2, 3), layers.Dense(2)

    def call(self, inputs):
        hidden = tf.nn.relu(self.conv(inputs["image"]))
        return self.dense(tf.reduce_mean(hidden, (1, 2)))


def test_an_input_that_nothing_uses_is_no_obstacle():
    model = IgnoresOne()
    rng = np.random.default_rng(0)
    given = {"image": rng.normal(size=(2, 6, 6, 3)), "mask": rng.normal(size=(2, 6))}
    given = {name: array.astype("float32") for name, array in given.items()}
    model(given)
    zoo.random_weights(model)
    alone = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            model.conv,
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            model.dense,
        ]
    )
    found = tfs.attributions(tfs.prepare(model, input="image"), given, "guided_backprop", targets=1)
    expected = tfs.attributions(alone, given["image"], "guided_backprop", targets=1)
    zoo.assert_equal_maps(found["guided_backprop"], expected["guided_backprop"], 1e-5)
