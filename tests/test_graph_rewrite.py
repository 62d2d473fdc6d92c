"""The graph engine: ReLUs that no clone reaches, against a backward pass in plain NumPy."""

import gc
import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers
from setups import slow_but

import tfsaliency as tfs

RULES = zoo.RULES


def _reference(model, x, targets, rule, form):
    pairs = zip(x, targets, strict=True)
    return np.stack([zoo.reference_gradient(model, i, t, rule, form)[1] for i, t in pairs])


@pytest.mark.parametrize("dtype", slow_but(["float64", "float32"], "float64"))
@pytest.mark.parametrize("spelling", zoo.HIDDEN)
def test_hidden_relus_equal_the_numpy_reference(spelling, dtype):
    build, form = zoo.HIDDEN[spelling]
    model = build(dtype)
    x, targets = zoo.images(), [1, 3]
    # The batch that TimeDistributed passes to a ReLU is not a batch of images.
    rules = RULES if "TimeDistributed" in spelling else list(tfs.RULES)
    together = tfs.attributions(model, x, rules, targets=targets, on_problem="ignore")
    for rule in rules:
        zoo.assert_equal_to_reference(
            rule, together[rule], _reference(model, x, targets, rule, form), zoo.TOLERANCE[dtype]
        )
        coverage = together.coverage[rule]
        assert coverage.engine == "graph" and coverage.reached == coverage.relus >= 2


TYPICAL = ("custom layer, keras.ops.relu", "cond in a function in a while_loop", "subclassed model")


@pytest.mark.parametrize("spelling", slow_but(zoo.HIDDEN, *TYPICAL))
def test_rules_in_one_call_equal_those_alone(spelling):
    model, x = zoo.HIDDEN[spelling].build("float64"), zoo.images()
    rules = RULES if "TimeDistributed" in spelling else list(tfs.RULES)
    options = {"targets": [1, 3], "on_problem": "ignore"}
    together = tfs.attributions(model, x, rules, **options)
    for rule in reversed(rules):
        alone = tfs.attributions(model, x, rule, **options)[rule]
        zoo.assert_equal_to_reference(rule, together[rule], alone, 1e-6)


@pytest.mark.parametrize("wrapping", zoo.WRAPPED)
def test_what_is_no_model_of_layers_equals_the_numpy_reference(wrapping, tmp_path):
    model = zoo.SPELLINGS["Conv2D(activation='relu')"].build("float32")
    wrapped = zoo.WRAPPED[wrapping](model, tmp_path / "saved")
    x, targets = zoo.images(), [1, 3]
    ours = tfs.attributions(wrapped, x, RULES, targets=targets)
    for rule in RULES:
        zoo.assert_equal_maps(ours[rule], _reference(model, x, targets, rule, {}), 1e-4)
        assert ours.coverage[rule].relus == 2
    # The value before the softmax is found through the wrapper, for the plain gradient too.
    alone = tfs.attributions(wrapped, x, "gradient", targets=targets)
    zoo.assert_equal_maps(alone["gradient"], ours["gradient"], 1e-6)
    assert alone.score == ours.score == "logit (before the final softmax)"


def test_a_relu_in_a_recurrent_cell():
    x = i = keras.Input((6, 3), dtype="float64")
    x = layers.SimpleRNN(4, activation="relu", dtype="float64")(x)
    model = zoo.random_weights(keras.Model(i, layers.Dense(2, dtype="float64")(x)))
    kernel, recurrent, bias, out, _ = model.get_weights()
    sequence = np.random.default_rng(3).normal(0, 1, (6, 3))
    states = [np.zeros(4)]
    for step in sequence:
        states.append(np.maximum(step @ kernel + bias + states[-1] @ recurrent, 0))
    for rule in RULES:
        upstream, expected = out[:, 1], np.zeros((6, 3))
        for t in reversed(range(6)):
            u = upstream if rule == "gradient" else np.maximum(upstream, 0)
            z = u if rule == "zeiler_fergus" else u * (states[t + 1] > 0)
            expected[t], upstream = kernel @ z, recurrent @ z
        ours = tfs.attributions(model, sequence[None], RULES, targets=1)
        zoo.assert_equal_maps(ours[rule][0], expected, 1e-9)
        assert ours.coverage[rule].engine == "graph"


