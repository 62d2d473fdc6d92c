"""Batch normalization folded into the operation before it: the same maps, from current weights."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from setups import float64

import tfsaliency as tfs
from tfsaliency.engine import folding

SIDE = 12
layers = keras.layers
BLOCKS = {
    "convolution": lambda: layers.Conv2D(6, 3, padding="same"),
    "without bias": lambda: layers.Conv2D(6, 3, strides=2, use_bias=False),
    "dilated": lambda: layers.Conv2D(6, 3, dilation_rate=2),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "separable": lambda: layers.SeparableConv2D(6, 3),
    "transposed": lambda: layers.Conv2DTranspose(6, 3, strides=2),
    "dense": lambda: layers.Dense(6),
}
OTHER_RANKS = {
    "signal": (lambda: layers.Conv1D(6, 3), (SIDE, 3)),
    "dilated signal": (lambda: layers.Conv1D(6, 3, dilation_rate=2), (SIDE, 3)),
    "volume": (lambda: layers.Conv3D(4, 2), (6, 6, 6, 3)),
    "features": (lambda: layers.Dense(6), (5,)),
}


@pytest.fixture
def folded(monkeypatch):
    """The operations that were folded, by type."""
    found, own = [], folding._fold

    def fold(linear, *arguments):
        outputs = own(linear, *arguments)
        found.append(linear.op.type)
        return outputs

    monkeypatch.setattr(folding, "_fold", fold)
    return found


def _normalization(**options):
    """A layer with statistics that differ from channel to channel."""
    return layers.BatchNormalization(
        moving_mean_initializer=keras.initializers.RandomNormal(0, 0.5, seed=1),
        moving_variance_initializer=keras.initializers.RandomUniform(0.3, 2, seed=2),
        gamma_initializer=keras.initializers.RandomUniform(-2, 2, seed=3),
        beta_initializer=keras.initializers.RandomNormal(0, 0.5, seed=4),
        **options,
    )


def _model(block, shape=(SIDE, SIDE, 3), **options):
    """A block between a normalization, a ReLU and a dense layer, in float64."""
    keras.utils.set_random_seed(0)
    with float64():
        made = [block(), _normalization(**options), layers.ReLU()]
        pool = [layers.Flatten(), layers.Dense(4)]
        model = keras.Sequential([keras.Input(shape), *made, *pool])
    for weight in model.weights:
        if weight.name == "bias":  # which Keras fills with zeros
            weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    return model


def _images(model, n=3):
    return np.random.default_rng(0).normal(size=(n, *model.input_shape[1:]))


def _gradient(model, images, target=1):
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        score = model(x, training=False)[:, target]
    return tape.gradient(score, x).numpy()


def _map(model, images, methods="gradient", **options):
    prepared = tfs.prepare(model, score="logit", **options)
    return tfs.attributions(prepared, images, methods, targets=1, on_problem="ignore", verbose=0)


def _close(ours, theirs, tolerance=1e-10):
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


CASES = {**{name: (block, (SIDE, SIDE, 3)) for name, block in BLOCKS.items()}, **OTHER_RANKS}


@pytest.mark.parametrize("name", CASES)
def test_maps_are_those_of_the_layers(name, folded):
    block, shape = CASES[name]
    model = _model(block, shape)
    images = _images(model)
    _close(_map(model, images)["gradient"], _gradient(model, images))
    # Keras's dense layer of pictures is a product of tensors, which stays as it is.
    assert len(folded) == (name != "dense")
    folded.clear()
    _close(_map(model, images, fold=False)["gradient"], _gradient(model, images))
    assert not folded


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"epsilon": 0.5}])
def test_parts_of_a_normalization(options, folded):
    model = _model(BLOCKS["convolution"], **options)
    images = _images(model)
    _close(_map(model, images)["gradient"], _gradient(model, images))
    assert folded == ["Conv2D"]


@pytest.mark.parametrize("method", ["guided_backprop", "zeiler_fergus", "integrated_gradients"])
def test_rules_and_paths(method, folded):
    model = _model(BLOCKS["convolution"])
    images = _images(model)
    unfolded = _map(model, images, method, fold=False)[method]
    assert not folded
    _close(_map(model, images, method)[method], unfolded)
    assert folded


def test_weights_are_read_at_every_call(folded):
    model = _model(BLOCKS["convolution"])
    images = _images(model)
    prepared = tfs.prepare(model, score="logit")
    tfs.attributions(prepared, images, targets=1)
    rng = np.random.default_rng(3)
    model.set_weights([w + rng.uniform(0.1, 0.5, w.shape) for w in model.get_weights()])
    _close(tfs.attributions(prepared, images, targets=1)["gradient"], _gradient(model, images))
    assert folded == ["Conv2D"]  # once


def test_a_sanity_check_draws_the_folded_weights():
    model = _model(BLOCKS["convolution"])
    images = _images(model, 4)
    checks = [
        tfs.sanity_check(
            tfs.prepare(model, score="logit", fold=fold), images, "gradient", plan="all", targets=1,
            on_problem="ignore", seeds=2, similarities="spearman", verbose=0,
        )
        for fold in (True, False)
    ]  # fmt: skip
    assert checks[0].values == pytest.approx(checks[1].values, rel=1e-6, nan_ok=True)
    assert checks[0].steps == checks[1].steps


def _functional(build):
    keras.utils.set_random_seed(0)
    with float64():
        inputs = keras.Input((SIDE, SIDE, 3))
        x = build(inputs)
        return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))


def test_what_stands_between_stops_it(folded):
    def between(x):
        a, b = (layers.Conv2D(3, 3, padding="same")(x) for _ in range(2))
        added = _normalization()(layers.Add()([a, b]))
        active = _normalization()(layers.Conv2D(3, 3, activation="relu", padding="same")(x))
        return layers.Concatenate()([added, active, _normalization(axis=1)(a)])

    model = _functional(between)
    images = _images(model)
    _close(_map(model, images)["gradient"], _gradient(model, images))
    assert not folded


@pytest.mark.parametrize("later", [False, True])
def test_a_second_reader_stops_it(later, monkeypatch):
    kept = []

    class Recording(folding._Folding):
        def __init__(self):
            super().__init__()
            kept.append(self)

    monkeypatch.setattr(folding, "_Folding", Recording)

    def twice(x):
        x = layers.Conv2D(3, 3)(x)
        if later:
            normalized = _normalization()(x)
            return layers.Concatenate()([normalized, layers.ReLU()(x)])
        active = layers.ReLU()(x)
        return layers.Concatenate()([active, _normalization()(x)])

    model = _functional(twice)
    images = _images(model)
    _close(_map(model, images)["gradient"], _gradient(model, images))
    # A later reader is seen at the end, and the model is traced again without it.
    assert [len(each.done) for each in kept] == ([1] if later else [0])


@pytest.mark.parametrize("case", ["tape", "cubes", "relu", "tf.gradients"])
def test_a_model_that_looks_at_gradients_gets_its_own(case):
    """A layer whose outputs are derivatives with respect to what is before the normalization."""

    class Looking(layers.Layer):
        def __init__(self):
            super().__init__()
            self.convolution, self.normal = layers.Conv2D(5, 3), _normalization()

        def energy(self, h):
            more = {"cubes": lambda: h**3, "relu": lambda: tf.nn.relu(h) ** 2}
            own = tf.reduce_sum(self.normal(h) ** 3, [1, 2, 3])
            return own + tf.reduce_sum(more[case](), [1, 2, 3]) if case in more else own

        def call(self, x):
            h = self.convolution(x)
            if case == "tf.gradients" and not tf.executing_eagerly():
                return tf.gradients(self.energy(h), h)[0]
            with tf.GradientTape() as tape:
                tape.watch(h)
                energy = self.energy(h)
            return tape.gradient(energy, h)

    model = _functional(lambda x: Looking()(x))
    images = _images(model)
    _close(_map(model, images)["gradient"], _gradient(model, images))


def test_a_kernel_that_depends_on_the_images(folded):
    class Gated(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(3, 3, 3, 5), initializer="random_normal")

        def call(self, x):
            return tf.nn.conv2d(x, self.kernel * tf.reduce_mean(x), 1, "SAME")

    model = _functional(lambda x: _normalization()(Gated()(x)))
    images = _images(model)
    _close(_map(model, images)["gradient"], _gradient(model, images))
    assert folded == ["Conv2D"]


class Sum(layers.Layer):
    def __init__(self, addend):
        super().__init__()
        self.addend = addend

    def call(self, x):
        return x + tf.cast(self.addend, x.dtype)


class Constant(layers.Layer):
    def __init__(self):
        super().__init__()
        self.inner = _normalization()

    def call(self, x):
        return x + self.inner(tf.ones((1, 1, 1, 3), x.dtype))


SUMS = {
    "a number": lambda: [Sum(1.0), _normalization()],
    "an offset": lambda: [layers.Rescaling(2.0, offset=-1.0), _normalization()],
    "a constant": lambda: [Constant()],
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_that_are_no_bias_are_left(name, folded):
    def build(x):
        x = layers.Conv2D(3, 3)(x)
        for layer in SUMS[name]():
            x = layer(x)
        return x

    model = _functional(build)
    images = _images(model)
    _close(_map(model, images)["gradient"], _gradient(model, images))
    assert not folded


def test_a_normalization_of_the_images(folded):
    model = _functional(lambda x: _normalization()(layers.Rescaling(2.0, offset=-1.0)(x)))
    images = _images(model)
    _close(_map(model, images)["gradient"], _gradient(model, images))
    assert not folded


def test_threads_leave_nothing_behind():
    model = _model(BLOCKS["convolution"])
    images = _images(model)
    first, _, last, *_ = (layer.name for layer in model.layers)
    prepared = tfs.prepare(model, score="logit")
    options = {"start": last, "layers": [first], "verbose": 0}
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(_map, model, images) for _ in range(4)]
        jobs += [pool.submit(tfs.csc_profile, prepared, images, **options) for _ in range(4)]
    for job in jobs:
        job.result()
    assert all("call" not in vars(layer) for layer in model.layers)


def test_a_normalization_that_is_told_to_train_is_left(folded):
    class Training(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = _normalization()

        def call(self, x):
            return self.inner(x, training=True)

    model = _functional(lambda x: Training()(layers.Conv2D(4, 3)(x)))
    _map(model, _images(model))
    assert not folded


def test_layers_keep_their_own_outputs():
    """Class activation maps, relevance and vectors at the layers of a folded pair."""

    def pair(x):
        x = layers.Conv2D(6, 3, name="convolution")(x)
        return layers.ReLU(name="active")(_normalization(name="normal")(x))

    model = _functional(pair)
    images = _images(model)
    at = [
        tfs.Method(name, composition=tfs.CAM("grad_cam", layer=name))
        for name in ("convolution", "normal")
    ]
    methods = [*at, "lrp_z_plus", "deep_lift", "gradient"]
    with_fold, without = (_map(model, images, methods, fold=fold) for fold in (True, False))
    for name in with_fold:
        _close(with_fold[name], without[name], 1e-6)
    for name in ("convolution", "normal"):
        assert with_fold.coverage[name].grids[0].layer == name


def test_the_models_own_layers_are_as_before(folded):
    model = _model(BLOCKS["convolution"])
    layer = model.layers[1]
    _map(model, _images(model), ["gradient", "guided_backprop"])
    assert folded and "call" not in vars(layer)
    layer.call = own = layer.call
    _map(model, _images(model), "zeiler_fergus")
    assert vars(layer)["call"] is own


def test_large_kernels_on_few_positions_are_left(folded):
    model = _model(lambda: layers.Conv2D(4, 11))  # 363 weights a channel at 4 positions
    images = _images(model)
    _close(_map(model, images)["gradient"], _gradient(model, images))
    assert not folded


@pytest.mark.parametrize("name", [
    "MobileNetV2",
    pytest.param("DenseNet121", marks=pytest.mark.slow),
    pytest.param("ResNet50", marks=pytest.mark.slow),
    pytest.param("Xception", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_model_of_keras_applications(name, folded):
    keras.utils.set_random_seed(0)
    with float64():
        model = getattr(keras.applications, name)(
            weights=None, classifier_activation=None, input_shape=(96, 96, 3)
        )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape))
    images = _images(model, 2)
    _close(_map(model, images)["gradient"], _gradient(model, images), 1e-9)
    assert len(folded) > 20
