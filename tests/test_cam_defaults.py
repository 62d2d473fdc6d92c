"""Default layers of class activation maps, on architectures where the last one is not the best."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import tfsaliency as tfs

SIZE = 16


def _images(*shape):
    return np.random.default_rng(0).normal(size=shape or (2, SIZE, SIZE, 3)).astype(np.float32)


def _conv(filters=4, size=3, name=None, **options):
    return layers.Conv2D(filters, size, padding="same", activation="relu", name=name, **options)


def _head(x):
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))


def _default(build, images=None, **options):
    """The default layer of a model, and the reason if it is uncertain."""
    i = keras.Input((SIZE, SIZE, 3))
    model = build if isinstance(build, keras.Model) else keras.Model(i, build(i))
    images = _images() if images is None else images
    score = {} if isinstance(model, tfs.Prepared) else {"score": "logit"}
    maps = tfs.saliency_map(
        model, images, tfs.CAM(relu=False), on_problem="ignore", **{**score, **options}
    )
    (grid,) = maps.coverage["grad_cam"].grids
    why = [p.detail for p in maps.problems if p.cause == "uncertain_layer"]
    return grid.layer, why[0] if why else ""


def _corner(outputs, targets):
    return tf.reshape(outputs, (tf.shape(outputs)[0], -1))[:, 0]


@pytest.mark.parametrize(
    "enlarge",
    [
        lambda: layers.UpSampling2D(4, interpolation="bilinear"),
        lambda: layers.UpSampling2D(4),
        lambda: layers.Conv2DTranspose(3, 8, 4, padding="same"),
        lambda: layers.Resizing(16, 16),
    ],
)
def test_outputs_that_are_enlarged_logits(enlarge):
    def fcn(i):
        x = _conv(strides=2, name="features")(i)
        x = _conv(strides=2, name="last")(x)
        return enlarge()(layers.Conv2D(3, 1, name="logits")(x))

    # Each output sees one to four cells of "last" and "logits".
    assert _default(fcn, score=_corner) == ("features", "")


def test_outputs_of_a_detector_of_one_level():
    def detector(i):
        x = _conv(strides=2, name="neck")(_conv(strides=2, name="features")(i))
        return layers.Reshape((32, 5))(layers.Conv2D(10, 3, padding="same", name="head")(x))

    assert _default(detector, score=_corner) == ("neck", "")


def test_sums_and_products_by_operators_are_layers():
    def residual(i):
        x = _conv(name="trunk")(i)
        return _head(x + _conv(name="branch")(x))

    def gated(i):
        x = _conv(name="trunk")(i)
        gate = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="gate")(x)
        return _head(x * gate)

    assert _default(residual)[0].startswith("add")
    assert _default(gated)[0].startswith("multiply")


def test_a_last_layer_on_one_branch_of_a_call():
    class Residual(keras.Model):
        def __init__(self):
            super().__init__()
            self.trunk, self.branch = _conv(name="trunk"), _conv(name="branch")
            self.pool, self.top = layers.GlobalAveragePooling2D(), layers.Dense(3)

        def call(self, x):
            x = self.trunk(x)
            return self.top(self.pool(x + self.branch(x)))

    model = Residual()
    model(_images())
    layer, why = _default(model)
    assert layer == "trunk" and why.startswith("branch is on one branch; trunk is the last layer")


@pytest.mark.parametrize(
    "take",
    [
        lambda x: x[:, 0],
        lambda x: tf.split(x, [1, 16], 1)[0][:, 0],
        lambda x: tf.unstack(x, axis=1)[0],
        lambda x: tf.gather(x, 0, axis=1),
        lambda x: ops.split(x, [1], 1)[0][:, 0],
    ],
)
def test_a_class_token_however_it_is_taken(take):
    def vit(i):
        x = layers.Reshape((16, 8))(layers.Conv2D(8, 4, 4)(i))
        x = layers.Dense(8)(layers.ZeroPadding1D((1, 0))(x))
        for block in (1, 2):
            h = layers.LayerNormalization(name=f"norm{block}")(x)
            x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(h, h)])
        x = layers.LayerNormalization(name="norm")(x)
        return layers.Dense(3)(layers.Lambda(take)(x))

    assert _default(vit) == ("norm2", "")


def test_attention_pooling_leaves_the_convolutions():
    def pooled(i):
        x = _conv(name="c2")(_conv(name="c1")(i))
        tokens = layers.Reshape((SIZE**2, 4), name="tokens")(x)
        weights = layers.Softmax(axis=1)(layers.Dense(1, name="weight")(tokens))
        return layers.Dense(3)(ops.matmul(ops.transpose(weights, (0, 2, 1)), tokens)[:, 0])

    def bilinear(i):
        tokens = layers.Reshape((SIZE**2, 4), name="tokens")(_conv(name="c2")(_conv()(i)))
        return layers.Dense(3)(
            layers.Flatten()(ops.matmul(ops.transpose(tokens, (0, 2, 1)), tokens))
        )

    assert _default(pooled) == ("tokens", "")
    i = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(i, pooled(i))
    with pytest.raises(tfs.GeometryError, match="part of the attention behind"):
        tfs.saliency_map(model, _images(), "grad_cam", layer="weight")
    assert _default(bilinear)[0] in ("tokens", "transpose")


def test_a_nested_model_that_attends_by_itself():
    i = keras.Input((SIZE, SIZE, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 4, 4, name="patches")(i))
    q, k, v = (layers.Dense(8, name=name)(x) for name in "qkv")
    attended = ops.matmul(ops.softmax(ops.matmul(q, ops.transpose(k, (0, 2, 1)))), v)
    x = layers.Add(name="sum")([x, attended])
    backbone = keras.Model(i, layers.GlobalAveragePooling1D()(x), name="backbone")
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), backbone, layers.Dense(3)])
    assert _default(model) == ("backbone/sum", "")


def test_single_pixels_are_no_layer_to_rely_on():
    def perceptron(i):
        x = layers.Flatten()(layers.Rescaling(2.0, name="scaled")(i))
        return layers.Dense(3)(layers.Dense(8, activation="relu")(x))

    layer, why = _default(perceptron)
    assert layer == "scaled" and "scaled shows single pixels" in why


def test_a_batch_of_one_image():
    i = keras.Input(batch_shape=(1, SIZE, SIZE, 3))
    x = layers.Reshape((16, 8), name="tokens")(layers.Conv2D(8, 4, 4)(i))
    x = layers.Dense(8, activation="gelu", name="mlp")(x)
    model = keras.Model(i, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    assert _default(model) == ("mlp", "")


class _Traced(layers.Layer):
    """A layer that calls another one in a tf.function, which keeps its traces."""

    def __init__(self):
        super().__init__()
        self.inner = _conv(name="inner")
        self.run = tf.function(self.inner)

    def call(self, x):
        return self.run(x)


def test_calls_in_a_function_that_keeps_its_traces_are_not_counted():
    keras.utils.set_random_seed(0)  # some weights are dead
    i = keras.Input((SIZE, SIZE, 3))
    traced = _Traced()
    x = _conv(name="before")(traced(_conv()(i)))
    model = keras.Model(i, _head(_conv(name="after")(x)))
    for layer in ("before", "after"):
        method = tfs.CAM("layer_cam", layer)
        found = tfs.saliency_map(model, _images(), method, targets=1, on_problem="ignore")
        model.predict(_images(), verbose=0)  # another trace
        plain = keras.Model(i, _head_of(model, traced.inner, i))
        expected = tfs.saliency_map(plain, _images(), method, targets=1, on_problem="ignore")
        np.testing.assert_allclose(found["layer_cam"], expected["layer_cam"], rtol=1e-5)
        assert found["layer_cam"].any()
    with pytest.raises(tfs.GeometryError, match="'inner': it is not called"):
        tfs.saliency_map(model, _images(), "grad_cam", layer="inner")


def _head_of(model, inner, x):
    """The model's layers, with another one in place of the third."""
    for number, layer in enumerate(model.layers[1:]):
        x = (inner if number == 1 else layer)(x)
    return x


