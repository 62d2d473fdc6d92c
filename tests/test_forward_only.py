"""Methods of forward passes alone: occlusion, RISE and Score-CAM."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers
from reference import slow
from setups import float64

import tfsaliency as tfs
from tfsaliency import synthetic

SIZES = (10, 7)


@pytest.fixture(scope="module")
def model():
    with float64():
        i = keras.Input((*SIZES, 2), dtype="float64")
        x = layers.Conv2D(4, 3, activation="relu")(i)
        return zoo.random_weights(keras.Model(i, layers.Dense(3)(layers.Flatten()(x))), seed=3)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(0.5, 1, (3, *SIZES, 2))


TARGETS = np.array([1, 2, 0])


@pytest.mark.parametrize(
    ("settings", "window", "stride", "baseline"),
    [
        ({"window": 3}, (3, 3), (2, 2), 0.0),
        ({"window": 3, "stride": 3, "baseline": 0.5}, (3, 3), (3, 3), 0.5),
        ({"window": [4, 2], "stride": (3, 1)}, (4, 2), (3, 1), 0.0),
        ({"window": 6, "stride": 6, "baseline": "mean"}, (6, 6), (6, 6), "mean"),
        ({"window": (2, 7), "stride": 2, "baseline": "array"}, (2, 7), (2, 2), "array"),
        ({"window": 3, "baseline": "blur"}, (3, 3), (2, 2), "blur"),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 32])
def test_occlusion(settings, window, stride, baseline, batch_size, model, images):
    if isinstance(baseline, str):
        given = np.random.default_rng(2).normal(size=images.shape[1:])
        baseline = {
            "mean": images.mean(axis=(1, 2), keepdims=True),
            "blur": np.stack([slow.blurred(image, np.float32(0.1) * 7) for image in images]),
            "array": given,
        }[baseline]
        settings = {
            **settings,
            "baseline": given if settings["baseline"] == "array" else settings["baseline"],
        }
    found = tfs.attributions(
        model, images, tfs.Occlusion(**settings), targets=TARGETS, batch_size=batch_size
    )["occlusion"]
    slow.near(found[..., 0], slow.occlusion(model, images, TARGETS, window, stride, baseline))


def test_occlusion_has_seven_windows_along_an_axis_and_half_as_many_again(model, images):
    found = tfs.saliency_map(synthetic.shapes_model(), np.ones((1, 64, 64, 3)), "occlusion")
    wide = tfs.Occlusion(window=9, stride=5)
    same = tfs.saliency_map(synthetic.shapes_model(), np.ones((1, 64, 64, 3)), wide)
    np.testing.assert_array_equal(found["occlusion"], same["occlusion"])


def test_occlusion_of_a_linear_model_is_its_terms():
    """Without neighbors in the window, the value of a feature is weight * (x - baseline)."""
    weights = np.array([[1.0, 0.0], [-2.0, 1.0], [0.5, 3.0]])
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, use_bias=False)])
    model.set_weights([weights])
    x = np.array([[3.0, 1.0, -4.0]])
    found = tfs.saliency_map(model, x, tfs.Occlusion(baseline=1.0), targets=0, score="logit")
    np.testing.assert_allclose(found["occlusion"], (x - 1) * weights[:, 0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(12, 2), (6, 5, 4, 2)])
def test_sequences_and_volumes(shape):
    rank = len(shape)
    conv = {2: layers.Conv1D, 4: layers.Conv3D}[rank]
    with float64():
        i = keras.Input(shape, dtype="float64")
        x = layers.Flatten()(conv(3, 2, activation="relu", dtype="float64")(i))
        model = zoo.random_weights(keras.Model(i, layers.Dense(3, dtype="float64")(x)), seed=4)
    x = np.random.default_rng(5).normal(size=(2, *shape))
    found = tfs.saliency_map(
        model, x, [tfs.Occlusion(window=3, stride=2), tfs.RISE(masks=50, cells=3)], targets=1
    )
    sides = (3,) * (rank - 1), (2,) * (rank - 1)
    slow.near(found["occlusion"], slow.occlusion(model, x, [1, 1], *sides))
    masks = slow.rise_masks(shape[:-1], 50, cells=3)
    slow.near(found["rise"], slow.rise(model, x, [1, 1], masks)[0])


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_rise_and_its_standard_error(batch_size, model, images):
    rise = tfs.RISE(masks=60, cells=4, probability=0.3, seed=9)
    found = tfs.saliency_map(model, images, rise, targets=TARGETS, batch_size=batch_size)
    masks = slow.rise_masks(SIZES, 60, 4, 0.3, 9)
    means, errors = slow.rise(model, images, TARGETS, masks)
    slow.near(found["rise"], means)
    told = found.details["rise"]
    np.testing.assert_allclose(told["standard_error"], errors.max(axis=(1, 2)), rtol=1e-4)
    assert told["masks"].tolist() == [60.0] * 3


def test_rise_adds_masks_until_the_tolerance_is_met_by_each_image(model, images):
    rise = tfs.RISE(masks=20, tolerance=0.4)
    found = tfs.saliency_map(model, images, rise, targets=TARGETS)
    told = found.details["rise"]
    assert len(set(told["masks"])) > 1  # not all images stop at once
    for i, count in enumerate(told["masks"].astype(int)):
        masks = slow.rise_masks(SIZES, count)
        one, target = images[i : i + 1], TARGETS[i : i + 1]
        means, errors = slow.rise(model, one, target, masks)
        slow.near(found["rise"][i : i + 1], means)
        assert errors.max() <= 0.4 * np.ptp(means)
        if count > 20:
            means, errors = slow.rise(model, one, target, masks[: count - 20])
            assert errors.max() > 0.4 * np.ptp(means)


def test_rise_that_misses_its_tolerance_says_so(model, images):
    rise = tfs.RISE(masks=10, tolerance=1e-3, max_masks=25)
    with pytest.warns(tfs.SaliencyWarning, match=r"imprecise \(rise, images 0, 1 and 2\)"):
        found = tfs.saliency_map(model, images, rise, targets=TARGETS)
    assert found.details["rise"]["masks"].tolist() == [25.0] * 3
    slow.near(found["rise"], slow.rise(model, images, TARGETS, slow.rise_masks(SIZES, 25))[0])


def test_models_without_a_derivative_are_explained(model, images, tmp_path):
    """A cast to integers, a function, a SavedModel and a model of int8."""
    images, names = images.astype(np.float32), ["occlusion", tfs.RISE(masks=20)]

    def rounded(x):
        return tf.cast(tf.cast(model(x) * 1000, tf.int32), tf.float32)

    with pytest.raises(tfs.ModelError, match="does not depend on the images in a way"):
        tfs.saliency_map(rounded, images, "gradient", targets=TARGETS)
    found = tfs.saliency_map(rounded, images, names, targets=TARGETS, score="logit")
    smooth = tfs.saliency_map(model, images, names, targets=TARGETS)
    for name in found:
        assert np.abs(found[name] - 1000 * smooth[name]).max() < 2

    plain = keras.Sequential([keras.Input((*SIZES, 2)), layers.Flatten(), layers.Dense(3)])
    plain.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")  # must outlive its signatures
    served = loaded.signatures["serving_default"]
    layer = keras.layers.TFSMLayer(tmp_path / "saved", call_endpoint="serving_default")
    own = tfs.saliency_map(plain, images, names, targets=TARGETS, score="logit")
    i = keras.Input((*SIZES, 2))
    around = keras.Model(i, keras.layers.Lambda(lambda d: next(iter(d.values())))(layer(i)))
    for other in (served, around):
        found = tfs.saliency_map(other, images, names, targets=TARGETS, score="logit")
        for name in found:
            slow.near(found[name], own[name])
    plain.layers[-1].quantize("int8")
    found = tfs.saliency_map(plain, images, names, targets=TARGETS, score="logit")
    for name in found:
        near = np.abs(found[name] - own[name]).max() / np.abs(own[name]).max()
        assert 0 < near < 0.05


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tfs.Occlusion(window=0), "Expected window as an int of at least 1. Received: 0."),
        (lambda: tfs.Occlusion(stride=(1, 0)), "Expected stride as an int of at least 1."),
        (lambda: tfs.RISE(masks=1), "Expected masks as an int of at least 2. Received: 1."),
        (lambda: tfs.RISE(probability=0), "Expected probability as a number above 0"),
        (lambda: tfs.RISE(tolerance=0), "Expected tolerance as a number above 0"),
        (lambda: tfs.RISE(tolerance=0.1, max_masks=10), "Expected max_masks as an int of at least"),
        (lambda: tfs.ScoreCAM(grid=(2, 2)), "Expected grid as the number of cells"),
    ],
)
def test_impossible_options(make, message):
    with pytest.raises(tfs.OptionError, match=message):
        make()


def test_windows_that_leave_pixels_out_are_refused(model, images):
    with pytest.raises(tfs.OptionError, match=r"at most the window \(2, 2\)"):
        tfs.saliency_map(model, images, tfs.Occlusion(window=2, stride=3))
    with pytest.raises(tfs.OptionError, match="one for each of 2 axes"):
        tfs.saliency_map(model, images, tfs.Occlusion(window=(2, 2, 2)))


def test_score_cam_at_a_named_layer():
    data = synthetic.make_shapes(1, seed=3)
    maps = tfs.saliency_map(synthetic.shapes_model(), data.images, tfs.ScoreCAM("fire3-concat"))
    told = tfs.saliency_map(
        synthetic.shapes_model(), data.images, "score_cam", layer="fire3-concat"
    )
    np.testing.assert_array_equal(maps["score_cam"], told["score_cam"])
    assert maps.coverage["score_cam"].grids[0].layer == "fire3-concat"
