"""Every rule on every way of writing a ReLU, against a backward pass in plain NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers
from reference import backprop
from setups import left_as_it_was, slow_but

import tfsaliency as tfs

RULES = list(tfs.RULES)
TYPICAL = ("ReLU layer", "nested", "PReLU", "ReLU(.875, .125, .375)")


@pytest.mark.parametrize("dtype", slow_but(["float64", "float32"], "float64"))
@pytest.mark.parametrize("spelling", zoo.SPELLINGS)
def test_rules_equal_the_numpy_reference(spelling, dtype):
    build, form = zoo.SPELLINGS[spelling]
    model = build(dtype)
    x, targets = zoo.images(), [1, 3]
    with left_as_it_was(model, x.astype(dtype), "get_config" not in spelling):
        # RectGrad's map is zero if the largest values are all at a ceiling.
        ours = tfs.attributions(model, x, RULES, targets=targets, on_problem="ignore")
    references = {}
    for rule in RULES:
        pairs = [
            zoo.reference_gradient(model, image, target, rule, form)
            for image, target in zip(x, targets, strict=True)
        ]
        references[rule] = np.stack([g for _, g in pairs])
        assert ours[rule].dtype == dtype
        zoo.assert_equal_to_reference(rule, ours[rule], references[rule], zoo.TOLERANCE[dtype])
        logits = [logits[t] for (logits, _), t in zip(pairs, targets, strict=True)]
        np.testing.assert_allclose(ours.scores, logits, rtol=zoo.TOLERANCE[dtype])
    # The rules differ on this model, so that confusing them would be noticed.
    for a, b in [("gradient", "guided_backprop"), ("guided_backprop", "zeiler_fergus")]:
        largest = np.abs(references[a]).max()
        assert np.abs(references[a] - references[b]).max() > 0.01 * largest


@pytest.mark.parametrize("spelling", slow_but(zoo.SPELLINGS, *TYPICAL))
def test_three_rules_in_one_call_equal_three_calls(spelling):
    model = zoo.SPELLINGS[spelling].build("float32")
    x = zoo.images()
    together = tfs.attributions(model, x, RULES, targets=2, on_problem="ignore")
    for rule in reversed(RULES):
        alone = tfs.attributions(model, x, rule, targets=2, on_problem="ignore")[rule]
        zoo.assert_equal_to_reference(rule, together[rule], alone, 1e-6)


def _residual(dtype):
    x = i = keras.Input((zoo.SIZE, zoo.SIZE, zoo.CHANNELS), dtype=dtype)
    h = layers.Conv2D(4, 1, dtype=dtype, activation="relu")(x)
    h = layers.BatchNormalization(dtype=dtype)(h)
    x = layers.Activation("relu", dtype=dtype)(layers.Conv2D(3, 1, dtype=dtype)(h) + x)
    x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
    return zoo.random_weights(keras.Model(i, layers.Dense(zoo.CLASSES, dtype=dtype)(x)), seed=3)


@pytest.mark.parametrize("rule", RULES)
def test_residual_block_with_batch_normalization(rule):
    model = _residual("float64")
    k1, b1, gamma, beta, mean, variance, k2, b2, k3, b3 = model.get_weights()

    def branch(h):
        return backprop.chain(
            h,
            lambda h: backprop.conv(h, k1, b1),
            lambda h: backprop.relu(h, rule),
            lambda h: backprop.batch_normalization(h, gamma, beta, mean, variance, 1e-3),
            lambda h: backprop.conv(h, k2, b2),
        )

    x = zoo.images(1)[0]
    _, backward = backprop.chain(
        x,
        lambda h: backprop.add(h, branch, backprop.identity),
        lambda h: backprop.relu(h, rule),
        backprop.global_average,
        lambda h: backprop.dense(h, k3, b3),
    )
    ours = tfs.attributions(model, x, rule, targets=0, on_problem="ignore")[rule][0]
    zoo.assert_equal_maps(ours, backward(np.eye(zoo.CLASSES)[0]), 1e-9)


def test_rules_by_hand():
    # z = -1, 2, 3 and u = 4, 5, -6; the 98th percentile of y * u = 0, 10, -18 is 9.6.
    site = tfs.Site(tf.constant([[0.0, 2.0, 3.0]]), lambda u: u * [0.0, 1.0, 1.0])
    upstream = tf.constant([[4.0, 5.0, -6.0]])
    expected = {
        "gradient": [0, 5, -6],
        "guided_backprop": [0, 5, 0],
        "zeiler_fergus": [4, 5, 0],
        "rect_grad": [0, 5, 0],
    }
    assert {name: rule(upstream, site).numpy()[0].tolist() for name, rule in tfs.RULES.items()} == (
        expected
    )


def test_a_rule_of_ones_own():
    model = zoo.SPELLINGS["ReLU layer"].build("float64")
    x = zoo.images()
    doubled = tfs.Method("doubled", lambda upstream, site: 2.0 * site.backward(upstream))
    maps = tfs.attributions(model, x, ["gradient", doubled], targets=0)
    zoo.assert_equal_maps(maps["doubled"], 4.0 * maps["gradient"], 1e-12)  # two ReLUs