class _Pair(layers.Layer):
    """A layer with two parts of one name."""

    def __init__(self):
        super().__init__(name="pair")
        self.a, self.b = _conv(name="conv"), _conv(name="conv")

    def call(self, x):
        return self.b(self.a(x))


def test_layers_of_one_name_are_told_apart():
    pair = _Pair()
    i = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(i, _head(pair(i)))

    def grid(layer):
        maps = tfs.saliency_map(
            model, _images(), "layer_cam", layer=layer, on_problem="ignore", score="logit"
        )
        return maps.coverage["layer_cam"].grids[0].layer

    assert grid(pair.a) == "pair/conv"
    assert grid(pair.b) in ("pair/conv#2", "pair")
    with pytest.raises(tfs.OptionError, match="the name of pair/conv and pair/conv#2"):
        grid("conv")
    with pytest.raises(tfs.OptionError, match="the name of pair/conv and pair/conv#2"):
        tfs.saliency_map(model, _images(), tfs.CAM(layer="conv", grid=(16, 16)))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: tfs.Product(tfs.CAM(resize=False)), "by with a value for each pixel"),
        (lambda: tfs.IntegratedGradients(inner=tfs.CAM(resize=False)), "inner with a value"),
        (
            lambda: tfs.InputXGradient(tfs.SmoothGrad(2, inner=tfs.CAM(resize=False))),
            "inner with a value",
        ),
        (lambda: tfs.CAM(layer="a", grid=3.5), "grid as the number of cells"),
        (lambda: tfs.CAM(layer="a", grid=b"ab"), "grid as the number of cells"),
    ],
)
def test_compositions_of_cells_and_impossible_grids_are_refused(make, match):
    with pytest.raises(tfs.OptionError, match=match):
        make()


def test_a_given_grid_cuts_no_tokens_of_a_picture():
    i = keras.Input((SIZE, SIZE, 3))
    x = layers.Reshape((4, 4, 4), name="late")(layers.Dense(64)(layers.Flatten()(i)))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(tfs.GeometryError, match=r"which is not \(n, 1 \+ 4 \* 4, channels\)"):
        tfs.saliency_map(model, _images(), tfs.CAM(layer="late", grid=(4, 4), prefix=1))
    index = np.int64(model.layers.index(model.get_layer("late")))
    with pytest.raises(tfs.GeometryError, match="'late': its cells see everything alike"):
        tfs.saliency_map(model, _images(), "grad_cam", layer=index)
