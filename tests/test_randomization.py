"""Randomizers, plans, and models with new weights."""

import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import zoo
from keras import layers
from scipy import stats

import tfsaliency as tfs
from tfsaliency.sanity.plans import Step, assemble_weights, order_by_use, plan_steps
from tfsaliency.sanity.randomizers import draw_weights, normal, truncated_normal
from tfsaliency.sanity.units import list_units


class Block(layers.Layer):
    """A layer with its own weights, an initializer with a fixed seed, and an inner layer."""

    def __init__(self, width=3, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.inner = layers.Conv2D(width, 3, padding="same", activation="relu")

    def build(self, shape):
        fixed = keras.initializers.RandomNormal(seed=3)
        self.scale = self.add_weight(shape=(shape[-1],), initializer=fixed, name="scale")
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x * self.scale)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


class Backwards(keras.Model):
    """Layers listed in another order than that of execution, one of them unused."""

    def __init__(self):
        super().__init__()
        self.last = layers.Dense(3, name="last")
        self.unused = layers.Dense(2, name="unused")
        self.first = layers.Dense(4, activation="relu", name="first")

    def call(self, x):
        hidden = self.first(keras.ops.reshape(x, (-1, 48)))
        self.unused(hidden)
        return self.last(hidden)


def _nested():
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(3, 3, name="conv"), layers.ReLU()], name="inner"
    )
    shared = layers.Conv2D(3, 1, name="shared")
    i = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="bn")(shared(i))
    x = Block(name="block")(shared(x))
    x = layers.Flatten()(inner(x))
    return zoo.random_weights(keras.Model(i, layers.Dense(2, name="top")(x), name="outer"), seed=1)


def _names(model):
    return [unit.path for unit in list_units(model)]


def test_layers_in_nested_models_and_custom_layers_count_and_shared_ones_once():
    model = _nested()
    assert _names(model) == ["shared", "bn", "block", "block/conv2d", "inner/conv", "top"] or (
        [name.split("_")[0] for name in _names(model)]
        == ["shared", "bn", "block", "block/conv2d", "inner/conv", "top"]
    )
    bn = list_units(model)[1]
    assert [w.name for w in bn.parameters] == ["gamma", "beta"]
    assert [w.name for w in bn.statistics] == ["moving_mean", "moving_variance"]


def test_frozen_layers_count_and_statistics_alone_do_not():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Normalization(), layers.Dense(3, trainable=False, name="dense")]
    )
    model.trainable = False
    (unit,) = list_units(model)
    assert (unit.path, len(unit.parameters)) == ("dense", 2)


def test_the_order_is_that_of_use_where_layers_cannot_be_seen():
    model = Backwards()
    x = np.zeros((1, 4, 4, 3), "float32")
    model(x)
    prepared = tfs.prepare(model)
    trace = prepared.trace([tfs.METHODS["gradient"]], prepared.check(x))
    units = list_units(model)
    order = order_by_use(model, units, trace.used)
    assert [units[position].path for position in order] == ["first", "last"]


def test_plans():
    units = list_units(_nested())
    order = (0, 1, 2, 3, 4, 5)
    cascade = plan_steps("cascade", units, order)
    assert [step.units for step in cascade[:2]] == [(5,), (4, 5)]
    assert cascade[-1] == Step("shared", order)
    assert [s.units for s in plan_steps("bottom_up", units, order)[:2]] == [(0,), (0, 1)]
    assert [s.units for s in plan_steps("independent", units, order)[:2]] == [(5,), (4,)]
    assert plan_steps("all", units, order) == (Step("all layers", order),)
    steps = plan_steps(["inner", ("top", "shared"), "block"], units, order)
    assert steps == (Step("inner", (4,)), Step("top + shared", (0, 5)), Step("block", (2, 3)))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("casscade", "Unknown plan or layer: 'casscade'. Did you mean 'cascade'"),
        (["topp"], "Unknown layer with weights: 'topp'. Did you mean 'top'"),
        ([], "Expected names of different layers"),
        (["top", "top"], "Expected names of different layers"),
    ],
)
def test_errors_of_plans(plan, message):
    with pytest.raises(tfs.OptionError, match=message):
        plan_steps(plan, list_units(_nested()), range(6))


