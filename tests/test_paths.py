"""Integrals along other paths than the straight one, against slow versions."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
import zoo
from keras import layers
from reference import slow
from setups import float64

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.methods.blur import blurred

N, SIZE = 2, 12


def _network(shape=(SIZE, SIZE, 2), conv=layers.Conv2D, average=layers.GlobalAveragePooling2D):
    with float64():
        i = keras.Input(shape, dtype="float64")
        x = conv(4, 3, activation="relu")(i)
        x = conv(5, 3, activation="relu")(x)
        return zoo.random_weights(
            keras.Model(i, layers.Dense(3, activation="softmax")(average()(x))), seed=2
        )


@pytest.fixture(scope="module")
def model():
    return _network()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(1, 2, (N, SIZE, SIZE, 2))


@pytest.fixture(scope="module")
def linear():
    known = synthetic.closed_form_model("linear", size=9)
    return known.model, known.ground_truth(2, seed=0).images


@pytest.mark.parametrize("batch_size", [3, 32])
@pytest.mark.parametrize(("grid", "sigma"), [("quadratic", 4.0), ("linear", 50.0)])
def test_blur_ig_equals_its_definition(grid, sigma, batch_size, model, images):
    method = slow.method(tfs.BlurIG(sigma, grid, steps=5, max_steps=5))
    found = tfs.attributions(model, images, method, batch_size=batch_size, on_problem="ignore")
    reference = slow.blur_integrated(model, images, found.targets, 5, sigma, grid)
    slow.near(found["composed"], reference)


def test_steps_of_blur_ig_are_doubled_until_the_sum_is_complete(model, images):
    # The scores hardly differ here, and gaps are relative to the difference.
    found = tfs.attributions(model, images, slow.method(tfs.BlurIG(3.0, steps=4, tolerance=0.7)))
    told = found.details["composed"]
    assert (told["steps"] > 4).all() and not told["unconverged"].any()
    start = np.stack([slow.blurred(image, 3.0) for image in images])
    blurry = tfs.attributions(model, start, targets=found.targets).scores
    total = found["composed"].sum(axis=(1, 2, 3), dtype=np.float64)
    gap = np.abs(total - (found.scores - blurry)) / np.abs(found.scores - blurry)
    assert told["gap"] == pytest.approx(gap, abs=1e-3) and (gap <= 0.7).all()
    for i, nodes in enumerate(told["steps"].astype(int)):
        part = images[i : i + 1], found.targets[i : i + 1], nodes, 3.0
        slow.near(found["composed"][i : i + 1], slow.blur_integrated(model, *part))


@pytest.mark.parametrize(
    ("fraction", "far"), [(0.1, 1), (0.4, 1), (1.0, 1), (0.1, 0.2), (0.4, 0.05), (0.1, 0)]
)
def test_guided_ig_equals_its_definition(fraction, far, model, images):
    method = slow.method(tfs.GuidedIG(0.5, steps=8, fraction=fraction, max_distance=far))
    found = tfs.attributions(model, images, method, on_problem="ignore")
    reference = slow.guided_integrated(model, images, found.targets, 8, fraction, 0.5, far)
    slow.near(found["composed"], reference)
    if fraction == 1.0 or far == 0:  # the straight path, from the left
        way = images - 0.5
        points = [0.5 + t / 8 * way for t in range(8)]
        straight = way * slow.gradients(model, points, found.targets).mean(axis=0)
        slow.near(found["composed"], straight, 1e-3)


def test_guided_ig_of_the_network_in_the_wheel(exact_shapes_model):
    model, images = exact_shapes_model, synthetic.make_shapes(2, seed=1).images.astype(float)
    method = slow.method(tfs.GuidedIG(steps=6))
    with pytest.warns(tfs.SaliencyWarning, match=r"unconverged.*GuidedIG may not converge"):
        found = tfs.attributions(model, images, method)
    slow.near(found["composed"], slow.guided_integrated(model, images, found.targets, 6))
    black = tfs.attributions(model, 0 * images, targets=found.targets, on_problem="ignore").scores
    lacking = np.abs(found["composed"].sum(axis=(1, 2, 3)) - (found.scores - black))
    gap = found.details["composed"]["gap"]
    assert gap == pytest.approx(lacking / np.abs(found.scores - black), rel=1e-4)


@pytest.mark.parametrize("data", [False, True])
def test_expected_gradients_equal_their_definition(data, model, images):
    baselines = np.random.default_rng(1).normal(size=(4, SIZE, SIZE, 2)) if data else None
    method = slow.method(tfs.ExpectedGradients(baselines, samples=9, seed=5))
    found = tfs.attributions(model, images, method, batch_size=7)
    reference = slow.expected(model, images, found.targets, 9, baselines, seed=5)
    slow.near(found["composed"], reference, 1e-4)


def test_expected_gradients_of_one_baseline_become_integrated_gradients(model, images):
    baseline = np.full((1, SIZE, SIZE, 2), 0.3)
    exact = tfs.attributions(
        model, images, slow.method(tfs.IntegratedGradients(0.3, steps=300, max_steps=300))
    )["composed"]
    errors = []
    for samples in (30, 3000):
        expected = slow.method(tfs.ExpectedGradients(baseline, samples))
        found = tfs.attributions(model, images, expected, batch_size=500)["composed"]
        errors.append(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    # A hundred times the samples: a tenth of the error, up to chance.
    assert errors[1] < 0.02 and 3 < errors[0] / errors[1] < 30


def test_of_a_linear_model_all_ways_are_one(linear):
    model, images = linear
    weights = model.get_weights()[0].reshape(9, 9, 3)
    other = np.random.default_rng(3).uniform(0, 255, (1, 9, 9, 3)).astype(np.float32)
    ways = {
        "guided": (tfs.GuidedIG(other[0], steps=7), other[0]),
        "expected": (tfs.ExpectedGradients(other, samples=2), other[0]),
        "blur": (tfs.BlurIG(2.0, steps=1), np.stack([slow.blurred(x, 2.0) for x in images])),
    }
    for name, (composition, start) in ways.items():
        found = tfs.attributions(model, images, tfs.Method(name, "gradient", composition))
        slow.near(found[name], (images - start) * weights)


def test_a_model_of_one_batch_size_gets_it_while_nodes_are_doubled():
    free = _network()
    inputs = keras.Input(batch_shape=(2, SIZE, SIZE, 2), dtype="float64")
    model = keras.Model(inputs, free(inputs))
    images = np.random.default_rng(4).normal(1, 2, (3, SIZE, SIZE, 2))
    method = slow.method(tfs.IntegratedGradients(steps=2))
    found, reference = (tfs.attributions(m, images, method, targets=1) for m in (model, free))
    told = found.details["composed"]["steps"]
    assert len(set(told.tolist())) > 1  # one is done before the other
    assert told.tolist() == reference.details["composed"]["steps"].tolist()
    slow.near(found["composed"], reference["composed"])


@pytest.mark.parametrize("axes", [1, 3])
def test_sequences_and_volumes(axes):
    shape = {1: (30, 2), 3: (8, 9, 10, 2)}[axes]
    conv = {1: layers.Conv1D, 3: layers.Conv3D}[axes]
    average = {1: layers.GlobalAveragePooling1D, 3: layers.GlobalAveragePooling3D}[axes]
    model = _network(shape, conv, average)
    x = np.random.default_rng(0).normal(1, 2, (2, *shape))
    found = tfs.attributions(
        model, x, slow.method(tfs.BlurIG(3.0, steps=4, max_steps=4)), on_problem="ignore"
    )
    slow.near(found["composed"], slow.blur_integrated(model, x, found.targets, 4, 3.0))
    found = tfs.attributions(model, x, slow.method(tfs.GuidedIG(steps=4)), on_problem="ignore")
    slow.near(found["composed"], slow.guided_integrated(model, x, found.targets, 4))
    blur = tfs.IntegratedGradients("blur", steps=4, max_steps=4)
    found = tfs.attributions(model, x, slow.method(blur), on_problem="ignore")
    start = np.stack(
        [slow.blurred(each, np.float32(0.1) * np.float32(min(shape[:-1]))) for each in x]
    )
    slow.near(found["composed"], slow.integrated(model, x, found.targets, 4, start), 1e-4)


def test_blurring_a_volume_is_convolution_with_a_gaussian():
    volume = np.random.default_rng(0).normal(size=(1, 7, 9, 8, 2)).astype(np.float32)
    found = blurred(tf.constant(volume), tf.constant(1.5)).numpy()[0]
    exact = scipy.ndimage.gaussian_filter(
        volume[0].astype(float), (1.5, 1.5, 1.5, 0), mode="constant", truncate=10
    )
    slow.near(found, exact)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: tfs.BlurIG(0), "sigma as a number above 0. Received: 0"),
        (lambda: tfs.BlurIG(grid="log"), "Unknown grid: 'log'. Known: quadratic, linear"),
        (lambda: tfs.BlurIG(max_steps=8), "max_steps as an int of at least 32"),
        (lambda: tfs.GuidedIG(steps=0), "steps as an int of at least 1"),
        (lambda: tfs.GuidedIG(fraction=0), "fraction as a number above 0"),
        (lambda: tfs.GuidedIG(fraction=1.5), "fraction of at most 1. Received: 1.5"),
        (lambda: tfs.GuidedIG(tolerance=True), "tolerance as a number above 0. Received: True"),
        (lambda: tfs.ExpectedGradients(samples=0), "samples as an int of at least 1"),
        (lambda: tfs.ExpectedGradients(inner="a"), "inner as a composition.*Received: 'a'"),
        (lambda: tfs.Product("a"), "by as a composition.*Received: 'a'"),
        (lambda: tfs.rect_grad_at(100), "percentile as a number from 0 to below 100"),
        (lambda: tfs.rect_grad_at("a"), "percentile as a number.*Received: 'a'"),
    ],
)
def test_impossible_ways_are_refused(make, match):
    with pytest.raises(tfs.OptionError, match=match):
        make()


def test_baselines_of_another_shape_are_refused(model, images):
    for wrong in (np.zeros((3, 4, 4, 2)), np.zeros((0, SIZE, SIZE, 2)), np.zeros(3), ["a"]):
        with pytest.raises(tfs.OptionError, match=r"baselines as an array \(m, 12, 12, 2\)"):
            tfs.attributions(model, images, slow.method(tfs.ExpectedGradients(wrong)))
