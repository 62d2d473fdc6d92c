"""Metrics without masks: against slow versions, in closed form, and one's own."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import tensorflow as tf

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.evaluation.perturbation import impute
from tfsaliency.methods.completeness import resolve_baseline

SIDE, CHANNELS, CLASSES, N = 10, 3, 4, 3
METHODS = ["gradient", "input_x_gradient", "occlusion"]


@pytest.fixture(scope="module")
def model():
    layers = keras.layers
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, CHANNELS), dtype="float64"),
            layers.Conv2D(6, 3, activation="relu", dtype="float64"),
            layers.Conv2D(6, 3, activation="relu", dtype="float64"),
            layers.Flatten(dtype="float64"),
            layers.Dense(CLASSES, activation="softmax", dtype="float64"),
        ]
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(N, SIDE, SIDE, CHANNELS))


class Caught:
    """A metric that keeps what it gets."""

    name, direction = "caught", 1

    def __init__(self):
        self.cases = []

    def __call__(self, maps, context):
        self.cases.append((maps, context))
        return np.zeros(len(maps))


@pytest.fixture(scope="module")
def measured(model, images):
    names = [name for name, metric in tfs.METRICS.items() if not metric.needs_masks]
    caught = Caught()
    result = tfs.evaluate(model, images, METHODS, metrics=[*names, caught], batch_size=5)
    return SimpleNamespace(result=result, cases=caught.cases, names=names)


# --- slow versions ------------------------------------------------------------------------------


def _outputs(model, point):
    """The logits and the probabilities of one image."""
    x = point[np.newaxis]
    for layer in model.layers[:-1]:
        x = layer(x)
    logits = x.numpy()[0] @ model.layers[-1].kernel.numpy() + model.layers[-1].bias.numpy()
    powers = np.exp(logits - logits.max())
    return logits, powers / powers.sum()


class Slow:
    """One image and one map, with the network called for one point at a time."""

    def __init__(self, model, context, row, maps):
        self.model, self.context, self.map = model, context, maps[row].astype(float)
        self.attributions = context.attributions[row].astype(float)
        self.image = context.image
        self.target = int(np.argmax(_outputs(model, self.image)[0]))

    def f(self, point):
        return _outputs(self.model, point)[1][self.target]

    def score(self, point):
        return _outputs(self.model, point)[0][self.target]

    def base(self, kind):
        image, context = self.image, self.context
        if kind == "uniform":
            low, high = image.min(), image.max()
            return context.generator("uniform").uniform(low, high, image.shape)
        if kind == "mean":
            return np.broadcast_to(image.mean(axis=(0, 1)), image.shape)
        if kind == "blur":
            return resolve_baseline("blur", tf.constant(image[np.newaxis])).numpy()[
                0
            ]  # see test_paths
        return np.full(image.shape, kind)

    def order(self, values):
        """The indices of values from the highest to the lowest; equal ones by the same lot."""
        lot = self.context.generator("ties").permutation(values.size)
        return sorted(lot, key=lambda i: -values.flat[i])

    def replaced(self, pixels, kind):
        """The image with these pixels replaced."""
        mask = np.zeros(SIDE * SIDE, bool)
        mask[list(pixels)] = True
        mask = mask.reshape(SIDE, SIDE)
        if kind != "linear":
            return np.where(mask[..., None], self.base(kind), self.image)
        noise = self.context.generator("imputation").normal(
            0, 0.01 * np.ptp(self.image), self.image.shape
        )
        return np.where(mask[..., None], imputed(self.image, mask) + noise, self.image)

    def deletion(self, kind, steps):
        order = self.order(self.map)
        curve = [
            self.f(self.replaced(order[: round(k / steps * len(order))], kind))
            for k in range(steps + 1)
        ]
        return np.trapezoid(curve, dx=1 / steps)

    def insertion(self, kind, steps):
        order = self.order(-self.map)[::-1]
        curve = []
        for k in range(steps + 1):
            count = len(order) - round((steps - k) / steps * len(order))
            curve.append(self.f(self.replaced(order[count:], kind)))
        return np.trapezoid(curve, dx=1 / steps)

    def regions(self, side):
        across = -(-SIDE // side)
        return np.array(
            [[y // side * across + x // side for x in range(SIDE)] for y in range(SIDE)]
        )

    def flipping(self, sign, side, kind, steps):
        regions = self.regions(side)
        sums = np.array([sign * self.map[regions == r].sum() for r in range(regions.max() + 1)])
        order = self.order(sums)
        steps = min(steps, len(sums))
        falls = []
        for k in range(steps + 1):
            gone = order[: round(k / steps * len(order))]
            pixels = np.flatnonzero(np.isin(regions, gone))
            falls.append(self.f(self.image) - self.f(self.replaced(pixels, kind)))
        return np.mean(falls)

    def infidelity(self, samples, size, kind):
        rng, side = self.context.generator("squares"), round(size * SIDE)
        told, falls = [], []
        for _ in range(samples):
            y, x = rng.integers(0, SIDE - side + 1), rng.integers(0, SIDE - side + 1)
            pixels = [(y + a) * SIDE + x + b for a in range(side) for b in range(side)]
            other = self.replaced(pixels, kind)
            told.append(np.sum((self.image - other) * self.attributions))
            falls.append(self.score(self.image) - self.score(other))
        told, falls = np.array(told), np.array(falls)
        factor = np.linalg.lstsq(told[:, None], falls, rcond=None)[0][0]
        return np.mean((factor * told - falls) ** 2) / np.mean(falls**2)

    def sensitivity_n(self, fractions, samples, kind):
        regions = self.regions(1)
        rng, found = self.context.generator("subsets"), []
        for fraction in fractions:
            sums, falls = [], []
            for _ in range(samples):
                chosen = rng.choice(regions.max() + 1, round(fraction * 100), replace=False)
                sums.append(sum(self.attributions.reshape(-1, CHANNELS)[i].sum() for i in chosen))
                falls.append(self.score(self.image) - self.score(self.replaced(chosen, kind)))
            found.append(np.corrcoef(sums, falls)[0, 1])
        return np.mean(found)

    def masked(self):
        unit = (self.map - self.map.min()) / (self.map.max() - self.map.min())
        return self.f(self.image), self.f(self.image * unit[..., None])

    def complexity(self, steps):
        order = self.order(self.map)
        for k in range(steps):
            gone = order[round(k / steps * len(order)) :]
            if self.f(self.replaced(gone, 0.0)) >= 0.9 * self.f(self.image):
                return k / steps
        return 1.0

    def gap(self):
        difference = self.score(self.image) - self.score(0 * self.image)
        return abs(self.attributions.sum() - difference) / abs(difference)


def imputed(image, mask):
    """Solve for the missing pixels with a sparse matrix."""
    places = {at: i for i, at in enumerate(zip(*np.nonzero(mask), strict=True))}
    if len(places) == mask.size:
        return np.broadcast_to(image.mean(axis=(0, 1)), image.shape)
    matrix, right = scipy.sparse.lil_matrix((len(places),) * 2), np.zeros((len(places), CHANNELS))
    for (y, x), i in places.items():
        for dy, dx in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b):
            at = y + dy, x + dx
            if not (0 <= at[0] < SIDE and 0 <= at[1] < SIDE):
                continue
            weight = 1 / 6 if 0 in (dy, dx) else 1 / 12
            matrix[i, i] += weight
            if at in places:
                matrix[i, places[at]] -= weight
            else:
                right[i] += weight * image[at]
    filled = image.copy()
    if places:
        filled[mask] = scipy.sparse.linalg.spsolve(matrix.tocsc(), right).reshape(-1, CHANNELS)
    return filled


def _gini(values):
    a = np.sort(np.abs(values.ravel()))
    pairs = sum(abs(x - y) for x in a for y in a)
    return pairs / (2 * len(a) ** 2 * a.mean())


def _entropy(values):
    shares = np.abs(values.ravel()) / np.abs(values).sum()
    return -sum(p * np.log(p) for p in shares if p > 0)


SLOW = {
    "deletion": lambda s: s.deletion(0.0, 32),
    "deletion_mean": lambda s: s.deletion("mean", 32),
    "deletion_blur": lambda s: s.deletion("blur", 32),
    "road": lambda s: s.deletion("linear", 10),
    "insertion": lambda s: s.insertion("blur", 32),
    "insertion_mean": lambda s: s.insertion("mean", 32),
    "pixel_flipping": lambda s: s.flipping(1, 9, "uniform", 32),
    "pixel_flipping_lerf": lambda s: s.flipping(-1, 9, "uniform", 32),
    "pixel_flipping_gap": lambda s: (
        s.flipping(1, 9, "uniform", 32) - s.flipping(-1, 9, "uniform", 32)
    ),
    "infidelity": lambda s: s.infidelity(64, 0.25, 0.0),
    "sensitivity_n": lambda s: s.sensitivity_n((0.05, 0.1, 0.2, 0.4), 32, 0.0),
    "faithfulness_correlation": lambda s: s.sensitivity_n((0.2,), 100, 0.0),
    "average_drop": lambda s: max(s.masked()[0] - s.masked()[1], 0) / s.masked()[0],
    "increase": lambda s: float(s.masked()[1] > s.masked()[0]),
    "average_gain": lambda s: max(s.masked()[1] - s.masked()[0], 0) / (1 - s.masked()[0]),
    "completeness_gap": lambda s: s.gap(),
    "sparseness": lambda s: _gini(s.map),
    "entropy": lambda s: _entropy(s.map),
    "effective_complexity": lambda s: s.complexity(32),
}


def test_every_metric_has_a_slow_version(measured):
    assert {*SLOW, "max_sensitivity", "average_sensitivity"} == set(measured.names)


@pytest.mark.parametrize("name", SLOW)
def test_metrics_equal_their_definitions(name, measured, model):
    result, near = measured.result, 2e-4 if name == "road" else 1e-6
    for image, (maps, context) in enumerate(measured.cases[:2]):
        rows = [*METHODS, *result.controls]
        for row, method in list(enumerate(rows))[image:6:2]:
            expected = SLOW[name](Slow(model, context, row, maps))
            assert result.of(method, name)[image] == pytest.approx(expected, rel=near, abs=near)
        if result.direction(name):  # the last rows are maps of another photo
            expected = SLOW[name](Slow(model, context, len(rows) + 1, maps))
            found = result.other_photo[1, result.metrics.index(name), image]
            assert found == pytest.approx(expected, rel=near, abs=near)


def test_maps_of_another_photo_are_the_next_photos(measured):
    for image, (maps, _) in enumerate(measured.cases):
        others = measured.cases[(image + 1) % N][0]
        for row in range(len(METHODS)):
            np.testing.assert_array_equal(maps[len(METHODS) + 4 + row], others[row])


@pytest.mark.parametrize("statistic", ["max", "mean"])
def test_sensitivity_equals_its_definition(statistic, model, images):
    caught = Caught()
    metric = tfs.Sensitivity(statistic, radius=0.05, samples=4)
    result = tfs.evaluate(model, images, METHODS, metrics=[metric, caught])
    for image, (maps, context) in enumerate(caught.cases):
        reach = 0.05 * np.ptp(context.image)
        noise = context.generator("noise").uniform(-reach, reach, (4, *context.image.shape))
        targets = np.repeat(np.argmax(_outputs(model, context.image)[0]), 4)
        noisy = tfs.saliency_map(model, context.image + noise, METHODS, targets=targets)
        for row, method in enumerate(METHODS):
            changes = [
                np.linalg.norm(each - maps[row]) / np.linalg.norm(maps[row])
                for each in noisy[method]
            ]
            expected = getattr(np, statistic)(changes)
            assert result.of(method, "sensitivity")[image] == pytest.approx(expected, rel=1e-5)
        edges = result.of("edge_map", "sensitivity")[image]
        assert 0 < edges < 0.5
        assert result.of("center_blob", "sensitivity")[image] == pytest.approx(0, abs=1e-6)


def test_imputation_solves_its_equations():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(SIDE, SIDE, CHANNELS))
    masks = rng.uniform(size=(4, SIDE, SIDE)) < np.array([0.1, 0.5, 0.9, 2])[:, None, None]
    found = impute(image, masks[..., np.newaxis])
    for mask, each in zip(masks, found, strict=True):
        expected = np.where(mask[..., np.newaxis], imputed(image, mask), image)
        np.testing.assert_allclose(each, expected, atol=1e-3)


# --- closed form --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linear():
    """One output, a weighted sum of all values."""
    weights = np.random.default_rng(1).normal(size=(SIDE * SIDE * CHANNELS, 1))
    inputs = keras.Input((SIDE, SIDE, CHANNELS), dtype="float64")
    flat = keras.layers.Flatten(dtype="float64")(inputs)
    dense = keras.layers.Dense(1, use_bias=False, dtype="float64")
    model = keras.Model(inputs, dense(flat))
    dense.kernel.assign(weights)
    return model, weights.reshape(SIDE, SIDE, CHANNELS)


def test_sums_of_a_linear_model_are_exact(linear, images):
    model, weights = linear
    unit = tfs.SensitivityN((0.1, 0.5), side=1)
    plain = tfs.Metric("plain", tfs.Infidelity(normalize=False))
    metrics = [unit, "infidelity", plain, "completeness_gap"]
    result = tfs.evaluate(model, images, ["gradient", "input_x_gradient"], metrics=metrics)
    assert result.of("input_x_gradient", "sensitivity_n") == pytest.approx(np.ones(N), abs=1e-12)
    assert result.of("gradient", "infidelity") == pytest.approx(np.zeros(N), abs=1e-12)
    assert result.of("gradient", "plain") == pytest.approx(np.zeros(N), abs=1e-12)
    gaps = result.of("input_x_gradient", "completeness_gap")
    assert gaps == pytest.approx(np.zeros(N), abs=1e-12)
    assert (result.of("random_map", "infidelity") > 0.5).all()
    whole = (weights * images).sum(axis=(1, 2, 3))
    expected = np.abs(weights.sum() - whole) / np.abs(whole)
    assert result.of("gradient", "completeness_gap") == pytest.approx(expected, rel=1e-9)


def test_deletion_of_a_linear_model_in_closed_form(linear, images):
    """The sum of what is left, when the largest contributions go first."""
    model, weights = linear
    steps = SIDE * SIDE
    method = tfs.Method("exact", composition=tfs.InputXGradient(), reduction="sum")
    metrics = [tfs.Deletion(steps=steps), tfs.Insertion(0.0, steps=steps)]
    result = tfs.evaluate(model, images, method, metrics=metrics)
    sums = np.sort((weights * images).sum(axis=-1).reshape(N, -1), axis=1)
    left = np.concatenate([np.zeros((N, 1)), np.cumsum(sums, axis=1)], axis=1)
    deleted = ((left[:, 1:] + left[:, :-1]) / 2).mean(axis=1)
    assert result.of("exact", "deletion") == pytest.approx(deleted, rel=1e-9)
    back = np.concatenate([np.zeros((N, 1)), np.cumsum(sums[:, ::-1], axis=1)], axis=1)
    inserted = ((back[:, 1:] + back[:, :-1]) / 2).mean(axis=1)
    assert result.of("exact", "insertion") == pytest.approx(inserted, rel=1e-9)


# --- around -------------------------------------------------------------------------------------


def test_a_metric_of_ones_own_and_its_errors(model, images):
    def inner_mass(maps, context):
        assert context.scores(context.image[np.newaxis]) == pytest.approx([context.score])
        assert 0 < context.probability < 1
        assert context.explain(context.image[np.newaxis]).shape == (1, 6, SIDE, SIDE)
        return maps[:, 3:7, 3:7].sum(axis=(1, 2)) / maps.sum(axis=(1, 2))

    inner_mass.direction = 0
    result = tfs.evaluate(model, images, METHODS[:2], metrics=inner_mass)
    maps = tfs.saliency_map(model, images, "gradient")["gradient"]
    expected = maps[:, 3:7, 3:7].sum(axis=(1, 2)) / maps.sum(axis=(1, 2))
    assert result.of("gradient", "inner_mass") == pytest.approx(expected, rel=1e-6)
    with pytest.raises(tfs.OptionError, match=r"tells better from worse: none.*inner_mass"):
        result.verdict("gradient", "inner_mass")
    wrong = {
        "a number for each of 6 maps. Received: float64 of shape": lambda maps, context: maps,
        "Unknown metric": "deletoin",
        "with masks for pointing_game": ["deletion", "pointing_game"],
        "different names. Received: deletion twice": [tfs.Deletion(), "deletion"],
        "At least one|at least one": [],
    }
    for message, metrics in wrong.items():
        with pytest.raises(tfs.OptionError, match=message):
            tfs.evaluate(model, images, "gradient", metrics=metrics)
    with pytest.raises(tfs.OptionError, match=r"fixed image.*'linear'"):
        tfs.evaluate(model, images, "gradient", metrics=tfs.Infidelity(baseline="linear"))
    with pytest.raises(tfs.OptionError, match=r"baseline.*'blurr'"):
        tfs.Deletion("blurr")
    with pytest.raises(tfs.ImageError, match=r"\(n, h, w, c\)"):
        flat = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
        tfs.evaluate(flat, np.ones((2, 5)), "gradient")


@pytest.mark.parametrize("end", ["softmax", None, "sigmoid"])
def test_curves_are_of_probabilities(end, images):
    """Also where the model returns logits, or the probability of one of two classes."""
    keras.utils.set_random_seed(1)
    layers = [keras.Input((SIDE, SIDE, CHANNELS)), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(1 if end == "sigmoid" else 3, end)])
    if end is None:
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = 0.1 * images.astype("float32")
    metric = tfs.Deletion(0.0, steps=1)
    result = tfs.evaluate(model, images, "gradient", metrics=metric)
    outputs = [model(each).numpy() for each in (images, 0 * images)]
    if end is None:
        outputs = [np.exp(o) / np.exp(o).sum(axis=1, keepdims=True) for o in outputs]
    if end == "sigmoid":
        outputs = [np.concatenate([1 - o, o], axis=1) for o in outputs]
    top = outputs[0].argmax(axis=1)
    expected = np.mean([o[np.arange(N), top] for o in outputs], axis=0)
    assert result.of("gradient", "deletion") == pytest.approx(expected, rel=1e-5)


def test_targets_of_images_and_of_masks(model, images):
    chosen = np.array([3, 2, 1])
    result = tfs.evaluate(model, images, "gradient", metrics=tfs.Deletion(steps=1), targets=chosen)
    ends = [np.array([_outputs(model, x)[1] for x in each]) for each in (images, 0 * images)]
    expected = np.mean([o[np.arange(N), chosen] for o in ends], axis=0)
    assert result.of("gradient", "deletion") == pytest.approx(expected, rel=1e-6)
    data = synthetic.make_shapes(2, seed=0)
    with pytest.raises(tfs.OptionError, match="Received: targets, too"):
        tfs.evaluate(synthetic.shapes_model(), data, targets=0)


def test_a_model_of_one_batch_size_and_other_inputs(images):
    layers = keras.layers
    image, scale = keras.Input(batch_shape=(4, SIDE, SIDE, 3)), keras.Input(batch_shape=(4, 1))
    x = layers.Dense(3, "softmax")(layers.Multiply()([layers.Flatten()(image), scale]))
    model = keras.Model([image, scale], x)
    scales = np.array([[0.5], [1.0], [2.0]])
    prepared = tfs.prepare(model, input=0)
    result = tfs.evaluate(prepared, (images, scales), "gradient", metrics=tfs.Deletion(steps=1))
    padded = [np.concatenate([each, each[:1]]) for each in (images, scales)]
    outputs = [model([p, padded[1]]).numpy()[:N] for p in (padded[0], 0 * padded[0])]
    top = outputs[0].argmax(axis=1)
    expected = np.mean([o[np.arange(N), top] for o in outputs], axis=0)
    assert result.of("gradient", "deletion") == pytest.approx(expected, rel=1e-5)


def test_verdicts_compare_with_every_control():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(6, 64))
    controls = {"a": noise[0], "b": noise[1] + 1}
    better = tfs.judge_metric(noise[2] + 3, controls)
    assert (better.verdict, better.control) == ("more faithful than its controls", "b")
    leads = noise[2] + 3 - controls["b"]
    assert better.difference == pytest.approx(leads.mean())
    reach = 1.96 * leads.std(ddof=1) / 8
    assert better.high - better.low == pytest.approx(2 * reach, rel=0.1)
    assert tfs.judge_metric(noise[2] - 1, controls).verdict == "no better"
    assert tfs.judge_metric(noise[2] + 1.2, controls).verdict == "cannot tell"
    assert tfs.judge_metric(-noise[2] - 3, {"a": noise[0]}, higher_is_better=False).control == "a"
    few = tfs.judge_metric(np.ones(7), {"a": np.zeros(7)})
    assert few.verdict == "cannot tell" and "fewer than 8" in str(few)
    assert tfs.judge_metric(np.ones(8), {"a": np.zeros(8)}).verdict == better.verdict
    assert tfs.judge_metric(np.ones(8), {"a": np.ones(8)}).verdict == "no better"


def test_a_judged_metric_may_explain_other_points(model, images):
    def stable(maps, context):
        return -np.abs(context.explain(context.image[np.newaxis] + 0.01)[0] - maps).max(axis=(1, 2))

    result = tfs.evaluate(model, images, ["gradient", "occlusion"], metrics=stable)
    moved = tfs.saliency_map(model, images + 0.01, "occlusion", targets=top_classes(model, images))
    still = tfs.saliency_map(model, images, "occlusion")
    expected = -np.abs(moved["occlusion"] - still["occlusion"]).max(axis=(1, 2))
    assert result.of("occlusion", "stable") == pytest.approx(expected, rel=1e-6)
    assert (result.other_photo == 0).all()


def top_classes(model, images):
    return np.array([np.argmax(_outputs(model, image)[0]) for image in images])


def test_a_constant_map_and_one_that_is_not_finite_have_no_value(model, images):
    def constant(attribute, points, image_index):
        found = attribute(points, image_index)
        return found._replace(values=tf.ones_like(points))

    def wild(attribute, points, image_index):
        found = attribute(points, image_index)
        return found._replace(values=found.values * np.inf)

    methods = [tfs.Method(f.__name__, composition=f) for f in (constant, wild)]
    metrics = ["deletion", "sensitivity_n", "average_drop"]
    result = tfs.evaluate(
        model, images, ["gradient", *methods], metrics=metrics, on_problem="ignore"
    )
    assert np.isnan(result.values[1:3]).all() and np.isfinite(result.values[0]).all()
    assert "Undefined, because a map is constant" in str(result)


def test_metrics_of_scores_that_are_no_probabilities(images):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, CHANNELS)), layers.Flatten(), layers.Dense(3)]
    )
    options = {"score": "logit", "targets": 0, "on_problem": "ignore"}
    for metric in ("average_drop", "average_gain"):
        with pytest.raises(tfs.OptionError, match=r"probabilities.*Use 'increase'"):
            tfs.evaluate(model, images, "gradient", metrics=metric, **options)
    # Of a negative score, a tenth may be lacking as well.
    exact = tfs.Method("exact", composition=tfs.InputXGradient(), reduction="sum")
    low = [i for i in range(N) if model(images)[i, 0] < 0]
    result = tfs.evaluate(model, images, exact, metrics=["effective_complexity"], **options)
    for i in low:
        assert result.of("exact", "effective_complexity")[i] < 0.5


def test_a_control_without_values_leaves_a_verdict_open():
    noise = np.random.default_rng(0).normal(0, 0.1, 16)
    controls = {"random_map": noise, "edge_map": np.r_[np.full(7, 2.0), np.full(9, np.nan)]}
    found = tfs.judge_metric(np.ones(16), controls)
    assert (found.verdict, found.reason) == ("cannot tell", "edge_map has values for 7 images")
    same = tfs.judge_metric(np.zeros(8), {"random_map": np.zeros(8), "edge_map": np.ones(8)})
    assert (same.verdict, same.control) == ("no better", "edge_map")


def test_small_attributions_beside_large_ones_have_their_correlation():
    from tfsaliency.evaluation.additivity import _pearson

    falls = np.random.default_rng(0).normal(size=20)
    found = _pearson(np.stack([1e-8 * falls, 1e6 * falls[::-1]]), falls)
    assert found == pytest.approx([1, np.corrcoef(falls[::-1], falls)[0, 1]], rel=1e-9)


def test_logits_of_labels_and_images_of_float16(images):
    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, CHANNELS)), layers.Flatten(), layers.Dense(2)]
    )
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    tiny = 1e-3 * images.astype("float32")
    model.layers[-1].bias.assign([0.3, 0.4])
    result = tfs.evaluate(model, tiny, "gradient", metrics=tfs.Deletion(steps=1), targets=0)
    ends = [1 / (1 + np.exp(-model(each).numpy()[:, 0])) for each in (tiny, 0 * tiny)]
    assert result.of("gradient", "deletion") == pytest.approx(np.mean(ends, axis=0), rel=1e-5)
    wide = np.full((64, 64, 3), 200.0, np.float16)
    missing = np.zeros((1, 64, 64, 1), bool)
    missing[:, 10:20, 10:20] = True
    np.testing.assert_allclose(impute(wide, missing), 200.0)


def test_points_of_another_shape_are_refused(model, images):
    def one_image(maps, context):
        return context.scores(context.image)[: len(maps)]

    with pytest.raises(tfs.OptionError, match=r"points \(k, 10, 10, 3\).*np\.newaxis"):
        tfs.evaluate(model, images, "gradient", metrics=one_image)
    with pytest.raises(tfs.OptionError, match="at least two regions of 64 pixels"):
        tfs.evaluate(model, images, "gradient", metrics=tfs.SensitivityN(side=64))
