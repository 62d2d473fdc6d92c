"""Compositions against slow versions of their formulas, with one gradient at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import slow

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.methods.blur import blurred

N = 3


@pytest.fixture(scope="module")
def model(exact_shapes_model):
    return exact_shapes_model


@pytest.fixture(scope="module")
def images():
    return synthetic.make_shapes(N, seed=1).images.astype(np.float64)


@pytest.mark.parametrize("rule", ["gradient", "guided_backprop"])
@pytest.mark.parametrize(
    ("statistic", "of"),
    [
        ("mean", lambda slopes: slopes.mean(axis=0)),
        ("mean_square", lambda slopes: (slopes**2).mean(axis=0)),
        ("variance", lambda slopes: slopes.var(axis=0)),
    ],
)
def test_smooth_grad_is_a_statistic_of_the_gradients_of_noisy_images(
    statistic, of, rule, model, images
):
    found = tfs.attributions(
        model, images, slow.method(tfs.SmoothGrad(5, 0.2, statistic, seed=3), rule), batch_size=7
    )
    slopes = slow.gradients(model, slow.noisy(images, 5, 0.2, seed=3), found.targets, rule)
    slow.near(found["composed"], of(slopes), 1e-4)


def test_smooth_grad_without_noise_is_the_gradient(model, images):
    found = tfs.attributions(model, images, ["gradient", slow.method(tfs.SmoothGrad(4, 0.0))])
    slow.near(found["composed"], found["gradient"])
    none = tfs.attributions(
        model, images, slow.method(tfs.SmoothGrad(4, 0.0, "variance")), on_problem="ignore"
    )
    assert np.abs(none["composed"]).max() <= 1e-10 * np.abs(found["gradient"]).max() ** 2


def test_the_signed_mean_is_taken_before_any_absolute_value(model, images):
    method = slow.method(tfs.SmoothGrad(6, 0.2))
    signed = tfs.attributions(model, images, method)["composed"]
    slow.near(tfs.saliency_map(model, images, method)["composed"], np.abs(signed).sum(axis=-1))


def test_input_x_gradient_is_the_product(model, images):
    found = tfs.attributions(model, images, ["gradient", slow.method(tfs.InputXGradient())])
    slow.near(found["composed"], images * found["gradient"], 1e-7)


def test_integrated_gradients_are_those_of_gauss_and_legendre(model, images):
    method = slow.method(tfs.IntegratedGradients(steps=8, max_steps=8))
    found = tfs.attributions(model, images, method, batch_size=5, on_problem="ignore")
    slow.near(found["composed"], slow.integrated(model, images, found.targets, 8))
    assert found.details["composed"]["steps"].tolist() == [8] * N


def test_integrated_gradients_without_the_product_are_refined_by_it(model, images):
    options = {"steps": 4, "max_steps": 600, "tolerance": 0.004, "baseline": 0.5}
    product, mean = (
        tfs.attributions(model, images, slow.method(tfs.IntegratedGradients(**options, multiply=m)))
        for m in (True, False)
    )
    slow.near(mean["composed"] * (images - 0.5), product["composed"])
    for name in ("gap", "steps"):
        np.testing.assert_allclose(
            mean.details["composed"][name], product.details["composed"][name], atol=1e-6
        )


def test_nodes_are_doubled_until_the_sum_is_the_difference_of_the_scores(model, images):
    composition = tfs.IntegratedGradients(steps=4, max_steps=600, tolerance=0.004)
    found = tfs.attributions(model, images, slow.method(composition))
    told = found.details["composed"]
    black = tfs.attributions(model, 0 * images, targets=found.targets, on_problem="ignore").scores
    difference = found.scores - black
    gaps = np.abs(found["composed"].sum(axis=(1, 2, 3), dtype=np.float64) - difference)
    assert told["gap"] == pytest.approx(gaps / np.abs(difference), abs=1e-5)
    assert (told["gap"] <= 0.004).all() and not told["unconverged"].any()
    assert len(set(told["steps"].tolist())) > 1  # each image has its own
    for i, count in enumerate(told["steps"].astype(int)):
        part = images[i : i + 1], found.targets[i : i + 1]
        slow.near(found["composed"][i : i + 1], slow.integrated(model, *part, count))
        if count > 4:
            coarser = slow.integrated(model, *part, count // 2).sum()
            assert abs(coarser - difference[i]) > 0.004 * abs(difference[i])


def test_what_is_not_complete_is_told(model, images):
    method = slow.method(tfs.IntegratedGradients(steps=2, max_steps=2, tolerance=1e-4))
    with pytest.warns(tfs.SaliencyWarning, match=r"unconverged \(composed, images 0, 1 and 2\)"):
        found = tfs.attributions(model, images, method)
    assert found.details["composed"]["unconverged"].all()
    with pytest.raises(tfs.MeaninglessMapError, match="max_steps="):
        tfs.attributions(model, images, method, on_problem="raise")


def test_of_a_linear_model_one_node_is_enough():
    known = synthetic.closed_form_model("linear", size=9)
    images = known.ground_truth(2, seed=0).images
    weights = known.model.get_weights()[0].reshape(9, 9, 3)
    baseline = np.full((9, 9, 3), 0.25)
    method = slow.method(tfs.IntegratedGradients(baseline, steps=1))
    found = tfs.attributions(known.model, images, method)
    slow.near(found["composed"], (images - baseline) * weights)
    assert found.details["composed"]["steps"].tolist() == [1, 1]


def test_several_baselines_are_averaged(model, images):
    color = np.broadcast_to(np.array([255.0, 0.0, 90.0]), images.shape[1:])
    method = slow.method(tfs.IntegratedGradients([0.0, color, "blur"], steps=6, max_steps=6))
    found = tfs.attributions(model, images, method, on_problem="ignore")
    blur = [slow.blurred(image, np.float32(0.1) * np.float32(64)) for image in images]
    each = [
        slow.integrated(model, images, found.targets, 6, b) for b in (0.0, color, np.stack(blur))
    ]
    slow.near(found["composed"], np.mean(each, axis=0), 1e-4)


@pytest.mark.parametrize("sigma", [0.0, 0.7, 3.0, 20.0])
def test_blurring_is_convolution_with_a_gaussian(sigma):
    image = np.random.default_rng(0).normal(size=(1, 20, 31, 2)).astype(np.float32)
    slow.near(
        blurred(tf.constant(image), tf.constant(sigma)).numpy()[0], slow.blurred(image[0], sigma)
    )


def test_compositions_nest(model, images):
    integrated = tfs.IntegratedGradients(steps=4, max_steps=4)
    found = tfs.attributions(
        model,
        images,
        [
            tfs.Method("smooth_ig", "gradient", tfs.SmoothGrad(3, 0.1, inner=integrated)),
            tfs.Method(
                "smooth_guided_x_input",
                "guided_backprop",
                tfs.SmoothGrad(3, 0.1, inner=tfs.InputXGradient()),
            ),
        ],
        on_problem="ignore",
    )
    noisy = slow.noisy(images, 3, 0.1)
    expected = [slow.integrated(model, each, found.targets, 4) for each in noisy]
    slow.near(found["smooth_ig"], np.mean(expected, axis=0), 1e-4)
    assert found.details["smooth_ig"]["steps"].tolist() == [4] * N
    slopes = slow.gradients(model, noisy, found.targets, "guided_backprop")
    slow.near(found["smooth_guided_x_input"], (noisy * slopes).mean(axis=0), 1e-4)


def test_under_a_modified_rule_no_sum_is_promised(model, images):
    method = slow.method(tfs.IntegratedGradients(steps=5), "guided_backprop")
    found = tfs.attributions(model, images, method)
    slow.near(
        found["composed"],
        slow.integrated(model, images, found.targets, 5, rule="guided_backprop"),
    )
    assert not found.details and not found.problems
    composed = slow.method(tfs.IntegratedGradients(steps=2, inner=tfs.InputXGradient()))
    assert not tfs.attributions(model, images, composed).details


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_how_many_go_at_a_time_changes_nothing(batch_size, model, images):
    methods = [
        tfs.Method("smooth", "gradient", tfs.SmoothGrad(7, 0.2, "variance")),
        tfs.Method("integrated", "gradient", tfs.IntegratedGradients(tolerance=0.05)),
    ]
    found, other = (
        tfs.attributions(model, images, methods, batch_size=size) for size in (batch_size, 5)
    )
    for method in methods:
        slow.near(found[method.name], other[method.name])
    nodes = [each.details["integrated"]["steps"].tolist() for each in (found, other)]
    assert nodes[0] == nodes[1]


def test_a_composition_of_ones_own(model, images):
    """A custom composition is any function of three arguments."""

    def half_way(attribute, points, image_index):
        return attribute(points / 2, image_index)

    found = tfs.attributions(model, images, slow.method(half_way))
    expected = tfs.attributions(model, images / 2, targets=found.targets)["gradient"]
    slow.near(found["composed"], expected)


def test_each_image_keeps_its_class_and_its_other_inputs():
    image, factor = keras.Input((6, 6, 1), name="image"), keras.Input((3,), name="factor")
    hidden = keras.layers.Dense(3, activation="relu")(keras.layers.Flatten()(image))
    model = keras.Model([image, factor], keras.layers.Multiply()([hidden, factor]))
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(36, 3))
    model.layers[2].set_weights([kernel, np.full(3, 100.0)])  # never off
    given = {"image": rng.normal(size=(4, 6, 6, 1)), "factor": rng.uniform(1, 2, (4, 3))}
    prepared = tfs.prepare(model, input="image")
    classes = [2, 0, 1, 1]
    found = tfs.attributions(
        prepared, given, slow.method(tfs.SmoothGrad(5)), targets=classes, batch_size=8
    )
    slopes = kernel.T[classes] * given["factor"][range(4), classes][:, None]
    slow.near(found["composed"], slopes.reshape(4, 6, 6, 1))


def test_a_model_of_one_batch_size_gets_it():
    inputs = keras.Input(batch_shape=(2, 6, 6, 1))
    hidden = keras.layers.Conv2D(3, 3, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(hidden)))
    free = keras.Sequential([keras.Input((6, 6, 1)), *model.layers[1:]])
    images = np.random.default_rng(0).normal(size=(3, 6, 6, 1)).astype(np.float32)
    method = slow.method(tfs.SmoothGrad(3))
    found, expected = (tfs.attributions(each, images, method, targets=0) for each in (model, free))
    slow.near(found["composed"], expected["composed"])


def test_a_sanity_check_takes_a_composition(model, images):
    """A check runs a composition with the weights of the randomized networks."""
    models = synthetic.permuted_label_models()
    method = slow.method(tfs.SmoothGrad(3, 0.1))
    trained = tfs.attributions(model, images, method)
    result = tfs.data_randomization_check(
        model, images, method, permuted=models, verbose=0, on_problem="ignore"
    )
    others = [
        tfs.attributions(each, images, method, targets=trained.targets)["composed"]
        for each in models
    ]
    expected = tfs.judge(trained["composed"], np.stack(others))
    assert result.verdicts["composed"][0].invariance == pytest.approx(expected.invariance, abs=1e-4)


def test_what_is_told_is_saved(model, images, tmp_path):
    method = slow.method(tfs.IntegratedGradients(steps=2, max_steps=4))
    maps = tfs.saliency_map(model, images, method, on_problem="ignore")
    maps.save(tmp_path / "maps.npz")
    loaded = tfs.SaliencyMaps.load(tmp_path / "maps.npz")
    assert set(loaded.details["composed"]) == {"gap", "steps", "unconverged"}
    for name, array in maps.details["composed"].items():
        assert np.array_equal(loaded.details["composed"][name], array)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: tfs.SmoothGrad(0), "samples as an int of at least 1. Received: 0"),
        (lambda: tfs.SmoothGrad(noise=-1), "noise as a number from 0. Received: -1"),
        (lambda: tfs.SmoothGrad(noise="a"), "noise as a number from 0. Received: 'a'"),
        (lambda: tfs.SmoothGrad(statistic="var"), "Unknown statistic: 'var'. Known: mean"),
        (lambda: tfs.SmoothGrad(seed=-1), "seed as an int of at least 0"),
        (lambda: tfs.SmoothGrad(inner="gradient"), "inner as a composition.*Received: 'gradient'"),
        (lambda: tfs.InputXGradient(inner=3), "inner as a composition.*Received: 3"),
        (lambda: tfs.IntegratedGradients(steps=0), "steps as an int of at least 1"),
        (lambda: tfs.IntegratedGradients(max_steps=8), "max_steps as an int of at least 16"),
        (lambda: tfs.IntegratedGradients(tolerance=0), "tolerance as a number above 0"),
    ],
)
def test_impossible_compositions_are_refused(make, match):
    with pytest.raises(tfs.OptionError, match=match):
        make()


@pytest.mark.parametrize(
    ("composition", "match"),
    [
        ("SmoothGrad", "composition of 'composed' as a function.*Received: 'SmoothGrad'"),
        (tfs.IntegratedGradients("blurr"), "Unknown baseline: 'blurr'. Did you mean 'blur'"),
        (tfs.IntegratedGradients(np.zeros((8, 8, 3))), r"array \(64, 64, 3\).*\(8, 8, 3\)"),
        (tfs.IntegratedGradients([]), "baseline"),
    ],
)
def test_compositions_that_do_not_fit_are_refused(composition, match, model, images):
    with pytest.raises(tfs.OptionError, match=match):
        tfs.attributions(model, images, slow.method(composition))
