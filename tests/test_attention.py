"""Attention methods, against NumPy versions of the papers' formulas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from reference import slow
from setups import float64

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.engine.build import run
from tfsaliency.methods.table import resolve_methods

SIDE, WIDTH, HEADS = 4, 6, 2


@keras.saving.register_keras_serializable("tests")
class ClassToken(layers.Layer):
    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="random_normal")

    def call(self, x):
        token = keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[-1]))
        return keras.ops.concatenate([token, x], axis=1)


@keras.saving.register_keras_serializable("tests")
class HandWritten(layers.Layer):
    """Attention of one's own operations."""

    def build(self, shape):
        self.matrices = [
            self.add_weight(shape=(shape[-1], shape[-1]), initializer="glorot_normal", name=n)
            for n in "qkvo"
        ]

    def call(self, x):
        q, k, v = (x @ m for m in self.matrices[:3])
        weights = tf.nn.softmax(
            q @ tf.transpose(k, (0, 2, 1)) / tf.sqrt(tf.cast(x.shape[-1], x.dtype))
        )
        return (weights @ v) @ self.matrices[3]


def build(kind="class token", attention="keras", seed=0):
    """A transformer of two blocks on images of 8 x 8 with 2 x 2 patches."""
    with float64():
        keras.utils.set_random_seed(seed)
        i = keras.Input((2 * SIDE, 2 * SIDE, 3), dtype="float64")
        x = layers.Conv2D(WIDTH, 2, 2, name="patches")(i)
        x = layers.Reshape((SIDE**2, WIDTH))(x)
        if kind == "class token":
            x = ClassToken(name="class_token")(x)
        for block in (1, 2):
            h = layers.LayerNormalization(name=f"norm{block}")(x)
            if attention == "keras":
                h = layers.MultiHeadAttention(HEADS, 3, name=f"attention{block}")(h, h)
            elif attention == "grouped":
                h = layers.GroupQueryAttention(3, 2 * HEADS, HEADS, name=f"attention{block}")(h, h)
            else:
                h = HandWritten(name=f"attention{block}")(h)
            x = layers.Add(name=f"add{block}a")([x, h])
            h = layers.Dense(8, "gelu", name=f"up{block}")(x)
            x = layers.Add(name=f"add{block}b")([x, layers.Dense(WIDTH, name=f"down{block}")(h)])
        x = layers.LayerNormalization(name="last")(x)
        x = x[:, 0] if kind == "class token" else layers.GlobalAveragePooling1D()(x)
        model = keras.Model(i, layers.Dense(3, name="head")(x))
        for weight in model.weights:
            weight.assign(weight + 0.3 * np.random.default_rng(seed).normal(size=weight.shape))
    return model


def parts(model, images, target):
    """Attention, its derivative, and that of each block's own score, by hand with a tape."""
    heads = (
        2 * HEADS if "group" in model.get_layer("attention1").__class__.__name__.lower() else HEADS
    )
    x = tf.constant(images)
    found = []
    with tf.GradientTape(persistent=True) as tape:
        at_image = model.get_layer("patches")(x)
        tokens = tf.reshape(at_image, (len(images), SIDE**2, WIDTH))
        prefixed = any(layer.name == "class_token" for layer in model.layers)
        if prefixed:
            tokens = model.get_layer("class_token")(tokens)
        outputs = []
        for block in (1, 2):
            h = model.get_layer(f"norm{block}")(tokens)
            attention = model.get_layer(f"attention{block}")
            if isinstance(attention, HandWritten):
                q, k, v = (h @ m for m in attention.matrices[:3])
                weights = tf.nn.softmax(q @ tf.transpose(k, (0, 2, 1)) / np.sqrt(WIDTH))[:, None]
                tape.watch(weights)
                mixed = (weights[:, 0] @ v) @ attention.matrices[3]
            else:
                query, key, value = (
                    d(h)
                    for d in (
                        attention._query_dense,
                        attention._key_dense,
                        attention._value_dense,
                    )
                )
                if heads != HEADS:
                    key, value = (tf.repeat(t, 2, axis=2) for t in (key, value))
                scores = tf.einsum("nqhd,nkhd->nhqk", query, key) / np.sqrt(3)
                weights = tf.nn.softmax(scores)
                tape.watch(weights)
                mixed = attention._output_dense(tf.einsum("nhqk,nkhd->nqhd", weights, value))
            tokens = tokens + mixed
            h = model.get_layer(f"down{block}")(model.get_layer(f"up{block}")(tokens))
            tokens = tokens + h
            found.append(weights)
            outputs.append(tokens)

        def score(tokens):
            last = model.get_layer("last")(tokens)
            pooled = last[:, 0] if prefixed else tf.reduce_mean(last, axis=1)
            return model.get_layer("head")(pooled)[:, target]

        scores = [score(each) for each in outputs]
    np.testing.assert_allclose(scores[-1], model.predict(images, verbose=0)[:, target], rtol=1e-6)
    slopes = [tape.gradient(scores[-1], w).numpy() for w in found]
    own = [tape.gradient(s, w).numpy() for s, w in zip(scores, found, strict=True)]
    return [w.numpy() for w in found], slopes, own, prefixed