def test_a_layer_that_the_score_does_not_depend_on_is_no_step():
    with pytest.raises(tfs.OptionError, match="does not depend on the weights of 'top'"):
        plan_steps(["top"], list_units(_nested()), range(5))


@pytest.fixture(scope="module")
def dense():
    layer = layers.Dense(300, kernel_initializer="glorot_uniform")
    layer.build((None, 200))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.gamma(2.0, 0.3, (200, 300)), rng.normal(1.0, 2.0, 300)])
    (unit,) = list_units(layer)
    return unit


def _kernel(unit, draw, seed=0):
    return draw_weights(
        unit, tfs.RANDOMIZERS[draw] if isinstance(draw, str) else draw, seed
    ).arrays[0]


def test_draws_have_the_distribution_of_their_name(dense):
    trained = dense.parameters[0].numpy()
    assert stats.kstest(_kernel(dense, normal(0.05)).ravel() / 0.05, "norm").pvalue > 0.01
    truncated = _kernel(dense, truncated_normal(0.05)).ravel() / 0.05
    assert stats.kstest(truncated, stats.truncnorm(-2, 2).cdf).pvalue > 0.01
    matched = _kernel(dense, "matched")
    standard = (matched - trained.mean()) / trained.std()
    assert stats.kstest(standard.ravel(), "norm").pvalue > 0.01
    limit = np.sqrt(6 / 500)
    own = _kernel(dense, "initializer").ravel()
    assert stats.kstest(own, stats.uniform(-limit, 2 * limit).cdf).pvalue > 0.01
    he = _kernel(dense, "he").ravel()  # truncated at 2 of its standard deviations before scaling
    np.testing.assert_allclose(he.std(), np.sqrt(2 / 200), rtol=0.01)
    permuted = _kernel(dense, "permutation")
    np.testing.assert_array_equal(np.sort(permuted, None), np.sort(trained, None))
    assert np.mean(permuted == trained) < 0.01
    # Over all entries: no row keeps its own.
    assert stats.kstest(permuted.mean(axis=1), trained.mean(axis=1)).pvalue < 1.1
    assert np.corrcoef(permuted.mean(axis=1), trained.mean(axis=1))[0, 1] < 0.3


def test_biases_are_drawn_too(dense):
    assert np.std(draw_weights(dense, normal(0.01), 0).arrays[1]) == pytest.approx(0.01, rel=0.15)
    assert not draw_weights(dense, tfs.RANDOMIZERS["initializer"], 0).arrays[1].any()


@pytest.mark.parametrize("draw", tfs.RANDOMIZERS)
def test_every_1x1_kernel_changes(draw, squeezenet):
    for position, unit in enumerate(list_units(squeezenet)):
        drawn = draw_weights(unit, tfs.RANDOMIZERS[draw], 0, position)
        assert not drawn.unchanged
        kernel = unit.parameters[0].numpy()
        share = np.mean(drawn.arrays[0].astype("float32") == kernel)
        assert share < 0.01, (unit.path, share)


@pytest.mark.parametrize("draw", tfs.RANDOMIZERS)
def test_a_draw_is_pure(draw):
    model = _nested()
    before = [w.numpy().copy() for w in model.weights]
    name = layers.Conv2D(1, 1).name
    states = random.getstate(), np.random.get_state()[1].copy()
    drawn = [draw_weights(u, tfs.RANDOMIZERS[draw], 5, p) for p, u in enumerate(list_units(model))]
    again = [draw_weights(u, tfs.RANDOMIZERS[draw], 5, p) for p, u in enumerate(list_units(model))]
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    number = int(name.rpartition("_")[2]) if "_" in name else 0
    assert layers.Conv2D(1, 1).name == f"conv2d_{number + 1}"  # the very next
    for a, b in zip(drawn, again, strict=True):
        for x, y in zip(a.arrays, b.arrays, strict=True):
            assert (x is None and y is None) or (x == y).all()
    other = draw_weights(list_units(model)[5], tfs.RANDOMIZERS[draw], 6, 5)
    assert not np.array_equal(other.arrays[0], drawn[5].arrays[0])
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, weight.numpy())


