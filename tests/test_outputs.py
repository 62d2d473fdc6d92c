"""Outputs that are no classes: positions, embeddings, regression; and scores of them."""

import functools
import random
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers

import tfsaliency as tfs

SIDE, CLASSES = 6, 4
RNG = np.random.default_rng(3)
IMAGES = RNG.normal(size=(3, SIDE, SIDE, 2))
MASK = np.zeros((SIDE, SIDE), bool)
MASK[1:3, 2:5] = True


def _dense(activation, k=CLASSES, shape=(SIDE, SIDE)):
    """A model of one 1 x 1 convolution, so that each output sees its own position."""
    inputs = keras.Input((*shape, 2), dtype="float64")
    outputs = layers.Dense(k, dtype="float64", activation=activation)(inputs)
    return zoo.random_weights(keras.Model(inputs, outputs))


def _logits(model, images):
    kernel, bias = model.get_weights()
    return images @ kernel + bias, kernel


def _softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
@pytest.mark.parametrize("shape", [(SIDE, SIDE), (9,), (2, 3, 4)], ids=["2-D", "1-D", "3-D"])
def test_the_logit_is_the_mean_over_the_region(activation, shape):
    model = _dense(activation, shape=shape)
    images = RNG.normal(size=(3, *shape, 2))
    mask = RNG.uniform(size=shape) < 0.4
    z, kernel = _logits(model, images)
    for region in (None, mask, np.stack([mask, ~mask, mask])):
        maps = tfs.attributions(
            model, images, targets=1, region=region, score="logit", on_problem="ignore"
        )
        each = np.broadcast_to(np.ones(shape, bool) if region is None else region, (3, *shape))
        size = each.sum(axis=tuple(range(1, each.ndim)))
        expected = (z[..., 1] * each).reshape(3, -1).sum(1) / size
        np.testing.assert_allclose(maps.scores, expected, rtol=1e-9)
        share = each / size.reshape(-1, *(1,) * len(shape))
        np.testing.assert_allclose(maps["gradient"], share[..., None] * kernel[:, 1], rtol=1e-9)
    before = f"before the final {activation}; " if activation else ""
    assert maps.score == f"logit ({before}mean of the region)"


def test_probability_log_probability_and_margin_of_a_region():
    model = _dense("softmax")
    z, kernel = _logits(model, IMAGES)
    p, c, n = _softmax(z), 2, MASK.sum()
    options = {"targets": c, "region": MASK}
    mean = p @ kernel.T  # (n, h, w, 2)
    slope = kernel[:, c] - mean
    share = (MASK / n)[None, :, :, None]
    for score, values, gradient in (
        ("probability", p[..., c], p[..., [c]] * slope),
        ("log_probability", np.log(p[..., c]), slope),
    ):
        maps = tfs.attributions(model, IMAGES, score=score, **options)
        np.testing.assert_allclose(maps.scores, values[:, MASK].mean(1), rtol=1e-9)
        np.testing.assert_allclose(maps["gradient"], share * gradient, rtol=1e-8, atol=1e-15)
    others = np.where(np.arange(CLASSES) == c, -np.inf, z)
    margins = z[..., c] - others.max(-1)
    slopes = kernel[:, c] - kernel.T[others.argmax(-1)]
    maps = tfs.attributions(model, IMAGES, score="margin", **options)
    np.testing.assert_allclose(maps.scores, margins[:, MASK].mean(1), rtol=1e-9)
    np.testing.assert_allclose(maps["gradient"], share * slopes, rtol=1e-8)


def test_weights_of_a_region_and_the_top_class_in_it():
    model = _dense("softmax")
    z, _ = _logits(model, IMAGES)
    weights = RNG.uniform(size=(SIDE, SIDE))
    maps = tfs.attributions(model, IMAGES, targets=0, region=weights, on_problem="ignore")
    expected = (z[..., 0] * weights).sum((1, 2)) / weights.sum()
    np.testing.assert_allclose(maps.scores, expected, rtol=1e-6)  # regions are float32
    p = _softmax(z)
    top = tfs.saliency_map(model, IMAGES, region=MASK).targets
    assert top.tolist() == p[:, MASK].mean(1).argmax(-1).tolist()
    everywhere = tfs.saliency_map(model, IMAGES, on_problem="ignore")  # the same at each position
    assert everywhere.targets.tolist() == p.mean((1, 2)).argmax(-1).tolist()
    np.testing.assert_allclose(everywhere.class_values(0), p[0].mean((0, 1)), rtol=1e-9)


