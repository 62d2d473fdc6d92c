"""csc_profile: cosines of random vectors that are passed back."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfsaliency as tfs

SIDE, DRAWS = 5, 3
RULES = {
    "gradient": lambda g, z: g * (z > 0),
    "guided_backprop": lambda g, z: np.maximum(g, 0) * (z > 0),
    "zeiler_fergus": lambda g, z: np.maximum(g, 0),
}


@pytest.fixture(scope="module")
def model():
    """Three 1 x 1 convolutions, so that each position is by itself."""
    keras.utils.set_random_seed(2)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Conv2D(8, 1, name="low"),
            layers.ReLU(name="low_relu"),
            layers.Conv2D(6, 1, activation="relu", name="middle"),
            layers.Conv2D(7, 1, activation="relu", name="top"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(9, SIDE, SIDE, 3)).astype("float32")


def _expected(model, images, rule, start, end):
    """The median |cosine| of each image, by products of matrices at each position."""
    low, _, middle, top, *_ = model.layers
    z, x = {}, images.astype(float)
    for layer in (low, middle, top):
        kernel, bias = (w.astype(float) for w in layer.get_weights())
        z[layer.name] = x @ kernel[0, 0] + bias
        x = np.maximum(z[layer.name], 0)
    shape = z[start].shape
    vectors = []
    for draw in range(DRAWS):
        g = tf.random.stateless_normal(shape, [4, draw]).numpy().astype(float)
        g = RULES[rule](g, z[start])
        if start == "top":
            g = RULES[rule](g @ top.kernel.numpy()[0, 0].T, z["middle"]) if end != "middle" else (
                g @ top.kernel.numpy()[0, 0].T
            )  # fmt: skip
        if end != "middle":
            g = g @ middle.kernel.numpy()[0, 0].T
            g = RULES[rule](g, z["low"]) if end == "low" else g
        vectors.append(g)
    cosines = []
    for i in range(DRAWS):
        for j in range(i):
            lengths = np.linalg.norm(vectors[i], axis=-1) * np.linalg.norm(vectors[j], axis=-1)
            with np.errstate(invalid="ignore"):
                cosines.append(np.abs((vectors[i] * vectors[j]).sum(axis=-1)) / lengths)
    return np.nanmedian(np.moveaxis(cosines, 1, 0).reshape(len(images), -1), axis=1)


@pytest.mark.parametrize("rule", RULES)
def test_cosines_equal_their_definition(rule, model, images):
    options = {"draws": DRAWS, "seed": 4, "batch_size": 9}
    layers = ["middle", "low_relu", "low"]
    found = tfs.csc_profile(model, images, rule, start="top", layers=layers, **options)
    assert found.layers == ("middle", "low_relu", "low") and found.start == "top"
    for place, layer in enumerate(layers):
        expected = _expected(model, images, rule, "top", layer)
        assert found.values[0, place] == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert found.mean(rule, layer) == pytest.approx(expected.mean(), rel=1e-4)
    assert found.coverage[rule].relus == 3


def test_the_graph_engine_passes_the_same_vectors(model, images):
    class Own(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def call(self, x):
            return self.inner(x)

    own = Own(model)
    own(images)
    one, other = (
        tfs.csc_profile(m, images, list(RULES), start=s, layers=[low], draws=DRAWS, seed=4)
        for m, s, low in ((model, "top", "low"), (own, "top", "low"))
    )
    np.testing.assert_allclose(one.values, other.values, rtol=1e-4, atol=1e-5)
    assert other.coverage["guided_backprop"].engine == "graph"


def test_chance_is_that_of_random_vectors(model, images):
    found = tfs.csc_profile(model, images, layers=["middle"], draws=2)
    pairs = np.random.default_rng(3).normal(size=(2, 40_000, 6))
    cosines = (pairs[0] * pairs[1]).sum(axis=1) / np.linalg.norm(pairs, axis=2).prod(axis=0)
    assert found.chance[0] == pytest.approx(np.median(np.abs(cosines)), rel=0.03)


def test_vectors_of_one_channel_forget_everything(images):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), layers.Conv2D(4, 1, name="wide"), layers.Conv2D(1, 1),
         layers.Conv2D(5, 1, name="top"), layers.GlobalAveragePooling2D()]
    )  # fmt: skip
    found = tfs.csc_profile(model, images, layers=["wide"], start="top")
    assert found.values == pytest.approx(np.ones((1, 1, 9)), rel=1e-5)
    assert found.verdict("gradient") == "forgets the layers above"
    assert "gradient: forgets the layers above" in str(found)
    few = tfs.csc_profile(model, images[:7], layers=["wide"], start="top")
    assert few.verdict("gradient") == "inconclusive"
    assert len(found.plot().axes) == 1


def test_defaults_are_the_last_layers_of_each_shape(model, images):
    found = tfs.csc_profile(model, images)
    assert found.start == "top" and found.layers == ("middle", "low_relu")


def test_what_cannot_be_profiled(model, images):
    with pytest.raises(tfs.OptionError, match=r"rule of ReLUs.*Received: smooth_grad"):
        tfs.csc_profile(model, images, "smooth_grad")
    with pytest.raises(tfs.OptionError, match="Unknown layer: 'topp'. Did you mean 'top'"):
        tfs.csc_profile(model, images, start="topp")
    with pytest.raises(tfs.OptionError, match="Received: 'dense"):
        tfs.csc_profile(model, images, start=model.layers[-1])
    with pytest.raises(tfs.OptionError, match="below"):
        tfs.csc_profile(model, images, start="low", layers=["top"])
    with pytest.raises(tfs.ModelError, match=r"keras\.Model"):
        tfs.csc_profile(lambda x: tf.reduce_mean(x, [1, 2]), images)


def test_squeezenet_has_the_published_cosines(squeezenet, data):
    model, photos = squeezenet, sorted((data / "imagenet").glob("*.JPEG"))
    images = tfs.load_images(photos[:4], model, fit="squash")
    layers = [f"{name}-concat" for name in ("fire8", "fire6", "fire5", "fire4", "fire2")]
    rules = list(RULES)
    found = tfs.csc_profile(
        model, images, rules, start="fire9-concat", layers=[*layers, "pool1"],
        preprocess=tfs.models.squeezenet.preprocess_input,
    )  # fmt: skip
    known = {
        "gradient": [0.181, 0.211, 0.266, 0.311, 0.409, 0.438],
        "guided_backprop": [0.876, 0.998, 0.999, 1, 1, 1],
        "zeiler_fergus": [0.985, 0.998, 0.998, 0.999, 1, 1],
    }
    for rule, values in known.items():
        means = [found.mean(rule, layer) for layer in found.layers]
        assert means == pytest.approx(values, abs=0.02)


def test_defaults_on_branches_in_half_precision_and_of_gray_images(images):
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, 1))
    x = layers.Rescaling(2.0)(inputs)
    side = layers.Conv2D(4, 3, activation="relu", name="side")(x)
    main = layers.Conv2D(6, 1, activation="relu", name="main")(x)
    top = layers.Conv2D(5, 1, name="top")(main)
    pooled = [layers.GlobalAveragePooling2D()(each) for each in (side, top)]
    model = keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(pooled)))
    found = tfs.csc_profile(model, images[..., :1], start="top")
    assert found.layers == ("main",)  # not the other branch, and no layer of one channel
    half = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3), dtype="float16"),
         layers.Conv2D(8, 1, name="low", dtype="float16"),
         layers.Conv2D(6, 1, name="top", dtype="float16"), layers.GlobalAveragePooling2D()]
    )  # fmt: skip
    for layer in half.layers[:2]:
        layer.kernel.assign(1e-3 * np.random.default_rng(0).normal(size=layer.kernel.shape))
    found = tfs.csc_profile(half, images.astype("float16"), start="top", layers=["low"])
    kernel = half.get_layer("top").kernel.numpy()[0, 0].astype(float)
    noises = [
        tf.random.stateless_normal((9, SIDE, SIDE, 6), [0, draw], dtype=tf.float16).numpy()
        @ kernel.T
        for draw in range(5)
    ]
    cosines = [
        np.abs((a * b).sum(-1)) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
        for i, a in enumerate(noises) for b in noises[:i]
    ]  # fmt: skip
    expected = np.median(np.moveaxis(cosines, 1, 0).reshape(9, -1), axis=1)
    assert found.values[0, 0, :8] == pytest.approx(expected[:8], rel=0.02)


def test_a_profile_is_saved_verified_and_reported(model, images, tmp_path):
    names = ["gradient", "guided_backprop"]
    found = tfs.csc_profile(model, images, names, start="top", draws=DRAWS, seed=4, verbose=0)
    found.save(tmp_path / "found.npz")
    loaded = tfs.CSCProfile.load(tmp_path / "found.npz")
    assert str(loaded) == str(found) and (loaded.values == found.values).all()
    # ReLUs of the two layers below, of which one follows the lowest compared layer.
    assert {name: (c.reached, c.relus) for name, c in loaded.coverage.items()} == {
        name: (found.coverage["guided_backprop"].relus,) * 2 for name in names
    }
    assert tfs.verify(tmp_path / "found.npz", model, images).confirmed
    other = replace(found, chance=found.chance + 0.01, values=found.values + 0.01)
    text = str(tfs.verify(other, model, images))
    assert "values: others, by up to 0.01" in text and "chance: others" in text
    assert "pixels of image 8" in str(tfs.verify(found, model, -images))
    tfs.write_report(tmp_path / "report.html", sanity=[loaded], verbose=0)
    page = (tmp_path / "report.html").read_text()
    assert "passed back from top" in page
    for name in names:
        assert f"{name}: {found.verdict(name)}" in page
        assert f"{name}: {found.verdict(name)}" in found._repr_html_()
    damaged = replace(found, layers=found.layers[:0])
    damaged.save(tmp_path / "damaged.npz")
    with pytest.raises(tfs.ResultError, match=r"CSCProfile\.save"):
        tfs.CSCProfile.load(tmp_path / "damaged.npz")
