"""Scores and targets against derivatives computed by hand, on linear models."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers

import tfsaliency as tfs

SHAPE = (2, 2, 3)


def _linear(activation, k=3, wrap=lambda x: x):
    inputs = keras.Input(SHAPE, dtype="float64")
    x = layers.Flatten(dtype="float64")(inputs)
    x = layers.Dense(k, activation=activation, dtype="float64")(x)
    return zoo.random_weights(keras.Model(inputs, wrap(x)), seed=5)


def _by_hand(model, x, target):
    """Logits z, probabilities p, and kernel columns of a linear softmax model."""
    kernel, bias = model.get_weights()
    z = x.reshape(len(x), -1) @ kernel + bias
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return z, e / e.sum(axis=-1, keepdims=True), kernel


X = np.random.default_rng(0).normal(size=(4, *SHAPE)) / 3


def _check(model, score, expected_scores, expected_gradients, targets):
    result = tfs.attributions(model, X, score=score, targets=targets)
    np.testing.assert_allclose(result.scores, expected_scores, rtol=1e-9)
    np.testing.assert_allclose(
        result["gradient"].reshape(len(X), -1), expected_gradients, rtol=1e-8, atol=1e-13
    )
    return result


HEADS = {
    "fused": lambda: _linear("softmax"),
    "layer": lambda: _linear(None, wrap=layers.Softmax(dtype="float64")),
    "Activation": lambda: _linear(None, wrap=layers.Activation("softmax", dtype="float64")),
    "function": lambda: _linear(None, wrap=keras.ops.softmax),
    "reshaped": lambda: _linear(
        "softmax",
        wrap=lambda x: layers.Reshape((3,), dtype=x.dtype)(
            layers.Reshape((1, 1, 3), dtype=x.dtype)(x)
        ),
    ),
    "followed by linear": lambda: _linear(
        "softmax", wrap=layers.Activation("linear", dtype="float64")
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_logit_is_the_value_before_the_softmax(head):
    model, c = HEADS[head](), 1
    z, p, kernel = _by_hand(model, X, c)
    assert np.allclose(model(X), p)
    result = _check(model, "logit", z[:, c], np.tile(kernel[:, c], (4, 1)), c)
    assert result.score == "logit (before the final softmax)"


def test_logit_of_a_nested_model_and_of_a_subclassed_one():
    inner = HEADS["fused"]()
    i = keras.Input(SHAPE, dtype="float64")

    class Outer(keras.Model):
        def call(self, x):
            return inner(x)

    outer = Outer()
    outer(X)
    for model in (keras.Model(i, inner(i)), outer):
        z, _, kernel = _by_hand(inner, X, 0)
        x = X.astype("float32") if model is outer else X
        result = tfs.attributions(model, x, targets=0)
        np.testing.assert_allclose(result.scores, z[:, 0], rtol=1e-5)
        np.testing.assert_allclose(result["gradient"][0].ravel(), kernel[:, 0], rtol=1e-5)


def test_without_a_softmax_the_logit_is_the_output():
    model = _linear(None)
    z, _, kernel = _by_hand(model, X, 2)
    result = _check(model, "logit", z[:, 2], np.tile(kernel[:, 2], (4, 1)), 2)
    assert result.score == "logit"


def test_probability_log_probability_and_margin():
    model, c = _linear("softmax"), 1
    z, p, kernel = _by_hand(model, X, c)
    mean = p @ kernel.T  # sum_k p_k w_k
    slope = kernel[:, c] - mean
    _check(model, "probability", p[:, c], p[:, c : c + 1] * slope, c)
    _check(model, "log_probability", np.log(p[:, c]), slope, c)
    assert set(z.argmax(axis=-1)) != {1}  # the margin is above zero and below
    for c in range(3):
        others = np.where(np.arange(3) == c, -np.inf, z)
        slopes = (kernel[:, [c]] - kernel[:, others.argmax(axis=-1)]).T
        _check(model, "margin", z[:, c] - others.max(axis=-1), slopes, c)


def test_log_probability_does_not_underflow():
    model = _linear("softmax")
    model.set_weights([w * 1000 for w in model.get_weights()])
    z, p, kernel = _by_hand(model, X, 0)
    target = z.argmin(axis=-1)
    log_p = z - z.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    slopes = kernel[:, target].T - p @ kernel.T
    _check(model, "log_probability", log_p[np.arange(4), target], slopes, target)


def test_sigmoid_outputs():
    model = _linear("sigmoid", k=1)
    kernel, bias = model.get_weights()
    z = (X.reshape(4, -1) @ kernel + bias)[:, 0]
    p = 1 / (1 + np.exp(-z))
    w = np.tile(kernel[:, 0], (4, 1))
    _check(model, "logit", z, w, 1)
    _check(model, "probability", p, (p * (1 - p))[:, None] * w, 1)
    _check(model, "log_probability", np.log(p), (1 - p)[:, None] * w, 1)


def test_a_callable_gets_the_outputs_as_they_are():
    model = _linear("softmax")
    _, p, kernel = _by_hand(model, X, 0)
    entropy_slope = -(p * (np.log(p) + 1)) @ kernel.T + (p * (np.log(p) + 1)).sum(-1)[:, None] * (
        p @ kernel.T
    )

    def entropy(outputs, targets):
        return -keras.ops.sum(outputs * keras.ops.log(outputs), axis=-1)

    result = _check(model, entropy, -(p * np.log(p)).sum(-1), entropy_slope, None)
    assert result.score == "entropy"


def test_a_score_that_does_not_fit_the_model():
    linear = _linear(None)
    for score in ("probability", "log_probability"):
        with pytest.raises(tfs.OptionError, match="softmax or sigmoid"):
            tfs.saliency_map(linear, X, score=score)
    with pytest.raises(tfs.OptionError, match="at least 2 outputs. Received: 1"):
        tfs.saliency_map(_linear(None, k=1), X, score="margin")
    with pytest.raises(tfs.OptionError, match="Did you mean 'probability'"):
        tfs.saliency_map(linear, X, score="probabilty")
    with pytest.raises(tfs.OptionError, match=r"shape \(None, 3\)"):
        tfs.saliency_map(linear, X, score=lambda outputs, targets: outputs)
    with pytest.raises(tfs.ModelError, match="does not depend"):
        tfs.saliency_map(
            linear, X, score=lambda outputs, targets: keras.ops.zeros_like(targets, "float64")
        )


def test_the_logit_of_a_model_behind_a_function_call_is_found():
    import tensorflow as tf

    class Wrapped(layers.Layer):
        def call(self, x):
            return tf.function(lambda h: tf.nn.softmax(h))(x)

    model = _linear(None, wrap=Wrapped(dtype="float64"))
    ours = tfs.attributions(model, X, targets=0)
    assert ours.score == "logit (before the final softmax)"
    kernel = model.get_weights()[0][:, 0].reshape(X.shape[1:])
    np.testing.assert_allclose(ours["gradient"], [kernel] * len(X), rtol=1e-12)


def test_the_top_class_is_that_of_the_clean_image():
    model = _linear("softmax")
    _, p, _ = _by_hand(model, X, 0)
    top = p.argmax(-1)
    assert len(set(top)) > 1
    result = tfs.saliency_map(model, X)
    assert result.targets.tolist() == top.tolist()
    explicit = tfs.saliency_map(model, X, targets=top)
    assert np.array_equal(explicit["gradient"], result["gradient"])


@pytest.mark.parametrize(
    ("targets", "labels", "message"),
    [
        ("dog", None, "Expected class_names="),
        ("dgo", ["cat", "dog", "cow"], "Did you mean 'dog'"),
        ("dog", ["dog", "cat", "dog"], r"classes \[0, 2\]"),
        (-1, None, "a class index.*Received: -1"),
        ([1], None, "one for each of 4 images. Received: 1"),
        (1.5, None, "Received: 1.5"),
        (2**31, None, "Received: 2147483648"),
        (True, None, "Received: True"),
        (3, None, "Expected a class index below 3, .* Received: 3"),
        ("dog", ["cat", "dog"], "a list of 3 names.*list of 2"),
        ("dog", {"dog": 1}, "a list of 3 names.*dict of 1"),
        ("dog", [1, 2, 3], "a list of 3 names"),
    ],
)
def test_a_bad_target_is_refused(targets, labels, message):
    with pytest.raises(tfs.OptionError, match=message):
        tfs.saliency_map(_linear("softmax"), X, targets=targets, class_names=labels)