def test_initializers_of_a_fixed_seed_draw_fresh_values():
    layer = layers.Dense(5, kernel_initializer=keras.initializers.GlorotUniform(seed=1))
    layer.build((None, 4))
    drawn = draw_weights(list_units(layer)[0], tfs.RANDOMIZERS["initializer"], 0)
    assert not np.isin(drawn.arrays[0], layer.kernel.numpy()).any()
    block = Block()
    block.build((None, 8, 8, 3))
    drawn = draw_weights(list_units(block)[0], tfs.RANDOMIZERS["initializer"], 0)
    assert not np.isin(drawn.arrays[0], block.scale.numpy()).any()


def test_batch_normalization():
    layer = layers.BatchNormalization()
    layer.build((None, 7))
    layer.set_weights([np.arange(1.0, 8) + i for i in range(4)])
    (unit,) = list_units(layer)
    own = draw_weights(unit, tfs.RANDOMIZERS["initializer"], 0).arrays
    assert [set(np.unique(a)) for a in own] == [{1}, {0}, {0}, {1}]
    for draw in ("normal", "permutation", "matched", "truncated_normal"):
        gamma, _, mean, variance = draw_weights(unit, tfs.RANDOMIZERS[draw], 0).arrays
        assert (mean, variance) == (None, None)
        assert not np.array_equal(gamma, unit.parameters[0].numpy())


def test_what_has_one_value_only_is_said_to_be_unchanged():
    layer = layers.Dense(3, name="fresh")
    layer.build((None, 2))
    for draw in ("initializer", "permutation", "matched"):
        drawn = draw_weights(list_units(layer)[0], tfs.RANDOMIZERS[draw], 0)
        assert drawn.unchanged == ("fresh/bias",)


def test_what_could_have_changed_and_did_not_is_an_error(dense):
    kept = tfs.Randomizer("kept", lambda unit, rng: [w.numpy() for w in unit.parameters])
    with pytest.raises(tfs.OptionError, match="randomizer 'kept' returned the current values of"):
        draw_weights(dense, kept, 0)
    short = tfs.Randomizer("short", lambda unit, rng: [np.zeros(3), None])
    with pytest.raises(tfs.OptionError, match=r"an array \(200, 300\).*Received: shape \(3,\)"):
        draw_weights(dense, short, 0)


@pytest.mark.parametrize("returned", [[], 3, [None] * 3])
def test_a_draw_returns_a_list_of_arrays(returned, dense):
    with pytest.raises(tfs.OptionError, match="Expected randomizer 'odd' to return a list"):
        draw_weights(dense, tfs.Randomizer("odd", lambda unit, rng: returned), 0)
    bad = tfs.Randomizer(
        "bad", lambda unit, rng: [np.full(w.shape, np.nan) for w in unit.parameters]
    )
    with pytest.raises(tfs.OptionError, match="finite weights"):
        draw_weights(dense, bad, 0)


@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_seeds_are_whole_numbers(seed, dense):
    with pytest.raises(tfs.OptionError, match="Expected a seed as a whole number"):
        draw_weights(dense, normal(), seed)
    with pytest.raises(tfs.OptionError, match="standard deviation above 0"):
        normal(-1.0)


def test_the_forget_gate_of_an_lstm_is_drawn_as_keras_does():
    layer = layers.LSTM(3)
    layer.build((None, 5, 2))
    (unit,) = list_units(layer)
    drawn = draw_weights(unit, tfs.RANDOMIZERS["initializer"], 0)
    assert (
        drawn.arrays[2].tolist() == layer.cell.bias.numpy().tolist() == [0] * 3 + [1] * 3 + [0] * 6
    )
    assert drawn.unchanged == ("lstm_cell/bias",) or drawn.unchanged[0].endswith("/bias")