def test_the_present_weights_are_used():
    model = zoo.HIDDEN["custom layer, keras.ops.relu"].build("float64")
    x = zoo.images()
    prepared = tfs.prepare(model)
    for change in (0.0, 0.1, -0.2):
        model.set_weights([w + change for w in model.get_weights()])
        ours = tfs.attributions(prepared, x, RULES, targets=[1, 3])
        for rule in RULES:
            zoo.assert_equal_maps(ours[rule], _reference(model, x, [1, 3], rule, {}), 1e-9)


def test_other_weights_are_arguments():
    model = zoo.HIDDEN["cond in a function in a while_loop"].build("float64")
    x, targets = zoo.images(), np.array([1, 3], "int32")
    prepared = tfs.prepare(model)
    trace = prepared.trace([tfs.METHODS[name] for name in zoo.RULES], prepared.check(x))
    kept = model.get_weights()
    other = [w * 0.5 + 0.1 for w in kept]
    result = trace.run_with(other, [x], targets, tf.constant(1.0))
    assert all(np.array_equal(a, b) for a, b in zip(kept, model.get_weights(), strict=True))
    model.set_weights(other)
    for rule, ours in zip(RULES, result.gradients, strict=True):
        zoo.assert_equal_maps(ours, _reference(model, x, targets, rule, {}), 1e-9)


def test_the_weights_of_a_saved_model_are_read_at_every_call(tmp_path):
    model = zoo.SPELLINGS["Conv2D(activation='relu')"].build("float32")
    wrapped = zoo.WRAPPED["TFSMLayer"](model, tmp_path / "saved")
    x = zoo.images()
    prepared = tfs.prepare(wrapped)
    trace = prepared.trace([tfs.METHODS[name] for name in zoo.RULES], prepared.check(x))
    others = [w * 0.5 + 0.1 for w in wrapped.get_weights()]
    targets = np.array([1, 3], "int32")
    given = trace.run_with(others, [x.astype("float32")], targets, tf.constant(1.0))
    changed = [w * 0.5 + 0.1 for w in model.get_weights()]
    for variable in wrapped.weights:
        (index,) = [
            i for i, w in enumerate(model.get_weights()) if np.array_equal(w, variable.numpy())
        ]
        variable.assign(changed[index])
    model.set_weights(changed)
    ours = tfs.attributions(prepared, x, RULES, targets=[1, 3])
    for rule, by_weights in zip(RULES, given.gradients, strict=True):
        reference = _reference(model, x, [1, 3], rule, {})
        zoo.assert_equal_maps(ours[rule], reference, 1e-4)
        zoo.assert_equal_maps(by_weights.numpy(), reference, 1e-4)


def test_a_gradient_of_the_models_own_is_carried_over_or_refused():
    @tf.custom_gradient
    def same(x):  # like tf.nn.silu: the derivative by another formula
        return x * tf.sigmoid(x), lambda u: u * tf.sigmoid(x) * (1 + x * (1 - tf.sigmoid(x)))

    @tf.custom_gradient
    def other(x):
        return tf.round(x), lambda u: u

    models = [
        zoo.HIDDEN["custom layer, keras.ops.relu"].build("float64"),
        zoo._body(lambda x, d: zoo.Calls(lambda h: same(tf.nn.relu(h)), dtype=d)(x))("float64"),
        zoo._body(lambda x, d: zoo.Calls(lambda h: other(tf.nn.relu(h)), dtype=d)(x))("float64"),
    ]
    x = zoo.images()
    expected = tfs.attributions(models[1], x, targets=1)["gradient"]
    method = tfs.Method("rule of one's own", lambda upstream, site: site.backward(upstream))
    maps = tfs.attributions(models[1], x, method, targets=1)
    assert maps.coverage[method.name].engine == "graph"
    zoo.assert_equal_maps(maps[method.name], expected, 1e-12)
    with pytest.raises(tfs.ModelError, match="custom_gradient"):
        tfs.attributions(models[2], x, "guided_backprop", targets=1)