def test_the_top_output_of_positions_without_a_meaning():
    model = _dense(None)
    z, kernel = _logits(model, IMAGES)
    maps = tfs.attributions(model, IMAGES, score="logit", region=MASK)
    assert maps.targets.tolist() == z[:, MASK].mean(1).argmax(-1).tolist()
    np.testing.assert_allclose(
        maps["gradient"][:, 1, 2], kernel[:, maps.targets].T / MASK.sum(), rtol=1e-6
    )


def test_a_single_sigmoid_at_each_position():
    model = _dense("sigmoid", 1)
    z, kernel = _logits(model, IMAGES)
    maps = tfs.attributions(model, IMAGES, targets=0, region=MASK, class_names=["other", "road"])
    np.testing.assert_allclose(maps.scores, -z[:, MASK, 0].mean(1), rtol=1e-9)
    np.testing.assert_allclose(maps["gradient"][0, 1, 2], -kernel[:, 0] / MASK.sum(), rtol=1e-6)


@pytest.mark.parametrize("method", ["guided_backprop", "smooth_grad", "integrated_gradients"])
def test_a_region_goes_with_every_method(method):
    keras.utils.set_random_seed(1)  # of some other weights, guided maps are zero
    inputs = keras.Input((SIDE, SIDE, 2), dtype="float64")
    h = layers.Conv2D(5, 3, padding="same", activation="relu", dtype="float64")(inputs)
    model = keras.Model(inputs, layers.Conv2D(3, 1, activation="softmax", dtype="float64")(h))
    cut = keras.layers.Lambda(lambda z: tf.reduce_mean(z[:, 1:3, 2:5], (1, 2)))
    logits = keras.Model(inputs, cut(keras.layers.Conv2D(3, 1, dtype="float64", name="z")(h)))
    logits.get_layer("z").set_weights(model.layers[-1].get_weights())
    ours = tfs.attributions(model, IMAGES, method, targets=1, region=MASK)
    theirs = tfs.attributions(logits, IMAGES, method, targets=1, score="logit")
    np.testing.assert_allclose(ours[method], theirs[method], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (np.ones((5, 6)), r"positions of the outputs \(None, 6, 6, 4\): \(6, 6\)"),
        (np.ones((2, SIDE, SIDE)), "for all images, or one for each of 3"),
        (np.ones(SIDE), "a mask of 2 axes"),
        (np.zeros((SIDE, SIDE)), "at least one position.*none for image 0"),
        (np.stack([MASK, MASK & False, MASK]), "none for image 1"),
        (-np.ones((SIDE, SIDE)), "weights of at least 0"),
        (np.full((SIDE, SIDE), np.nan), "weights of at least 0"),
        ("all", "Received: str"),
    ],
)
def test_a_region_that_is_none_is_refused(region, message):
    with pytest.raises(tfs.OptionError, match=message):
        tfs.saliency_map(_dense("softmax"), IMAGES, targets=0, region=region)


class Anchors(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(5)

    def call(self, x):
        return tf.reshape(self.dense(x), [-1, SIDE * SIDE, 5])


@pytest.mark.parametrize("how", ["subclassed", "function"])
def test_a_region_of_anchors_of_models_that_declare_nothing(how):
    inner = Anchors()
    inner(IMAGES.astype("float32"))
    model = inner if how == "subclassed" else lambda x: inner(x)
    anchor = np.arange(SIDE * SIDE) == 8
    for region in (anchor, np.stack([anchor] * 3)):
        maps = tfs.attributions(
            model, IMAGES.astype("float32"), targets=2, score="logit", region=region
        )
        np.testing.assert_allclose(maps.scores, inner(IMAGES)[:, 8, 2], rtol=1e-4, atol=1e-6)
        kernel = inner.dense.get_weights()[0]
        np.testing.assert_allclose(maps["gradient"][0, 1, 2], kernel[:, 2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 8), (6, 1), (1, 1), (5, 8)])
