"""compare_models: the same, a little different, and another model."""

import csv

import keras
import numpy as np
import pytest

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.statistics import bootstrap

METHODS = ["gradient", "grad_cam"]


@pytest.fixture(scope="module")
def model():
    return synthetic.shapes_model()


@pytest.fixture(scope="module")
def photos():
    return synthetic.make_shapes(12, seed=5)


def compare(old, new, photos, methods=METHODS, **options):
    return tfs.compare_models(old, new, photos, methods, **{"verbose": 0, **options})


@pytest.fixture(scope="module")
def tuned(model):
    """The model after one epoch on other pictures."""
    keras.utils.set_random_seed(0)
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    other.compile(keras.optimizers.Adam(3e-4), "sparse_categorical_crossentropy")
    data = synthetic.make_shapes(256, seed=77)
    other.fit(data.images, data.labels, verbose=0)
    return other


def test_a_model_is_the_same_as_itself(model, photos):
    result = compare(model, model, photos.images)
    for verdict in result.verdicts.values():
        assert verdict.verdict == "the same" and not verdict.reason
        np.testing.assert_allclose([verdict.invariance, verdict.low, verdict.high], 1, rtol=1e-4)
    assert result.agreement == 1 and "No map changed." in str(result)


def test_a_model_that_was_tuned_lies_in_between(model, tuned, photos):
    twin = compare(model, synthetic.permuted_label_models()[0], photos.images)
    result = compare(model, tuned, photos.images)
    assert result.verdicts["gradient"].verdict == "partly the same"
    assert [v.verdict for v in twin.verdicts.values()] == ["different", "different"]
    for name in METHODS:
        low, middle = twin.verdicts[name].high, result.verdicts[name]
        assert low < middle.low < middle.invariance < middle.high < 1
    assert twin.agreement < 0.5


def test_both_models_explain_the_same_class(model, photos):
    """The old model's, also where the new one has another top class."""
    twin = synthetic.permuted_label_models()[0]
    result = compare(model, twin, photos.images, "gradient")
    assert (result.top_classes[0] != result.top_classes[1]).any()
    assert np.array_equal(result.targets, result.top_classes[0])
    own = tfs.saliency_map(twin, photos.images, targets=result.targets, verbose=0)
    np.testing.assert_allclose(result.scores[1], own.scores, rtol=1e-5)


def test_the_index_is_the_formula(model, tuned, photos):
    """By loops: clipped at the 99th percentile, centered, normed; chance by other photos."""
    result = compare(model, tuned, photos.images, "gradient")
    maps = [
        tfs.attributions(m, photos.images, targets=result.targets, verbose=0)["gradient"]
        for m in (model, tuned)
    ]
    units = []
    for each in maps:
        rows = []
        for one in each.astype(np.float64):
            flat = one.ravel()
            top = np.percentile(np.abs(flat[flat != 0]), 99)
            flat = np.clip(flat, -top, top) / top
            flat = flat - flat.mean()
            rows.append(flat / np.linalg.norm(flat))
        units.append(np.array(rows))
    table = np.abs(units[0] @ units[1].T)
    n = len(table)
    same = np.diagonal(table)
    other = np.array([[table[i, (i + q) % n] for q in range(1, 9)] for i in range(n)]).mean(axis=1)
    np.testing.assert_allclose(result.values[0], same, rtol=1e-3)
    np.testing.assert_allclose(result.chance[0], other, rtol=1e-3)
    index = (same.mean() - other.mean()) / (1 - other.mean())
    verdict = result.verdicts["gradient"]
    np.testing.assert_allclose(verdict.invariance, index, rtol=1e-3)
    means = bootstrap(same[np.newaxis], other[np.newaxis])
    low, high = np.percentile((means[0] - means[1]) / (1 - means[1]), [2.5, 97.5])
    np.testing.assert_allclose([verdict.low, verdict.high], [low, high], rtol=1e-3)
    assert result.changed("gradient") == np.argsort(same, kind="stable").tolist()
    assert result.shown.places.tolist() == result.changed()[:6]