@pytest.mark.parametrize("draw", ["initializer", "he", "matched"])
def test_layers_with_functions_that_keras_does_not_know(draw):
    def squash(x):
        return keras.ops.tanh(x)

    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.SpectralNormalization(layers.Conv2D(4, 3, name="inner"), name="sn"),
            layers.Conv2D(4, 3, activation=squash, name="conv"),
            layers.Flatten(),
            layers.Dense(2, activation=lambda x: x * 2, name="top"),
        ]
    )
    assert _names(model) == ["sn/inner", "conv", "top"]
    for position, unit in enumerate(list_units(model)):
        drawn = draw_weights(unit, tfs.RANDOMIZERS[draw], 0, position)
        assert not np.isin(drawn.arrays[0], unit.parameters[0].numpy()).any()
    fresh = tfs.randomize_layer(model.layers[1], randomizer=draw)
    assert fresh.get_config() == model.layers[1].get_config()


def test_a_layer_without_config_is_refused_by_name():
    class Bare(layers.Layer):
        def __init__(self, width):
            super().__init__(name="bare")
            self.w = self.add_weight(shape=(width,), initializer="ones")

    (unit,) = list_units(Bare(3))
    with pytest.raises(
        tfs.OptionError,
        match=r"rebuild the layer 'bare'.*Use randomizer='matched' or 'permutation'",
    ):
        draw_weights(unit, tfs.RANDOMIZERS["initializer"], 0)
    assert draw_weights(unit, tfs.RANDOMIZERS["normal"], 0).arrays[0].shape == (3,)


DRAWN = """
import json
import keras, tfsaliency as tfs
from tfsaliency.sanity.randomizers import draw_weights
from tfsaliency.sanity.units import list_units

model = keras.Sequential(
    [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]
)
drawn = [
    draw_weights(unit, randomizer, 1, position).arrays[0].tolist()
    for name, randomizer in tfs.RANDOMIZERS.items()
    if name not in ("permutation", "matched")
    for position, unit in enumerate(list_units(model))
]
print(json.dumps(drawn))
"""


def test_seeds_come_from_positions_and_not_from_names(capsys):
    """Weights are the same in a fresh process, where layers have other names."""
    layers.Dense(1), layers.Dense(1)
    random.random()
    exec(compile(DRAWN, "drawn", "exec"), {})
    here = capsys.readouterr().out
    run = subprocess.run([sys.executable, "-c", DRAWN], capture_output=True, text=True, check=True)
    assert run.stdout == here and len(here) > 500