def test_a_region_of_another_size_for_a_model_of_any_size(shape):
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, layers.Conv2D(3, 1, activation="softmax")(inputs))
    zoo.random_weights(model)
    images = RNG.normal(size=(3, 6, 8, 2))
    for each in (model, lambda x: tf.nn.softmax(x[:, : tf.shape(x)[1]] * 2.0)):
        with pytest.raises(tfs.OptionError, match="Resize the mask to them"):
            tfs.saliency_map(each, images, targets=0, score="logit", region=np.ones(shape))
    right = tfs.saliency_map(model, images, targets=0, region=np.ones((6, 8)), on_problem="ignore")
    whole = tfs.saliency_map(model, images, targets=0, on_problem="ignore")
    np.testing.assert_allclose(right.scores, whole.scores, rtol=1e-5, atol=1e-6)


def test_masked_regions_are_refused():
    with pytest.raises(tfs.OptionError, match="without masked values"):
        region = np.ma.masked_array(np.ones((SIDE, SIDE)), ~MASK)
        tfs.saliency_map(_dense("softmax"), IMAGES, targets=0, region=region)


def test_a_score_that_fails_while_it_runs():
    model = _ends_in(layers.Dense(1, activation="sigmoid"))
    gather = lambda outputs, targets: tf.gather(outputs, targets, batch_dims=1)  # noqa: E731
    with pytest.raises(tfs.OptionError, match="Of one output for two classes, they are 0 and 1"):
        tfs.saliency_map(model, IMAGES, targets=1, score=gather)
    softmax = _ends_in(layers.Dense(3, activation="softmax"))
    beyond = lambda outputs, targets: tf.gather(outputs, targets + 3, batch_dims=1)  # noqa: E731
    with pytest.raises(tfs.OptionError, match="failed for the outputs and targets"):
        tfs.saliency_map(softmax, IMAGES, targets=0, score=beyond)
    with pytest.raises(tfs.OptionError, match="values for 2 images"):
        tfs.saliency_map(softmax, IMAGES, score=lambda o, t: tf.reshape(o[:, :2], [-1]))


def test_a_region_needs_positions_and_a_named_score():
    classes = keras.Sequential([_dense(None), layers.Flatten(), layers.Dense(2, "softmax")])
    with pytest.raises(tfs.OptionError, match="positions of the outputs.*none.*Leave region out"):
        tfs.saliency_map(classes, IMAGES, region=MASK)
    with pytest.raises(tfs.OptionError, match="a named score with region="):
        tfs.saliency_map(
            _dense("softmax"),
            IMAGES,
            region=MASK,
            score=lambda outputs, targets: outputs[:, 0, 0, 0],
        )


def test_checks_take_a_region_too():
    model = _dense("softmax")
    images = RNG.normal(size=(8, SIDE, SIDE, 2))
    options = dict(targets=1, region=MASK, similarities="spearman", verbose=0, on_problem="ignore")
    result = tfs.sanity_check(model, images, plan="all", seeds=2, **options)
    maps = tfs.saliency_map(model, images, targets=1, region=MASK, on_problem="ignore")
    np.testing.assert_allclose(result.scores, maps.scores, rtol=1e-9)


# Saturation.


def _certain():
    model = _dense("softmax")
    kernel, _ = model.get_weights()
    model.set_weights([kernel, np.array([40.0, 0, 0, 0])])
    return model


def _first_probability(outputs, targets):
    return tf.reduce_sum(outputs[..., 0], (1, 2))


