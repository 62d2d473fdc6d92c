"""The trace: a pure function of weights, images and targets; and the same in a fresh process."""

import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf
import zoo

import tfsaliency as tfs

RULES = zoo.RULES


SCALE = tf.constant(1.0)


def _trace(model, x):
    prepared = tfs.prepare(model)
    return prepared.trace([tfs.METHODS[name] for name in zoo.RULES], prepared.check(x))


def test_other_weights_are_arguments():
    model = zoo.SPELLINGS["nested"].build("float64")
    other = zoo.random_weights(keras.models.clone_model(model), seed=9)
    x, targets = zoo.images(), np.array([1, 2], "int32")
    kept = model.get_weights()
    trace = _trace(model, x)
    own = trace.run_with([None] * len(kept), [x], targets, SCALE)
    result = trace.run_with(other.get_weights(), [x], targets, SCALE)
    unchanged = tfs.attributions(model, x, RULES, targets=targets)
    for ours, name in zip(own.gradients, RULES, strict=True):
        np.testing.assert_array_equal(ours, unchanged[name])
    expected = tfs.attributions(other, x, RULES, targets=targets)
    for ours, name in zip(result.gradients, RULES, strict=True):
        np.testing.assert_allclose(ours, expected[name], rtol=1e-12, atol=1e-14)
    assert all(np.array_equal(a, b) for a, b in zip(kept, model.get_weights(), strict=True))


def test_weights_are_those_given_last_however_they_are_mixed():
    """Arrays that are passed again are not copied again; other arrays are."""
    model = zoo.SPELLINGS["Sequential"].build("float64")
    x, targets = zoo.images(), np.array([1, 2], "int32")
    one, two = (zoo.random_weights(keras.models.clone_model(model), seed=s) for s in (8, 9))
    a, b = one.get_weights(), two.get_weights()
    trace = _trace(model, x)
    half = len(a) // 2
    for given in (a, b, a, [*a[:half], *b[half:]], [None] * half + a[half:], b):
        mixed = [
            own if new is None else new for own, new in zip(model.get_weights(), given, strict=True)
        ]
        two.set_weights(mixed)
        expected = tfs.attributions(two, x, RULES, targets=targets)
        found = trace.run_with(given, [x], targets, SCALE)
        for ours, name in zip(found.gradients, RULES, strict=True):
            np.testing.assert_allclose(ours, expected[name], rtol=1e-12, atol=1e-14)


def test_the_bound_trace_equals_the_pure_one():
    model = zoo.SPELLINGS["ReLU layer"].build("float64")
    x, targets = tf.constant(zoo.images()), tf.constant([3, 0])
    trace = _trace(model, x.numpy())
    bound = trace.run([x], targets, SCALE)
    pure = trace.run_with(model.get_weights(), [x], targets, SCALE)
    for a, b in zip(tf.nest.flatten(bound), tf.nest.flatten(pure), strict=True):
        np.testing.assert_array_equal(a, b)


FRESH = """
import sys
import keras, numpy as np
import tfsaliency as tfs
for path in sys.argv[1:]:
    model = keras.saving.load_model(path, compile=False)
    x = np.load(path.replace("keras", "npy"))
    rules = ["gradient", "guided_backprop", "zeiler_fergus"]
    tfs.attributions(model, x, rules, targets=1).save(path.replace("keras", "npz"))
"""


def test_after_fit_set_weights_and_assign_the_maps_are_those_of_a_fresh_process(tmp_path):
    model = zoo.SPELLINGS["Conv2D(activation='relu')"].build("float32")
    x = zoo.images().astype("float32")
    model.compile("adam", "sparse_categorical_crossentropy")
    changes = {
        "before": lambda: None,
        "fit": lambda: model.fit(x, np.array([0, 1]), epochs=3, verbose=0),
        "set_weights": lambda: model.set_weights([w * 1.5 for w in model.get_weights()]),
        "assign": lambda: model.layers[1].kernel.assign(-model.layers[1].kernel),
    }
    ours, paths = {}, {}
    for name, change in changes.items():
        change()
        ours[name] = tfs.attributions(model, x, zoo.RULES, targets=1)
        paths[name] = tmp_path / f"{name}.keras"
        model.save(paths[name])
        np.save(paths[name].with_suffix(".npy"), x)
    subprocess.run([sys.executable, "-c", FRESH, *map(str, paths.values())], check=True)
    for name, path in paths.items():
        fresh = tfs.SaliencyMaps.load(path.with_suffix(".npz"))
        for method in zoo.RULES:
            np.testing.assert_allclose(ours[name][method], fresh[method], rtol=1e-6, atol=1e-9)
    for name in ("fit", "set_weights", "assign"):
        largest = np.abs(ours["before"]["gradient"]).max()
        assert np.abs(ours[name]["gradient"] - ours["before"]["gradient"]).max() > 1e-4 * largest


def test_a_whole_network_against_tensorflows_own_gradient_registry(exact_squeezenet, data):
    """Guided backprop and Zeiler-Fergus of SqueezeNet by tf.gradients and overridden Relu ops."""
    squeezenet = exact_squeezenet
    photos = sorted((data / "imagenet").glob("*.JPEG"))[:2]
    pixels = tfs.load_images(photos, squeezenet).astype(np.float64)
    x = tfs.models.squeezenet.preprocess_input(pixels)

    @tf.RegisterGradient("TestGuided")
    def _guided(op, upstream):
        positive = tf.cast(op.outputs[0] > 0, upstream.dtype) * tf.cast(
            upstream > 0, upstream.dtype
        )
        return upstream * positive

    @tf.RegisterGradient("TestZeiler")
    def _zeiler(op, upstream):
        return tf.where(upstream > 0, upstream, 0.0)

    ours = tfs.attributions(squeezenet, x, ["guided_backprop", "zeiler_fergus"], targets=5)
    for method, gradient in (("guided_backprop", "TestGuided"), ("zeiler_fergus", "TestZeiler")):

        @tf.function
        def reference(images, gradient=gradient):
            with tf.compat.v1.get_default_graph().gradient_override_map({"Relu": gradient}):
                logits = squeezenet(images, training=False).op.inputs[0]
            return tf.gradients(logits[:, 5], images)[0]

        expected = reference(tf.constant(x)).numpy()
        assert np.abs(ours[method] - expected).max() <= 1e-9 * np.abs(expected).max()
