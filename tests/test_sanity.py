"""Sanity checks on real weights and photos, and on small models with known answers."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers
from reference import slow
from scipy import stats
from setups import slow_but

import tfsaliency as tfs
from tfsaliency.engine import build
from tfsaliency.models.squeezenet import preprocess_input
from tfsaliency.sanity.randomizers import draw_weights, normal
from tfsaliency.sanity.units import list_units

RNG = np.random.default_rng
METHODS = ["gradient", "guided_backprop", "zeiler_fergus"]


@pytest.fixture(scope="module")
def photos(data, squeezenet):
    return tfs.load_images(sorted((data / "imagenet").iterdir())[:8], squeezenet, fit="squash")


@pytest.fixture(scope="module")
def prepared(squeezenet):
    return tfs.prepare(squeezenet, preprocess=preprocess_input)


def _published_draw(model, layers_, draw):
    """Return the Randomizer of the published networks: default_rng(1000 + r), forward order."""
    arrays = {}
    units = list_units(model)
    for r in range(4):
        rng = RNG(1000 + r)
        for position, unit in enumerate(units):
            if unit.path in layers_:
                arrays[r, position] = [draw(w.shape, rng) for w in unit.parameters]
    position = {id(unit.layer): p for p, unit in enumerate(units)}
    # The generator of a draw is made of (seed, position): a first number tells which it is.
    seed = {RNG((r, p)).integers(2**60): r for r in range(4) for p in range(len(units))}
    return tfs.Randomizer(
        "published",
        lambda unit, rng: arrays[seed[rng.integers(2**60)], position[id(unit.layer)]],
    )


def _glorot(shape, rng):
    if len(shape) == 1:
        return np.zeros(shape)
    limit = np.sqrt(6 / (shape[0] * shape[1] * (shape[2] + shape[3])))
    return rng.uniform(-limit, limit, shape)


def _small(shape, rng):
    return rng.normal(0, 0.01, shape)


PUBLISHED = {
    "S1": (("conv10",), _glorot, (0.174, 0.938, 0.997), "DNN"),
    "M": (("fire9-expand3x3", "conv10"), _small, (0.086, 0.916, 0.991), "DNN"),
    "S2": (("conv10", "fire9"), _glorot, (0.075, 0.843, 0.981), "DNN"),
    "S3": (("conv10", "fire9", "fire8", "fire7", "fire6"), _glorot, (0.028, 0.773, 0.907), "DIN"),
    "S4": (("",), _glorot, (0.000, 0.252, 0.231), "DDD"),
}
LETTERS = {"depends on the parameters": "D", "inconclusive": "I", "does not depend": "N"}


@pytest.mark.parametrize("step", slow_but(PUBLISHED, "M"))
def test_the_published_indices_of_squeezenet(step, prepared, photos):
    prefixes, draw, expected, letters = PUBLISHED[step]
    names = tuple(u.path for u in list_units(prepared.model) if u.path.startswith(prefixes))
    result = tfs.sanity_check(
        prepared, photos, METHODS,
        plan=[names], randomizer=_published_draw(prepared.model, names, draw), verbose=0,
    )  # fmt: skip
    found = [result.verdicts[method][0] for method in METHODS]
    np.testing.assert_allclose([v.invariance for v in found], expected, atol=0.02)
    assert "".join(LETTERS[v.verdict] for v in found) == letters


# Input x gradient, SmoothGrad of 10 samples and Grad-CAM; of the last two with the tolerance that
# published.md gives for other draws.
PUBLISHED_COMPOSED = {
    "S1": (0.178, 0.159, 0.138),
    "M": (0.097, 0.127, 0.115),
    "S2": (0.075, 0.099, 0.072),
    "S3": (0.034, 0.026, 0.056),
    "S4": (0.002, 0.001, 0.063),
}


@pytest.mark.slow
@pytest.mark.parametrize("step", PUBLISHED_COMPOSED)
def test_the_published_indices_of_compositions(step, prepared, photos):
    prefixes, draw, _, _ = PUBLISHED[step]
    names = tuple(u.path for u in list_units(prepared.model) if u.path.startswith(prefixes))
    rule = "gradient"
    methods = [
        "input_x_gradient",
        tfs.Method("smooth_10", rule, tfs.SmoothGrad(10)),
        tfs.Method("cam", rule, tfs.CAM(layer="fire9-concat")),
    ]
    result = tfs.sanity_check(
        prepared, photos, methods, on_problem="ignore",
        plan=[names], randomizer=_published_draw(prepared.model, names, draw), verbose=0,
    )  # fmt: skip
    found = [verdicts[0] for verdicts in result.verdicts.values()]
    gaps = np.abs(np.subtract([v.invariance for v in found], PUBLISHED_COMPOSED[step]))
    assert (gaps <= (0.02, 0.07, 0.02)).all(), [v.invariance for v in found]
    assert [LETTERS[v.verdict] for v in found] == ["D"] * 3


def test_the_conclusion_of_the_original(prepared, photos):
    result = tfs.sanity_check(
        prepared, photos[:4], METHODS,
        plan=[("fire9-expand3x3", "conv10")], randomizer="normal", verbose=0,
    )  # fmt: skip
    means = result.select(similarity="spearman").mean(axis=(1, 2, 3))
    # published.md: .47, .94 and .985, other draws.
    assert (np.abs(means - (0.47, 0.94, 0.985)) < (0.06, 0.03, 0.01)).all(), means
    ranges = [(0.15, 0.7), (0.75, 0.985), (0.965, 0.997)]
    for method, (low, high) in zip(METHODS, ranges, strict=True):
        cells = result.select(method=method, similarity="spearman")
        assert low < cells.min() and cells.max() < high, (method, cells)
    assert [step.layers for step in result.steps] == [("fire9-expand3x3", "conv10")]
    assert result.steps[0].tensors == 4 and result.steps[0].unchanged == ()


def _model(seed=0, dtype="float64"):
    i = keras.Input((16, 16, 3), dtype=dtype)
    x = layers.Conv2D(6, 3, activation="relu", dtype=dtype, name="conv1")(i)
    x = layers.Conv2D(6, 3, activation="relu", dtype=dtype, name="conv2")(x)
    x = layers.Flatten(dtype=dtype)(x)
    return zoo.random_weights(
        keras.Model(i, layers.Dense(4, activation="softmax", dtype=dtype, name="top")(x)), seed
    )


def _photos(n=4, seed=1):
    x = RNG(seed).normal(size=(n, 16, 16, 3))
    x[:, :5] = 0.0  # the baseline
    return x


def test_numbers_are_those_of_maps_made_by_hand():
    model, x = _model(), _photos()
    result = tfs.sanity_check(
        model, x, METHODS, randomizer=normal(0.3), seeds=[7, 2], verbose=0,
        similarities=("spearman", "spearman_signed"),
    )  # fmt: skip
    trained = tfs.attributions(model, x, METHODS)
    for k, names in enumerate((["top"], ["conv2", "top"], ["conv1", "conv2", "top"])):
        for r, seed in enumerate((7, 2)):
            other, _ = tfs.randomize_model_parameters(
                model, names[0], (4 - model.layers.index(model.get_layer(names[0]))),
                randomizer=normal(0.3), seed=seed,
            )  # fmt: skip
            maps = tfs.attributions(other, x, METHODS, targets=trained.targets)
            for m, method in enumerate(METHODS):
                a, b = trained[method], maps[method]
                judged = [tfs.judge(a, b[None]), tfs.judge(a, np.stack([b, b]))]
                cosine = result.select(method=method, similarity="cosine")[k, :, r]
                assert cosine.mean() == pytest.approx(judged[0].same, rel=1e-9)
                spearman = [
                    stats.spearmanr(*(np.abs(p[i]).sum(-1).clip(
                        max=np.percentile(np.abs(p[i]).sum(-1), 99)).ravel() for p in (a, b)))[0]
                    for i in range(len(x))
                ]  # fmt: skip
                np.testing.assert_allclose(
                    result.values[m, k, result.similarities.index("spearman"), :, r], spearman
                )
                off = result.values[m, k, result.similarities.index("spearman (x != 0)"), :, r]
                top = [np.abs(p).sum(-1) for p in (a, b)]
                expected = [
                    stats.spearmanr(
                        *(p[i].clip(max=np.percentile(p[i], 99))[5:].ravel() for p in top)
                    )[0]
                    for i in range(len(x))
                ]
                np.testing.assert_allclose(off, expected)
    assert result.targets.tolist() == trained.targets.tolist()


def test_a_step_alone_is_bit_identical_to_the_same_step_in_a_run():
    model, x = _model(), _photos()
    run = tfs.sanity_check(model, x, METHODS, seeds=3, verbose=0)
    alone = tfs.sanity_check(model, x, METHODS, plan=[("conv2", "top")], seeds=[2], verbose=0)
    np.testing.assert_array_equal(run.values[:, 1, :, :, 2], alone.values[:, 0, :, :, 0])
    independent = tfs.sanity_check(model, x, METHODS, plan="independent", seeds=1, verbose=0)
    single = tfs.sanity_check(model, x, METHODS, plan=["conv1"], seeds=1, verbose=0)
    np.testing.assert_array_equal(independent.values[:, 2], single.values[:, 0])


def test_lower_layers_are_still_the_trained_ones(monkeypatch):
    """After step k of a cascade, the weights passed to the network are those of the record."""
    model, x = _model(), _photos()
    passed = []
    original = build.run

    def spy(trace, batch, part, targets, weights=None, batch_size=1):
        if weights is not None:  # not the trained network
            passed.append(weights)
        return original(trace, batch, part, targets, weights, batch_size)

    monkeypatch.setattr(build, "run", spy)
    result = tfs.sanity_check(model, x, "gradient", seeds=1, randomizer="normal", verbose=0)
    paths = [w.path for w in model.weights]
    for weights, step in zip(passed, result.steps, strict=True):
        changed = {p.split("/")[0] for p, w in zip(paths, weights, strict=True) if w is not None}
        assert changed == set(step.layers)
    assert [len(step.layers) for step in result.steps] == [1, 2, 3]


def test_the_callers_model_is_not_touched():
    model, x = _model(), _photos()
    kept = model.get_weights()
    tfs.sanity_check(model, x, METHODS, seeds=2, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(kept, model.get_weights(), strict=True))
    assert (
        not hasattr(model.layers[-1], "_inbound_nodes") or len(model.layers[-1]._inbound_nodes) == 1
    )


def test_weights_that_change_meanwhile_are_noticed(monkeypatch):
    model, x = _model(), _photos()
    original = build.run

    def meddle(*args):
        model.layers[-1].bias.assign_add([1.0, 0.0, 0.0, 0.0])
        return original(*args)

    monkeypatch.setattr(build, "run", meddle)
    with pytest.raises(tfs.ModelError, match="weights changed during the check"):
        tfs.sanity_check(model, x, seeds=1, verbose=0)


def test_a_dead_network_gives_nan_which_is_counted():
    model, x = _model(), _photos()
    dead = tfs.Randomizer(
        "dead", lambda unit, rng: [rng.uniform(-1, 0, w.shape) for w in unit.parameters]
    )
    positive = np.abs(x) + 0.1
    result = tfs.sanity_check(
        model,
        positive,
        METHODS,
        plan=["conv1"],
        randomizer=dead,
        verbose=0,
        similarities=("spearman", "ssim"),
    )
    for method in ("gradient", "guided_backprop"):
        verdict = result.verdicts[method][0]
        assert np.isnan(result.select(method=method)).all()
        assert np.isnan(verdict.invariance) and verdict.verdict == "inconclusive"
        assert (verdict.defined, verdict.cells) == (0, 16)
        assert "only 0 of 16 pairs of maps are defined" in verdict.reason
    assert "Undefined, because a map is zero, constant or not finite: 32 of 48." in str(result)


@pytest.mark.parametrize("draw", slow_but(tfs.RANDOMIZERS))
def test_fifty_layers_do_not_overflow(draw, resnet):
    model, x = resnet
    deep = [unit.path for unit in list_units(model)]
    result = tfs.sanity_check(
        model, x, ["gradient", "guided_backprop"],
        plan=[tuple(deep[-30:]), tuple(deep)], randomizer=draw, seeds=1, verbose=0,
        on_problem="ignore",
    )  # fmt: skip
    reached = [u.layer for u in list_units(model)]
    assert len(reached) == 107
    shown = result.shown.maps.astype(float)
    for maps in shown[:, 1:].reshape(-1, *shown.shape[2:]):
        # It may die, of weights as small as 0.01; but nothing is infinite.
        assert np.isfinite(maps).all() or np.isnan(maps).all()
    if draw not in ("normal", "truncated_normal"):
        assert np.isfinite(result.select(similarity="cosine")).all()


@pytest.fixture(scope="module")
def resnet():
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)
    return model, RNG(0).normal(0, 60, (2, 64, 64, 3)).astype("float32")


def test_an_untrained_network_may_have_nothing_to_change():
    i = keras.Input((16, 16, 3))
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(i))
    model = keras.Model(
        i, layers.Dense(3, activation="softmax")(layers.Flatten()(layers.ReLU()(x)))
    )
    result = tfs.sanity_check(model, _photos(), plan=["bn"], verbose=0, on_problem="ignore")
    verdict = result.verdicts["gradient"][0]
    assert verdict.verdict == "inconclusive" and "no weight changed" in verdict.reason
    assert result.steps[0].unchanged == tuple(
        f"bn/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    assert result.settings["moving statistics"] == "reset"
    kept = tfs.sanity_check(
        model, _photos(), plan=["bn"], randomizer="normal", seeds=1, verbose=0, on_problem="ignore"
    )
    assert kept.settings["moving statistics"] == "kept"


def test_retargeting_explains_each_networks_own_class():
    model, x = _model(), _photos(6)
    own = tfs.sanity_check(
        model, x, plan=["top"], seeds=2, randomizer=normal(1.0), verbose=0, retarget=True
    )
    trained = tfs.attributions(model, x)
    other, _ = tfs.randomize_model_parameters(model, "top", randomizer=normal(1.0), seed=1)
    maps = tfs.attributions(other, x)
    assert (maps.targets != trained.targets).any()
    expected = tfs.judge(trained["gradient"], maps["gradient"][None]).same
    assert own.select(similarity="cosine")[0, 0, :, 1].mean() == pytest.approx(expected, rel=1e-9)


def test_only_layers_before_the_chosen_output_are_steps():
    i = keras.Input((16, 16, 3))
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu", name="conv")(i))
    model = keras.Model(i, {"a": layers.Dense(3, name="a")(x), "b": layers.Dense(3, name="b")(x)})
    for output, other in (("a", "b"), ("b", "a")):
        prepared = tfs.prepare(model, output=output, score="logit")
        result = tfs.sanity_check(prepared, _photos(), seeds=1, verbose=0, on_problem="ignore")
        assert [step.name for step in result.steps] == [output, "conv"]
        with pytest.raises(tfs.OptionError, match="does not depend on the weights"):
            tfs.sanity_check(prepared, _photos(), plan=[other], verbose=0)


def test_a_model_of_hidden_relus_is_checked_by_the_graph_engine():
    case = (
        zoo.HIDDEN["tf.function"]
        if "tf.function" in zoo.HIDDEN
        else next(iter(zoo.HIDDEN.values()))
    )
    model = case.build("float64")
    x = RNG(0).normal(size=(3, zoo.SIZE, zoo.SIZE, 3))
    result = tfs.sanity_check(
        model, x, ["guided_backprop"], randomizer="matched", seeds=1, verbose=0,
        similarities=("spearman",), on_problem="ignore",
    )  # fmt: skip
    assert result.coverage["guided_backprop"].engine == "graph"
    (first,) = result.steps[:1]
    units = list_units(model)
    position = [unit.path for unit in units].index(first.name)
    unit = units[position]
    trained = tfs.attributions(model, x, "guided_backprop", on_problem="ignore")
    kept = [w.numpy() for w in unit.weights]
    drawn = draw_weights(unit, tfs.RANDOMIZERS["matched"], 0, position)
    for weight, array in zip(unit.weights, drawn.arrays, strict=True):
        if array is not None:
            weight.assign(array)
    maps = tfs.attributions(
        model, x, "guided_backprop", targets=trained.targets, on_problem="ignore"
    )
    for weight, array in zip(unit.weights, kept, strict=True):
        weight.assign(array)
    expected = tfs.judge(trained["guided_backprop"], maps["guided_backprop"][None]).same
    found = np.nanmean(result.select(similarity="cosine")[0, 0])
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def small():
    return tfs.sanity_check(_model(), _photos(), METHODS, verbose=0, similarities=("ssim",))


def test_axes_and_selection(small):
    assert small.similarities[:2] == ("cosine", "cosine_signed")
    assert small.similarities[2:4] == ("spearman", "ssim")
    assert small.values.shape == small.chance.shape == (3, 3, 6, 4, 4)
    part = small.select(method="gradient", step="conv2", similarity="ssim", image="1", seed=3)
    assert part == small.values[0, 1, 3, 1, 3]
    floor = small.select(method="gradient", step="conv2", similarity="ssim", chance=True)
    np.testing.assert_array_equal(floor, small.chance[0, 1, 3])
    with pytest.raises(tfs.OptionError, match="Unknown step: 'conv3'. Did you mean"):
        small.select(step="conv3")
    with pytest.raises(tfs.OptionError, match="Unknown axis: 'layer'"):
        small.select(layer="conv2")


def test_floors_are_of_the_next_photo():
    model, x = _model(), _photos()
    result = tfs.sanity_check(model, x, plan=["top"], randomizer=normal(0.3), seeds=1, verbose=0)
    trained = tfs.attributions(model, x)["gradient"]
    other, _ = tfs.randomize_model_parameters(model, "top", randomizer=normal(0.3))
    maps = tfs.attributions(other, x, targets=result.targets)["gradient"]
    for name in ("spearman", "ssim"):
        expected = tfs.SIMILARITIES[name](trained, np.roll(maps, -1, axis=0))
        found = result.select(similarity=name, chance=True)[0, 0, :, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_result_is_the_same_after_a_round_trip(small, tmp_path):
    small.save(tmp_path / "r.npz")
    loaded = tfs.SanityResult.load(tmp_path / "r.npz")
    assert loaded == small and str(loaded) == str(small)
    np.testing.assert_array_equal(loaded.values, small.values)
    np.testing.assert_array_equal(loaded.shown.maps, small.shown.maps)
    changed = tfs.SanityResult(**{**vars(small), "values": small.values + 1e-12})
    assert small not in (changed, 3)
    small.to_json(tmp_path / "r.json")
    stored = json.loads((tmp_path / "r.json").read_text())
    assert stored["verdicts"]["gradient"][1]["verdict"] == small.verdicts["gradient"][1].verdict


def test_the_csv_has_a_row_for_each_number(small, tmp_path):
    small.to_csv(tmp_path / "r.csv")
    with open(tmp_path / "r.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == small.values.size
    row = rows[-1]
    assert (row["method"], row["step"], row["seed"]) == ("zeiler_fergus", "conv1", "3")
    assert float(rows[0]["value"]) == small.values[0, 0, 0, 0, 0]


def test_what_is_printed(small):
    text = str(small)
    verdict = small.verdicts["gradient"][1]
    assert f"{verdict.low:.2f}".lstrip("0") in text
    assert "With new weights in conv2 + top (2 layers; the upper layers" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["step", *METHODS] in rows
    assert [row[0] for row in rows if row and row[0] in ("top", "conv2", "conv1")] == [
        "top", "conv2", "conv1",
    ]  # fmt: skip


def test_the_random_logit_check():
    model, x = _model(), _photos()
    result = tfs.random_logit_check(model, x, METHODS, seeds=3, verbose=0, on_problem="ignore")
    trained = tfs.attributions(model, x, METHODS)
    others = np.stack(
        [(trained.targets + RNG(seed).integers(1, 4, len(x))) % 4 for seed in range(3)]
    )
    assert (others != trained.targets).all()
    for method in METHODS:
        maps = [tfs.attributions(model, x, method, targets=t)[method] for t in others.tolist()]
        expected = tfs.judge(trained[method], np.stack(maps))
        found = result.verdicts[method][0]
        assert found.invariance == pytest.approx(expected.invariance, rel=1e-9)
        assert found.verdict == expected.verdict.replace("the parameters", "the class")
    with pytest.raises(tfs.ModelError, match="at least two classes"):
        one = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten(), layers.Dense(1)])
        tfs.random_logit_check(one, x, verbose=0)


def test_emprt_compares_the_fully_randomized_network():
    model, x = _model(), _photos()
    result = tfs.sanity_check(
        model, x, plan="all", similarities="emprt", randomizer=normal(0.3), seeds=2, verbose=0
    )
    assert result.steps[0].layers == ("conv1", "conv2", "top")
    other, _ = tfs.randomize_model_parameters(model, 1, 3, randomizer=normal(0.3), seed=1)
    trained = tfs.attributions(model, x)
    maps = tfs.attributions(other, x, targets=trained.targets)["gradient"]
    expected = tfs.SIMILARITIES["emprt"](trained["gradient"], maps)
    found = result.select(similarity="emprt")[0, 0, :, 1]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_smprt_is_a_check_of_smooth_grad():
    """Noise is drawn once for all photos; the averages are compared at the last step."""
    model, x = _model(), _photos()
    smooth = tfs.SmoothGrad(samples=3, noise=0.2)
    result = tfs.sanity_check(
        model, x, smooth, plan="all", randomizer=normal(0.3), seeds=2, verbose=0
    )
    other, _ = tfs.randomize_model_parameters(model, 1, 3, randomizer=normal(0.3), seed=1)
    targets = tfs.attributions(model, x).targets
    points = slow.noisy(x, 3, 0.2)
    maps = [slow.gradients(each, points, targets).mean(axis=0) for each in (model, other)]
    expected = tfs.SIMILARITIES["spearman"](*maps)
    measured = result.select(similarity="spearman")[0, 0, :, 1]
    np.testing.assert_allclose(measured, expected, rtol=1e-4)


def test_controls_tell_edges_and_noise():
    i = keras.Input((16, 16, 3), dtype="float64")
    square = layers.Lambda(lambda x: x * x)(i)
    top = layers.Dense(4, dtype="float64", name="top", use_bias=False)
    model = zoo.random_weights(keras.Model(i, top(layers.Flatten()(square))))  # gradient: x * noise
    x = _photos(8, 3)
    x[:, 5:] = 0.0
    x[:, 8:10, 8:12] = RNG(0).choice([0.9, 1.0, 1.1], (8, 2, 4, 3))
    result = tfs.sanity_check(
        model, x, plan=["top"], randomizer="matched", score="logit", verbose=0
    )
    explained = result.explained_by["gradient"]
    assert explained.spearman == pytest.approx(explained.noise_to_noise, abs=0.02)
    assert explained.like_noise and explained.noise > 0.9
    assert "so it cannot distinguish the two" in str(result)
    assert result.verdicts["gradient"][0].invariance < 0.1


def test_an_image_given_twice_is_warned_of():
    x = _photos(4)
    x[2] = x[0]
    with pytest.warns(tfs.SaliencyWarning, match=r"same_image \(images 0 and 2\)"):
        tfs.sanity_check(_model(), x, plan=["top"], seeds=2, verbose=0)


def test_weights_that_are_the_same_for_every_seed_decide_nothing():
    same = tfs.Randomizer("same", lambda unit, rng: [np.ones(w.shape) / 3 for w in unit.parameters])
    result = tfs.sanity_check(_model(), _photos(), plan=["conv2"], randomizer=same, verbose=0)
    verdict = result.verdicts["gradient"][0]
    assert verdict.verdict == "inconclusive" and "every seed the same weights" in verdict.reason
    assert "gradient at conv2: the randomizer gave every seed the same weights" in str(result)
    none = tfs.Randomizer("none", lambda unit, rng: [None for _ in unit.parameters])
    result = tfs.sanity_check(_model(), _photos(), plan=["conv2"], randomizer=none, verbose=0)
    assert "no weight changed" in result.verdicts["gradient"][0].reason


def test_variables_that_are_no_weights_of_layers_are_said_to_stay():
    class Hidden(layers.Layer):
        def build(self, shape):
            self.k = tf.Variable(tf.random.stateless_normal((3, 3), (1, 2)))

        def call(self, x):
            return tf.matmul(tf.reshape(x, (-1, 16 * 16, 3)), self.k[None])

    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            Hidden(),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="top"),
        ]
    )
    result = tfs.sanity_check(
        model, _photos().astype("float32"), plan="all", seeds=2, verbose=0, on_problem="ignore"
    )
    assert result.settings["not randomized"] == "1 variables that are not weights of layers"


def test_errors_of_options():
    model, x = _model(), _photos(2)
    for options, message in (
        ({"seeds": 0}, "Expected seeds as a number of them"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"seeds": True}, "Received: True"),
        ({"randomizer": "glorot"}, "Unknown randomizer"),
        ({"plan": "top-down"}, "Unknown plan or layer"),
        ({"plan": 3}, "Expected plan as one of cascade"),
        ({"baseline": "a"}, "Expected baseline as a number"),
        ({"similarities": "sim"}, "Unknown similarity: 'sim'. Did you mean 'ssim'"),
        ({"on_problem": "shout"}, "Unknown on_problem"),
        ({"targets": 9}, "Target out of range"),
    ):
        with pytest.raises(tfs.OptionError, match=message):
            tfs.sanity_check(model, x, verbose=0, **options)
    with pytest.raises(tfs.ModelError, match="keras.Model whose score depends on weights"):
        tfs.sanity_check(lambda z: model(z), x, verbose=0)


def test_alike_photos_are_warned_of():
    model = _model()
    x = np.repeat(_photos(1), 4, axis=0) + 1e-6 * _photos(4)
    with pytest.warns(tfs.SaliencyWarning, match="alike_maps"):
        tfs.sanity_check(model, x, "zeiler_fergus", plan=["top"], verbose=0)


def test_models_of_one_batch_size_and_in_parts():
    model, x = _model(), _photos(5)
    whole = tfs.sanity_check(model, x, METHODS, seeds=1, verbose=0)
    parts = tfs.sanity_check(model, x, METHODS, seeds=1, batch_size=2, verbose=0)
    np.testing.assert_allclose(parts.values, whole.values, rtol=1e-9, atol=1e-12)
    assert [v.invariance for v in parts.verdicts["gradient"]] == pytest.approx(
        [v.invariance for v in whole.verdicts["gradient"]]
    )


def test_half_precision():
    half = _model(dtype="float16")
    full = _model(dtype="float64")
    full.set_weights(half.get_weights())
    x = _photos()
    results = [
        tfs.sanity_check(
            m, x, METHODS, plan=["conv2"], randomizer="permutation", seeds=2, verbose=0
        )
        for m in (half, full)
    ]
    np.testing.assert_allclose(
        *(r.select(similarity="cosine") for r in results), rtol=0.05, atol=0.02
    )


def test_a_progress_bar(capsys):
    tfs.sanity_check(_model(), _photos(2), seeds=2, verbose=2)
    assert "6 of 6 networks" in capsys.readouterr().err.splitlines()[-1]
    tfs.sanity_check(_model(), _photos(2), seeds=2, verbose=0)
    assert capsys.readouterr().err == ""