def test_a_saturated_score_is_said_under_a_callable_too():
    with pytest.warns(tfs.SaliencyWarning, match="saturated_probability.*on_logits"):
        tfs.saliency_map(_certain(), IMAGES, score=_first_probability)
    # What the warning says helps, does.
    for score in (tfs.on_logits(_first_probability), "log_probability"):
        maps = tfs.saliency_map(_certain(), IMAGES, targets=1, score=score, on_problem="ignore")
        assert "saturated_probability" not in [p.cause for p in maps.problems]
    # A small probability is no rounding error.
    unlikely = tfs.saliency_map(_certain(), IMAGES, targets=1, score="probability", region=MASK)
    assert not unlikely.problems


def test_on_logits_gives_the_logits_in_place_of_the_outputs():
    model = _dense("softmax")
    z, kernel = _logits(model, IMAGES)
    score = tfs.on_logits(lambda logits, targets: logits[:, 2, 3, 1] - logits[:, 2, 3, 0])
    maps = tfs.attributions(model, IMAGES, score=score)
    np.testing.assert_allclose(maps.scores, z[:, 2, 3, 1] - z[:, 2, 3, 0], rtol=1e-9)
    expected = np.zeros(IMAGES.shape)
    expected[:, 2, 3] = kernel[:, 1] - kernel[:, 0]
    np.testing.assert_allclose(maps["gradient"], expected, rtol=1e-9)
    with pytest.raises(tfs.OptionError, match="Expected a function"):
        tfs.on_logits("logit")


# Callables.


def _scored(returns, flat=False, images=IMAGES):
    x = i = keras.Input((SIDE, SIDE, 2))
    x = layers.Dense(1)(layers.Flatten()(x))
    model = keras.Model(i, layers.Reshape(())(x) if flat else x)
    return tfs.attributions(model, images, score=returns), model


def test_a_callable_gets_the_shape_that_the_model_returns():
    shapes = []
    for flat in (False, True):
        _scored(lambda o, t: shapes.append(o.shape.rank) or tf.reshape(o, [-1]), flat)
    assert shapes == [2, 1]


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda o, t: None, "returned None"),
        (lambda o, t: [v for v in o], "raised OperatorNotAllowedInGraphError"),
        (lambda o, t: o, r"shape \(None, 1\)"),
        (lambda o, t: tf.reduce_sum(o), r"shape \(\)"),
        (lambda o, t: o[:1, 0], "1 values for 2 images"),
        (lambda o, t: o[:, 0] * 0 + 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda o: o[:, 0], "raised TypeError"),
        (lambda o, t: tf.constant([1.0, 2.0, 3.0]), r"shape \(3,\)"),
        (lambda o, t: tf.cast(o[:, 0], tf.int32), "dtype int32"),
        (lambda o, t: o.numpy(), "raised"),
    ],
)
def test_a_callable_that_is_no_score_is_told_what_is_expected(score, message):
    with pytest.raises(tfs.OptionError, match=message) as caught:
        _scored(score)
    assert "one float per image, (n,)" in str(caught.value)


# Outputs that are neither logits nor probabilities.


def _ends_in(*ends, loss=None):
    model = keras.Sequential([keras.Input((SIDE, SIDE, 2)), layers.Flatten(), *ends])
    zoo.random_weights(model)
    if loss is not None:
        model.compile(loss=loss)
    return model


def test_a_regression_explains_its_output():
    maps = tfs.attributions(_ends_in(layers.Dense(1)), IMAGES)
    assert (maps.score, maps.meaning) == ("output 0", "outputs")
    several = _ends_in(layers.Dense(3))
    assert tfs.saliency_map(several, IMAGES, targets=2).score == "output 2"
    assert tfs.saliency_map(several, IMAGES, targets=[2, 1, 0]).score == "output"
    assert tfs.saliency_map(several, IMAGES, targets=2, score="logit").score == "logit"


OF_LOGITS = functools.partial(keras.losses.sparse_categorical_crossentropy, from_logits=True)
MINE = type("Mine", (keras.losses.CategoricalCrossentropy,), {})