def test_photos_that_changed_are_named_and_drawn(model, photos):
    """A model that sees one photo otherwise: where it is bright, the lower half is hidden."""

    class Hide(keras.layers.Layer):
        def call(self, x):
            bright = keras.ops.mean(x, axis=(1, 2, 3), keepdims=True) > limit
            rows = keras.ops.cast(keras.ops.arange(64) < 32, x.dtype)[None, :, None, None]
            return keras.ops.where(bright, x * rows, x)

    means = photos.images.mean(axis=(1, 2, 3))
    limit = float(np.sort(means)[-2:].mean())
    brightest = int(means.argmax())
    image = keras.Input((64, 64, 3))
    other = keras.Model(image, model(Hide()(image)))
    names = [f"photo {i}" for i in range(12)]
    result = compare(model, other, photos.images, "gradient", names=names)
    assert result.changed()[0] == brightest
    assert f"Photos whose maps changed most (similarity): photo {brightest} (" in str(result)
    others = np.delete(result.values[0], brightest)
    np.testing.assert_allclose(others, 1, rtol=1e-4)
    assert result.values[0, brightest] < 0.95
    figure = result.plot()
    assert figure.axes[0].get_title() == f"photo {brightest}"
    shown = result.shown
    np.testing.assert_allclose(shown.old[0, 1:], shown.new[0, 1:], rtol=1e-3, atol=1e-6)
    assert (shown.new[0, 0, 32:] == 0).all() and shown.old[0, 0, 32:].any()


def test_a_comparison_is_saved_exported_and_reported(model, tuned, photos, tmp_path):
    result = compare(model, tuned, photos.images)
    result.save(tmp_path / "c.npz")
    again = tfs.ModelComparison.load(tmp_path / "c.npz")
    assert str(again) == str(result) and again.record == result.record
    for name in ("values", "chance", "scores", "top_classes", "targets"):
        assert np.array_equal(getattr(again, name), getattr(result, name))
    assert np.array_equal(again.shown.new, result.shown.new)
    result.to_csv(tmp_path / "c.csv")
    with open(tmp_path / "c.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert float(rows[13]["similarity"]) == pytest.approx(result.values[1, 1])
    tfs.write_report(tmp_path / "c.html", comparison=result)
    page = (tmp_path / "c.html").read_text()
    assert "do two models look at the same things?" in page and "partly the same" in page
    assert "partly the same" in result._repr_html_()
    data = bytearray((tmp_path / "c.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "c.npz").write_bytes(data)
    with pytest.raises(tfs.ResultError, match="ModelComparison"):
        tfs.ModelComparison.load(tmp_path / "c.npz")


def test_a_dead_model_and_one_photo_are_inconclusive(model, photos):
    dead = keras.models.clone_model(model)
    dead.set_weights([np.zeros_like(each) for each in model.get_weights()])
    result = compare(model, dead, photos.images, "gradient", on_problem="ignore")
    assert result.verdicts["gradient"].verdict == "inconclusive"
    assert "only 0 of 12" in result.verdicts["gradient"].reason
    assert "No map changed" not in str(result)
    one = compare(model, model, photos.images[:1], "gradient")
    assert one.verdicts["gradient"].verdict == "inconclusive"


def test_features_are_compared_and_drawn():
    def build(seed):
        keras.utils.set_random_seed(seed)
        layers = [keras.Input((20,)), keras.layers.Dense(16, activation="relu")]
        return keras.Sequential([*layers, keras.layers.Dense(3, "softmax")])

    rows = np.random.default_rng(0).normal(size=(9, 20))
    result = compare(build(0), build(1), rows, "gradient")
    assert result.values.shape == (1, 9) and len(result.plot().axes) == 18


def test_what_cannot_be_compared_is_refused(model, photos):
    larger = tfs.prepare(
        keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(8)]),
        preprocess=lambda x: x[:, ::2, ::2],
    )
    with pytest.raises(tfs.OptionError, match="same shape"):
        compare(model, larger, photos.images, "gradient", targets=0, on_problem="ignore")
    with pytest.raises(tfs.OptionError, match="a value for each pixel"):
        compare(model, model, photos.images, tfs.CAM(resize=False))
    with pytest.raises(tfs.OptionError, match="names of 12 images"):
        compare(model, model, photos.images, names=["a"])
    with pytest.raises(tfs.OptionError, match="comparison as ModelComparison"):
        tfs.write_report("x.html", comparison=photos)