def in_image(tokens, prefixed):
    """Token values (n, tokens) as maps, linear between the centers of patches."""
    cells = tokens[:, prefixed:].reshape(-1, SIDE, SIDE)
    return slow.placed(cells, (2 * SIDE, 2 * SIDE), [(0.5, 2), (0.5, 2)])


def by_formula(kind, weights, slopes, own, prefixed):
    count = weights[0].shape[-1]
    if kind == "legrad":
        return sum(np.maximum(g, 0).mean(axis=1).mean(axis=1) for g in own)
    total = np.tile(np.eye(count), (len(weights[0]), 1, 1))
    for a, g in zip(weights, slopes, strict=True):
        if kind == "rollout":
            total = (a.mean(axis=1) + np.eye(count)) / 2 @ total
        else:
            total = total + np.maximum(a * g, 0).mean(axis=1) @ total
    if kind == "generic_attention":
        total = total - np.eye(count)
    return total[:, 0] if prefixed else total.mean(axis=1)


@pytest.mark.parametrize("kind", ["rollout", "generic_attention", "legrad"])
@pytest.mark.parametrize("end", ["class token", "mean"])
@pytest.mark.parametrize("attention", ["keras", "grouped", "hand"])
def test_formulas(kind, end, attention):
    model = build(end, attention)
    images = np.random.default_rng(1).normal(size=(2, 2 * SIDE, 2 * SIDE, 3))
    method = tfs.Attention(kind)
    found = tfs.saliency_map(model, images, method, targets=2)[method.name]
    weights, slopes, own, prefixed = parts(model, images, 2)
    expected = in_image(by_formula(kind, weights, slopes, own, prefixed), prefixed)
    slow.near(found, expected)


def test_rollout_does_not_know_the_class_and_the_others_do():
    images = synthetic.make_shapes(2, seed=0).images
    names = ["attention_rollout", "generic_attention", "legrad"]
    one, other = (
        tfs.saliency_map(synthetic.shapes_model("vit"), images, names, targets=t) for t in (1, 2)
    )
    np.testing.assert_array_equal(one["attention_rollout"], other["attention_rollout"])
    for name in names[1:]:
        assert np.corrcoef(one[name].ravel(), other[name].ravel())[0, 1] < 0.9
    grid = one.coverage["legrad"].grids[0]
    assert (grid.cells, grid.prefix, grid.first) == ((8, 8), 1, (3.5, 3.5))


def test_networks_without_attention_of_all_tokens_are_refused():
    images = np.ones((1, 8, 8, 3))
    with pytest.raises(tfs.UncoveredLayerError, match="no softmax of a product"):
        tfs.saliency_map(synthetic.shapes_model(), np.ones((1, 64, 64, 3)), "legrad")
    i = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 4, WIDTH))(layers.Conv2D(6, 1)(i))
    windows = keras.ops.reshape(x, (-1, 4, WIDTH))  # attention within groups of tokens
    x = keras.ops.reshape(layers.MultiHeadAttention(2, 3)(windows, windows), (-1, 64 * WIDTH))
    with pytest.raises(tfs.UncoveredLayerError, match="windows or other parts of images"):
        tfs.saliency_map(
            keras.Model(i, layers.Dense(2)(x)),
            images,
            "attention_rollout",
            targets=0,
            score="logit",
        )
    q = layers.Reshape((16, WIDTH))(layers.Conv2D(WIDTH, 2, 2)(i))
    k = layers.Reshape((4, WIDTH))(layers.Conv2D(WIDTH, 4, 4)(i))
    x = layers.Flatten()(layers.MultiHeadAttention(2, 3)(q, k))
    with pytest.raises(tfs.UncoveredLayerError, match="16 queries and 4 keys"):
        tfs.saliency_map(
            keras.Model(i, layers.Dense(2)(x)),
            images,
            "attention_rollout",
            targets=0,
            score="logit",
        )