@pytest.mark.parametrize(
    ("loss", "k", "meaning"),
    [
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), 3, "classes"),
        (keras.losses.CategoricalCrossentropy(from_logits=True), 3, "classes"),
        (keras.losses.BinaryCrossentropy(from_logits=True), 3, "labels"),
        (keras.losses.BinaryCrossentropy(from_logits=True), 1, "binary_logit"),
        (
            functools.partial(keras.losses.sparse_categorical_crossentropy, from_logits=True),
            3,
            "classes",
        ),
        (type("Mine", (keras.losses.CategoricalCrossentropy,), {})(from_logits=True), 3, "classes"),
        ("bce", 1, "binary"),
        ("kl_divergence", 3, "classes"),
        ("categorical_crossentropy", 3, "classes"),
        (keras.losses.binary_crossentropy, 1, "binary"),
        ("mse", 1, "outputs"),
    ],
)
def test_the_loss_tells_what_outputs_mean(loss, k, meaning):
    maps = tfs.saliency_map(_ends_in(layers.Dense(k), loss=loss), IMAGES)
    assert maps.meaning == meaning
    assert maps.score.startswith("output 0" if meaning == "outputs" else "logit")


def test_a_model_that_is_compiled_again_means_something_else():
    model = _ends_in(layers.Dense(1))
    meanings = []
    for loss in ("mse", keras.losses.BinaryCrossentropy(from_logits=True), "mae"):
        model.compile(loss=loss)
        meanings.append(tfs.saliency_map(model, IMAGES).meaning)
    assert meanings == ["outputs", "binary_logit", "outputs"]


@pytest.mark.parametrize("averaged", [False, True], ids=["a clip", "an average"])
def test_two_classes_without_a_sigmoid_at_the_end(averaged):
    """The loss tells that the output is a probability, so the top class is 1 above 1/2."""
    i = keras.Input((SIDE, SIDE, 2))
    flat = layers.Flatten()(i)
    drawn = [keras.initializers.RandomNormal(seed=k) for k in (1, 2)]
    p = [layers.Dense(1, "sigmoid", kernel_initializer=each)(flat) for each in drawn]
    clip = layers.Lambda(lambda v: tf.clip_by_value(v, 1e-7, 1 - 1e-7))
    end = layers.Average()(p) if averaged else clip(p[0])
    model = keras.Model(i, end)
    model.compile(loss="binary_crossentropy")
    images = RNG.normal(size=(12, SIDE, SIDE, 2))
    maps = tfs.saliency_map(model, images)
    expected = (model.predict(images, verbose=0)[:, 0] > 0.5).astype(int)
    assert maps.targets.tolist() == expected.tolist() and 0 < expected.sum() < 12