def _hidden_with(gradient_of):
    """A ReLU and a custom gradient that no clone reaches; zero for a black image."""

    @tf.custom_gradient
    def own(x):
        return x, gradient_of

    i = keras.Input((4, 4, 3))
    h = zoo.Calls(lambda x: own(tf.nn.relu(x)))(layers.Conv2D(3, 1, use_bias=False)(i))
    return zoo.random_weights(keras.Model(i, layers.Dense(2)(layers.Flatten()(h))))


@pytest.mark.parametrize(
    "gradient_of", [lambda u: -u, lambda u: tf.clip_by_value(u, -0.5, 0.5), lambda u: u / 0.0],
    ids=["reversed", "clipped", "NaN"],
)  # fmt: skip
def test_another_gradient_is_noticed_behind_a_black_image(gradient_of):
    images = np.stack([np.zeros((4, 4, 3)), np.random.default_rng(0).normal(0, 1, (4, 4, 3))])
    with pytest.raises(tfs.ModelError, match="custom_gradient"):
        tfs.saliency_map(_hidden_with(gradient_of), images, "guided_backprop")


def test_a_clone_that_differs_is_noticed_behind_a_black_image():
    class Looks(layers.Layer):
        """A layer whose computation depends on the identity of its activation."""

        def __init__(self):
            super().__init__()
            self.activation = keras.activations.relu

        def call(self, x):
            scale = 1.0 if self.activation is keras.activations.relu else 2.0
            return scale * self.activation(x)

    i = keras.Input((4, 4, 3))
    model = keras.Model(i, layers.Dense(2)(layers.Flatten()(Looks()(i))))
    with pytest.raises(tfs.ModelError, match="does not compute what the model computes"):
        tfs.saliency_map(model, np.zeros((1, 4, 4, 3)), "guided_backprop")


def test_an_op_without_a_gradient_is_named():
    def unbatch(x):
        return tf.raw_ops.Unbatch(
            batched_tensor=tf.nn.relu(x), batch_index=[[0]], id=0, timeout_micros=1
        )

    with pytest.raises(tfs.ModelError, match="No gradient defined.*Unbatch"):
        tfs.saliency_map(zoo._calls(unbatch).build("float32"), zoo.images(), "guided_backprop")


def test_marks_change_no_other_models_gradient():
    model = zoo.HIDDEN["custom layer, tf.nn.relu"].build("float32")
    x = tf.constant(zoo.images(), tf.float32)

    def bare():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x)
        return tape.gradient(y, x).numpy()

    before = bare()
    tfs.saliency_map(model, x, RULES)
    np.testing.assert_array_equal(bare(), before)


def test_two_threads_at_once():
    models = [
        zoo.SPELLINGS["nested"].build("float64"),
        zoo.HIDDEN["cond in a function in a while_loop"].build("float64"),
    ]
    x = zoo.images()
    expected = [
        {rule: _reference(model, x, [1, 3], rule, {}) for rule in RULES} for model in models
    ]
    wrong = []

    def explain(offset):
        for turn in range(6):
            rule, which = RULES[(turn + offset) % 3], (turn + offset) % 2
            # Traced anew each time, besides the kept traces of the model.
            for model in (tfs.prepare(models[which]), models[which]):
                ours = tfs.attributions(model, x, rule, targets=[1, 3])[rule]
                reference = expected[which][rule]
                if np.abs(ours - reference).max() > 1e-9 * np.abs(reference).max():
                    wrong.append((offset, turn, rule))

    threads = [threading.Thread(target=explain, args=(offset,)) for offset in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nothing_stays_behind_when_the_model_goes():
    watched = []
    for spelling in ("custom layer, keras.ops.relu", "while_loop", "subclassed model"):
        model = zoo.HIDDEN[spelling].build("float32")
        tfs.saliency_map(model, zoo.images(), RULES)
        watched += [weakref.ref(model), weakref.ref(model.weights[0])]
        del model
    gc.collect()
    assert [reference() for reference in watched] == [None] * len(watched)