def test_randomize_layer_returns_another_layer():
    layer = layers.Conv2D(4, 1, activation="relu", name="conv")
    layer.build((None, 8, 8, 3))
    kept = layer.get_weights()
    fresh = tfs.randomize_layer(layer, randomizer=normal(0.5), seed=3)
    assert (type(fresh), fresh.name, fresh.get_config()) == (
        layers.Conv2D,
        "conv",
        layer.get_config(),
    )
    for old, present, new in zip(kept, layer.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(old, present)
        assert (new != old).all()
    expected = draw_weights(list_units(layer)[0], normal(0.5), 3).arrays[0]
    np.testing.assert_array_equal(fresh.kernel.numpy(), expected.astype("float32"))


def test_the_original_changes_two_layers_of_squeezenet(squeezenet):
    kept = squeezenet.get_weights()
    fresh, names = tfs.randomize_model_parameters(squeezenet, "fire9-expand3x3", 7)
    assert names == ["fire9-expand3x3", "conv10"]
    assert all(np.array_equal(a, b) for a, b in zip(kept, squeezenet.get_weights(), strict=True))
    changed = {
        weight.path.split("/")[0]
        for weight, old in zip(fresh.weights, kept, strict=True)
        if not np.array_equal(weight.numpy(), old)
    }
    assert changed == set(names)
    assert [layer.name for layer in fresh.layers] == [layer.name for layer in squeezenet.layers]
    for name in names:
        assert fresh.get_layer(name).kernel.numpy().std() == pytest.approx(0.01, rel=0.02)
        assert fresh.get_layer(name).bias.numpy().std() == pytest.approx(0.01, rel=0.2)
    index = [layer.name for layer in squeezenet.layers].index("fire9-expand3x3")
    again, by_index = tfs.randomize_model_parameters(squeezenet, index, 7)
    assert by_index == names
    assert all(
        np.array_equal(a, b) for a, b in zip(again.get_weights(), fresh.get_weights(), strict=True)
    )


def test_paths_into_nested_models():
    model = _nested()
    fresh, names = tfs.randomize_model_parameters(model, "inner/conv")
    assert names == ["inner/conv"]
    changed = [
        old.path
        for old, new in zip(model.weights, fresh.weights, strict=True)
        if not np.array_equal(old.numpy(), new.numpy())
    ]
    assert len(changed) == 2 and all("conv" in path for path in changed)
    _, names = tfs.randomize_model_parameters(model, "inner")
    assert names == ["inner/conv"]
    _, names = tfs.randomize_model_parameters(model, "block")
    assert [name.split("_")[0] for name in names] == ["block", "block/conv2d"]


def test_a_copy_keeps_what_is_no_weight():
    statistics = layers.Normalization()
    statistics.adapt(np.random.default_rng(0).normal(3, 2, (50, 4)))
    model = keras.Sequential([keras.Input((4,)), statistics, layers.Dense(2, name="top")])
    fresh, _ = tfs.randomize_model_parameters(model, "top")
    fresh.layers[-1].set_weights(model.layers[-1].get_weights())
    x = np.random.default_rng(1).normal(3, 2, (5, 4))
    np.testing.assert_allclose(fresh.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("start", "count", "message"),
    [
        ("topp", 0, "Unknown layer of 'outer': 'topp'. Did you mean 'top'"),
        ("inner/cnov", 0, "Unknown layer of 'inner': 'cnov'. Did you mean 'conv'"),
        (99, 0, "within the 7 layers of 'outer'. Received: start=99"),
        ("top", 3, "within the 7 layers"),
        (-1, 0, "Expected start as a whole number from 0. Received: -1"),
        ("top", True, "Expected count as a whole number"),
        ("block/conv2d", 0, "Cannot inspect the layers of 'block'"),
    ],
)
def test_errors_of_the_original_s_arguments(start, count, message):
    with pytest.raises(tfs.TfSaliencyError, match=message):
        tfs.randomize_model_parameters(_nested(), start, count)


def test_layers_without_weights_are_an_error():
    model = keras.Sequential([keras.Input((4,)), layers.ReLU(name="relu"), layers.Dense(2)])
    with pytest.raises(tfs.OptionError, match="'relu', which have none"):
        tfs.randomize_model_parameters(model, "relu")
    with pytest.raises(tfs.OptionError, match="built Keras layer or model with weights"):
        tfs.randomize_layer(layers.Dense(2))
    with pytest.raises(
        tfs.OptionError, match="Unknown randomizer: 'normall'. Did you mean 'normal'"
    ):
        tfs.randomize_layer(model, randomizer="normall")


def test_a_draw_that_leaves_all_as_it_is_is_an_error():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.BatchNormalization(name="bn")])
    with pytest.raises(tfs.OptionError, match=r"left all weights as they are: bn/gamma"):
        tfs.randomize_model_parameters(model, "bn", randomizer="initializer")


def test_new_weights_are_in_the_order_of_the_model():
    model = _nested()
    units = list_units(model)
    drawn = {p: draw_weights(u, normal(1.0), 0, p) for p, u in enumerate(units)}
    values = assemble_weights(units, Step("two", (0, 4)), drawn, model.weights)
    for weight, value in zip(model.weights, values, strict=True):
        targeted = any(weight is w for p in (0, 4) for w in units[p].weights)
        assert (value is not None) == targeted
        assert value is None or value.shape == weight.shape
