"""Targets and class names, in all the forms in which people give them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers

import tfsaliency as tfs
from tfsaliency.engine.targets import resolve_targets

NAMES = ["cat", "dog", "cow"]
IMAGES = np.random.default_rng(0).normal(size=(4, 2, 2, 3)).astype("float32")


def _model(k=3, activation="softmax"):
    end = layers.Dense(k, activation=activation)
    return zoo.random_weights(keras.Sequential([keras.Input((2, 2, 3)), layers.Flatten(), end]))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (None, [-1, -1, -1, -1]),
        (2, [2, 2, 2, 2]),
        (np.int64(1), [1, 1, 1, 1]),
        (np.array(1), [1, 1, 1, 1]),
        (tf.constant(1), [1, 1, 1, 1]),
        (2.0, [2, 2, 2, 2]),
        ("dog", [1, 1, 1, 1]),
        (b"dog", [1, 1, 1, 1]),
        ([0, "cow", None, 1], [0, 2, -1, 1]),
        (np.array([2, 0, 1, 1]), [2, 0, 1, 1]),
        (tf.constant([2, 0, 1, 1]), [2, 0, 1, 1]),
        (np.array([2.0, 0.0, 1.0, 1.0]), [2, 0, 1, 1]),  # as a table of labels is read
        (np.array(["cow", "cat", "dog", "dog"]), [2, 0, 1, 1]),
        (np.array([[2], [0], [1], [1]]), [2, 0, 1, 1]),
        ([[2], [0], [1], [1]], [2, 0, 1, 1]),
        (np.eye(3)[[2, 0, 1, 1]], [2, 0, 1, 1]),
        (np.eye(3, dtype=int)[[2, 0, 1, 1]].tolist(), [2, 0, 1, 1]),
        (np.eye(3, dtype=bool)[[2, 0, 1, 1]], [2, 0, 1, 1]),
        ([0, 0, 0, 1], [0, 0, 0, 1]),
        (range(3, -1, -1), [3, 2, 1, 0]),
        (tf.constant("dog"), [1, 1, 1, 1]),
        (np.array("dog"), [1, 1, 1, 1]),
        (tf.constant([2, 0, 1, 1], tf.bfloat16), [2, 0, 1, 1]),
    ],
)
def test_a_form_with_one_reading(targets, expected):
    assert resolve_targets(targets, 4, NAMES, 3 if max(expected) < 3 else 4).tolist() == expected


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.eye(3, dtype=int)[1], r"like a one-hot code.*targets=int\(np.argmax\(targets\)\)"),
        (np.eye(3)[1].tolist(), r"one-hot code.*np.argmax"),
        (np.array([[0, 1], [2, 1]]), r"shape \(2, 2\).*np.argmax\(targets, axis=-1\)"),
        (np.full((4, 3), 1 / 3), r"probabilities.*np.argmax\(targets, axis=-1\)"),
        (np.eye(5)[[1, 2, 3, 4]], r"shape \(4, 5\)"),
        ([[0, 1], [1], 2, 1], r"Received: \[0, 1\] \(of type list\).*np.argmax"),
        ({0, 1, 2}, "in the order of the images.*Received: set"),
        ({"a": 1}, "Received: dict"),
        (True, "True and False are classes only of a model of two"),
        (1.5, "Received: 1.5"),
        (np.nan, "Received: nan"),
        ("3", "Unknown class name: '3'"),
        (range(5), "one for each of 4 images. Received: 5"),
        (np.array([[0, 1, 2, 1]]), r"np.ravel\(targets\)"),
        (np.ma.masked_array([0, 1, 2, 1], [0, 1, 0, 0]), "without masked values"),
        (3, r"a class index below 3.*Received: 3"),
        ([0, 1, 5, 7], r"Received: 5, 7"),
        (-1, "Received: -1"),
    ],
)
def test_a_form_with_none_or_several_is_refused(targets, message):
    with pytest.raises(tfs.OptionError, match=message):
        resolve_targets(targets, 4, NAMES, 3)


def test_a_one_hot_code_is_ambiguous_only_as_an_array():
    code = np.array([0, 0, 0, 1])
    with pytest.raises(tfs.OptionError, match="pass targets.tolist"):
        resolve_targets(code, 4, None, 4)
    assert resolve_targets(code.tolist(), 4, None, 4).tolist() == [0, 0, 0, 1]
    assert resolve_targets(code[:, np.newaxis], 4, None, 4).tolist() == [0, 0, 0, 1]
    assert resolve_targets(np.array([0, 1]), 2, None, 2).tolist() == [0, 1]
    assert resolve_targets([True, False], 2, None, 2).tolist() == [1, 0]


def test_a_name_in_another_case_is_that_of_the_same_case():
    assert resolve_targets(["Cat", "cat"], 2, ["cat", "Cat"]).tolist() == [1, 0]


def test_a_number_as_text_is_answered_with_the_int():
    with pytest.raises(tfs.OptionError, match="For class 3, pass the int 3"):
        resolve_targets("3", 1)


@pytest.mark.parametrize(
    ("names", "received"),
    [
        ({"cat", "dog", "cow"}, "set of 3"),
        ({"cat": 0}, "dict of 1"),
        ("cat", "str of 3"),
        (["cat", "dog"], "list of 2"),
        ([1, 2, 3], "list of 3"),
        (iter(NAMES), "unknown length"),
    ],
)
def test_class_names_without_an_order_are_refused(names, received):
    with pytest.raises(tfs.OptionError, match=f"a list of 3 names.*{received}"):
        tfs.saliency_map(_model(), IMAGES, class_names=names)


def test_class_names_may_be_any_sequence():
    for names in (tuple(NAMES), np.array(NAMES)):
        maps = tfs.saliency_map(_model(), IMAGES, class_names=names, targets="cow")
        assert maps.targets.tolist() == [2] * 4


@pytest.mark.parametrize("flat", [False, True], ids=["(n, 1)", "(n,)"])
def test_a_single_sigmoid_is_two_classes(flat):
    model = _model(1, "sigmoid")
    kernel, bias = model.get_weights()[0].reshape(2, 2, 3), model.get_weights()[1]
    if flat:
        model = keras.Sequential([model, layers.Reshape(())])
        model.build((None, 2, 2, 3))
    z = (IMAGES * kernel).sum((1, 2, 3)) + bias
    p = 1 / (1 + np.exp(-z))
    names = ["no", "yes"]
    maps = tfs.attributions(model, IMAGES, targets=["yes", "no", 1, 0], class_names=names)
    signs = np.array([1, -1, 1, -1], "float32")
    assert maps.targets.tolist() == [1, 0, 1, 0] and maps.meaning == "binary"
    assert maps.score == "logit (before the final sigmoid; minus that for class 0)"
    np.testing.assert_allclose(maps.scores, signs * z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        maps["gradient"], signs[:, None, None, None] * kernel[None], rtol=1e-5
    )
    slope = (p * (1 - p))[:, None, None, None] * kernel
    probability = tfs.attributions(model, IMAGES, score="probability", targets=0)
    np.testing.assert_allclose(probability.scores, 1 - p, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(probability["gradient"], -slope, rtol=1e-4, atol=1e-6)
    log = tfs.attributions(model, IMAGES, score="log_probability", targets=0)
    np.testing.assert_allclose(log.scores, np.log(1 - p), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        log["gradient"], -p[:, None, None, None] * kernel, rtol=1e-4, atol=1e-7
    )
    # The larger of two logits minus the other: sigmoid(z) is softmax(0, z).
    margin = tfs.saliency_map(model, IMAGES, score="margin", targets=1)
    np.testing.assert_allclose(margin.scores, z, rtol=1e-5, atol=1e-6)
    top = tfs.saliency_map(model, IMAGES)
    assert len(set(top.targets.tolist())) == 2
    assert top.targets.tolist() == (p > 0.5).astype(int).tolist()
    np.testing.assert_allclose(top.class_values(0), [1 - p[0], p[0]], rtol=1e-5, atol=1e-6)
    with pytest.raises(tfs.OptionError, match="Of a single sigmoid output, the classes"):
        tfs.saliency_map(model, IMAGES, targets=2)
    with pytest.raises(tfs.OptionError, match="a list of 2 names"):
        tfs.saliency_map(model, IMAGES, class_names=["yes"])


@pytest.mark.parametrize(
    "labels", [np.array([0, 1, 1, 0]), np.array([[0], [1], [1], [0]]), np.array([0.0, 1, 1, 0])]
)
def test_label_batches_of_zeros_and_ones(labels):
    model = _model(1, "sigmoid")
    (maps,) = tfs.saliency_map_batches(model, [(IMAGES, labels)], targets="labels")
    assert maps.targets.tolist() == [0, 1, 1, 0]


def test_one_hot_label_batches():
    codes = np.eye(3)[[2, 0, 1, 1]]
    (maps,) = tfs.saliency_map_batches(_model(), [(IMAGES, codes)], targets="labels")
    assert maps.targets.tolist() == [2, 0, 1, 1]


def test_labels_of_a_batch_are_no_one_hot_code():
    (maps,) = tfs.saliency_map_batches(
        _model(), [(IMAGES[:3], np.array([0, 1, 0]))], targets="labels"
    )
    assert maps.targets.tolist() == [0, 1, 0]


def test_several_sigmoids_are_labels_each_with_its_own_logit():
    model = _model(3, "sigmoid")
    kernel, _ = model.get_weights()
    for target in range(3):
        maps = tfs.attributions(model, IMAGES, targets=target)
        np.testing.assert_allclose(
            maps["gradient"], np.tile(kernel[:, target].reshape(2, 2, 3), (4, 1, 1, 1)), rtol=1e-5
        )
    assert maps.meaning == "labels"