def test_the_confidence_of_a_logit_of_two_classes():
    model = _ends_in(layers.Dense(1), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    maps = tfs.saliency_map(model, IMAGES)
    p = 1 / (1 + np.exp(-model.predict(IMAGES, verbose=0)[:, 0]))
    np.testing.assert_allclose([maps.class_values(i)[1] for i in range(3)], p, rtol=1e-5, atol=1e-6)
    assert maps.targets.tolist() == (p > 0.5).astype(int).tolist()


def test_the_top_class_of_positions_is_that_of_the_mean_probability():
    model = keras.Sequential(
        [keras.Input((1, 3, 1)), layers.Conv2D(1, 1), layers.Activation("sigmoid")]
    )
    model.set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    image = np.reshape([-3.0, -3.0, 10.0], (1, 1, 3, 1))
    maps = tfs.saliency_map(model, image, on_problem="ignore")
    assert maps.targets.tolist() == [0] == [maps.class_values(0).argmax()]


def test_log_softmax_is_a_softmax():
    model = _ends_in(layers.Dense(3, activation="log_softmax"))
    kernel, bias = (w.astype("float64") for w in model.get_weights())
    z = IMAGES.reshape(3, -1) @ kernel + bias
    for score, values in (("logit", z), ("probability", _softmax(z)),
                          ("log_probability", np.log(_softmax(z)))):  # fmt: skip
        maps = tfs.saliency_map(model, IMAGES, score=score, targets=1)
        np.testing.assert_allclose(maps.scores, values[:, 1], rtol=1e-4, atol=1e-6)
    assert tfs.saliency_map(model, IMAGES).score == "logit (before the final log_softmax)"


def test_many_positions_in_half_precision():
    inputs = keras.Input((256, 256, 1))
    model = keras.Model(
        inputs, layers.Conv2D(3, 1, dtype="mixed_float16", activation="softmax")(inputs)
    )
    images = np.ones((1, 256, 256, 1))
    mask = np.zeros((256, 256))
    mask[:4, :4] = 1
    for region in (None, np.ones((256, 256)), mask):
        maps = tfs.attributions(model, images, targets=1, region=region, on_problem="ignore")
        kernel, bias = model.get_weights()
        np.testing.assert_allclose(maps.scores, kernel[0, 0, 0, 1] + bias[1], rtol=1e-2)
        where = 16 if region is mask else 65536
        np.testing.assert_allclose(
            maps["gradient"][0, 0, 0, 0], kernel[0, 0, 0, 1] / where, rtol=1e-2
        )


def test_the_loss_of_the_chosen_output():
    i = keras.Input((SIDE, SIDE, 2))
    h = layers.Flatten()(i)
    model = keras.Model(i, [layers.Dense(3, name="kind")(h), layers.Dense(2, name="place")(h)])
    crossentropy = keras.losses.CategoricalCrossentropy(from_logits=True)
    for loss in ([crossentropy, "mse"], {"kind": crossentropy, "place": "mse"}):
        model.compile(loss=loss)
        assert tfs.saliency_map(tfs.prepare(model, output="kind"), IMAGES).meaning == "classes"
        with pytest.raises(tfs.OptionError, match="Expected score="):
            tfs.saliency_map(tfs.prepare(model, output="place"), IMAGES)


def test_probabilities_are_recognized_however_they_are_computed():
    by_hand = layers.Lambda(lambda z: tf.exp(z) / tf.reduce_sum(tf.exp(z), -1, keepdims=True))
    maps = tfs.saliency_map(_ends_in(layers.Dense(3), by_hand), IMAGES)
    assert maps.meaning == "classes" and maps.score == "output"


@pytest.mark.parametrize(
    ("ends", "options"),
    [
        ([layers.Dense(3)], {}),
        ([layers.Dense(3), layers.UnitNormalization()], {}),
        ([layers.Dense(3), layers.UnitNormalization()], {"targets": 1}),
        ([layers.Dense(3), layers.Lambda(lambda v: tf.math.l2_normalize(v, -1))], {}),
    ],
)
def test_an_embedding_asks_for_a_score(ends, options):
    with pytest.raises(tfs.OptionError, match=r"score='logit'.*similarity_to\(vectors\)"):
        tfs.saliency_map(_ends_in(*ends), IMAGES, **options)


def test_similarity_to_vectors():
    model = _ends_in(layers.Dense(5, use_bias=False))
    kernel = model.get_weights()[0].astype("float64")
    vectors = RNG.normal(size=(4, 5))
    maps = tfs.attributions(
        model, IMAGES, targets=[2, 0, None], score=tfs.similarity_to(vectors),
        class_names=["a", "b", "c", "d"],
    )  # fmt: skip
    e = IMAGES.reshape(3, -1) @ kernel
    unit, to = (
        e / np.linalg.norm(e, axis=1, keepdims=True),
        vectors.T / np.linalg.norm(vectors, axis=1),
    )
    cosine = unit @ to
    chosen = [2, 0, int(cosine[2].argmax())]
    assert maps.targets.tolist() == chosen and maps.score == "cosine similarity"
    np.testing.assert_allclose(maps.scores, cosine[range(3), chosen], rtol=1e-5, atol=1e-6)
    for i, target in enumerate(chosen):
        v, u = to[:, target], unit[i]
        slope = kernel @ (v - (u @ v) * u) / np.linalg.norm(e[i])
        np.testing.assert_allclose(maps["gradient"][i].ravel(), slope, rtol=1e-4, atol=1e-6)
    for factor in (1e-9, 1e20):  # the length of vectors means nothing
        other = tfs.attributions(
            model, IMAGES, targets=chosen, score=tfs.similarity_to(vectors * factor)
        )
        np.testing.assert_allclose(other["gradient"], maps["gradient"], rtol=1e-4, atol=1e-7)
    one = tfs.saliency_map(model, IMAGES, score=tfs.similarity_to(vectors[1]))
    np.testing.assert_allclose(one.scores, cosine[:, 1], rtol=1e-5, atol=1e-6)
    with pytest.raises(tfs.OptionError, match=r"an embedding \(n, 3\).*\(None, 5"):
        tfs.saliency_map(model, IMAGES, score=tfs.similarity_to(np.ones(3)))
    for bad in (np.zeros(5), "cat", np.full(5, np.nan), np.ones((2, 2, 5)), []):
        with pytest.raises(tfs.OptionError, match="Expected vectors as finite numbers"):
            tfs.similarity_to(bad)


# Numbers that are not finite, and models that are random.


def test_outputs_that_are_not_finite_are_said():
    model = _ends_in(layers.Dense(3, activation="softmax"))
    kernel, _ = model.get_weights()
    model.set_weights([kernel, np.array([0, np.nan, 0])])
    with pytest.warns(tfs.SaliencyWarning, match="non_finite_output.*NaN in model.get_weights"):
        tfs.saliency_map(model, IMAGES, targets=0)
    inf = tfs.saliency_map(model, IMAGES, score=lambda o, t: o[:, 0] * np.inf, on_problem="ignore")
    assert "non_finite_output" in [p.cause for p in inf.problems]


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1e300), ("float16", 70000.0)])
def test_values_beyond_the_models_dtype_are_refused(dtype, value):
    inputs = keras.Input((SIDE, SIDE, 2), dtype=dtype)
    model = keras.Model(inputs, layers.Dense(2, "softmax", dtype=dtype)(layers.Flatten()(inputs)))
    images = np.full((1, SIDE, SIDE, 2), value)
    with pytest.raises(tfs.ImageError, match=f"within the range of the model's {dtype}"):
        tfs.saliency_map(model, images)
    with pytest.raises(tfs.ImageError, match="preprocessed images within the range"):
        tfs.saliency_map(model, images / value, preprocess=lambda x: x.astype("float64") * value)