def test_an_unknown_kind_is_refused():
    with pytest.raises(tfs.OptionError, match="Unknown kind: 'rollou'. Did you mean 'rollout'"):
        tfs.Attention("rollou")


def test_other_weights_and_prepared_models_are_followed():
    """As in a sanity check: one trace, the weights of another network."""
    images = np.random.default_rng(1).normal(size=(2, 2 * SIDE, 2 * SIDE, 3))
    vit, other = build(seed=0), build(seed=1)
    names = ["legrad", "transformer_lrp", "lrp_z_plus", tfs.Occlusion(window=4, stride=4)]
    prepared = tfs.prepare(vit)
    batch, methods = prepared.check(images), resolve_methods(names)
    trace = prepared.trace(methods, batch)
    targets = np.array([1, 2], np.int32)
    found = run(trace, batch, slice(0, 2), targets, other.get_weights(), 32).gradients
    wanted = tfs.attributions(other, images, names, targets=targets, on_problem="ignore")
    before = tfs.attributions(vit, images, names, targets=targets, on_problem="ignore")
    for name, maps in zip(wanted, found, strict=True):
        slow.near(maps.numpy(), wanted[name])
        assert np.abs(before[name] - wanted[name]).max() > 0.01 * np.abs(wanted[name]).max()


def test_transformer_lrp_through_attention_equals_gradients_of_its_own_network():
    """A network whose derivative is the rule: halved products, constant gates and deviations."""
    model, constant = build(attention="hand"), tf.stop_gradient
    images = np.random.default_rng(3).normal(size=(3, 2 * SIDE, 2 * SIDE, 3))

    def halved(a, b):
        half = 0.5 * (a @ constant(b) + constant(a) @ b)
        return constant(a @ b - half) + half

    def norm(layer, x):
        deviation = constant(tf.math.reduce_std(x, -1, keepdims=True) ** 2 + layer.epsilon)
        centered = x - tf.reduce_mean(x, -1, keepdims=True)
        return centered / tf.sqrt(deviation) * layer.gamma + layer.beta

    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        tokens = tf.reshape(model.get_layer("patches")(x), (3, SIDE**2, WIDTH))
        tokens = model.get_layer("class_token")(tokens)
        for block in (1, 2):
            h = norm(model.get_layer(f"norm{block}"), tokens)
            query, key, value, out = model.get_layer(f"attention{block}").matrices
            products = halved(h @ query, tf.transpose(h @ key, (0, 2, 1)))
            weights = tf.nn.softmax(products / np.sqrt(WIDTH))
            tokens = tokens + halved(weights, h @ value) @ out
            up, down = (model.get_layer(f"{name}{block}") for name in ("up", "down"))
            z = tokens @ up.kernel + up.bias
            tokens = tokens + down(z * constant(keras.activations.gelu(z) / z))
        scores = model.get_layer("head")(norm(model.get_layer("last"), tokens)[:, 0])[:, 1]
    passed = tfs.Method("passed", composition=tfs.TransformerLRP("passed"))
    found = tfs.attributions(model, images, passed, targets=1, score="logit")
    assert found.scores == pytest.approx(scores.numpy(), rel=1e-9)
    slow.near(found["passed"], (tape.gradient(scores, x) * x).numpy(), 1e-5)
    assert (found.details["passed"]["conservation_error"] < 1e-9).all()
    plain = tfs.attributions(model, images, "transformer_lrp", targets=1, score="logit")
    assert np.abs(plain["transformer_lrp"] - found["passed"]).max() > 0.01
    with pytest.raises(tfs.OptionError, match="attention"):
        tfs.TransformerLRP("both")