class _Drawn(layers.Layer):
    """A layer that multiplies by random numbers."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def call(self, x):
        return x * self.draw()


GENERATOR, OWN = keras.random.SeedGenerator(0), tf.random.Generator.from_seed(1)
DRAWS = {
    "tf.random": lambda: tf.random.uniform(()),
    "a seeded op": lambda: tf.random.uniform((), seed=3),
    "Keras's generator": lambda: keras.random.uniform((), seed=GENERATOR),
    "a tf.random.Generator": lambda: OWN.uniform(()),
    "in a tf.function": lambda: tf.function(lambda: tf.random.normal(()))(),
    "NumPy": lambda: float(np.random.uniform()),
    "Python": lambda: random.random(),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_random_forward_pass_is_said(name):
    model = _ends_in(layers.Dense(3, activation="softmax"), _Drawn(DRAWS[name]))
    with pytest.warns(tfs.SaliencyWarning, match="random_model.*training=False"):
        tfs.saliency_map(model, IMAGES, targets=0, score="logit")


def test_numbers_that_another_thread_draws_are_not_the_models():
    model, stop = _ends_in(layers.Dense(3, activation="softmax")), threading.Event()

    def draw():
        while not stop.is_set():
            np.random.uniform()

    drawing = threading.Thread(target=draw)
    drawing.start()
    try:
        for method in ("gradient", "smooth_grad"):
            assert not tfs.saliency_map(model, IMAGES, method).problems
    finally:
        stop.set()
        drawing.join()


def test_numbers_of_a_constant_seed_and_layers_of_training_are_not_random():
    fixed = _Drawn(lambda: tf.random.stateless_uniform((), [1, 2]))
    model = _ends_in(layers.Dropout(0.5), layers.GaussianNoise(1.0), layers.Dense(3), fixed)
    assert not tfs.saliency_map(model, IMAGES, targets=0).problems
    smooth = tfs.saliency_map(model, IMAGES, ["smooth_grad", "expected_gradients"], targets=0)
    assert not smooth.problems
