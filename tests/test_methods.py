"""Each row of METHODS, with its settings, against a slow version."""

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
from tfsaliency.tables import DEFAULT_METHODS

SIZE = 9


@pytest.fixture(scope="module")
def model():
    with float64():
        i = keras.Input((SIZE, SIZE, 2), dtype="float64")
        x = layers.Conv2D(4, 3, activation="relu", name="first")(i)
        x = layers.Conv2D(5, 3, activation="relu", name="last")(x)
        x = layers.Dense(6, activation="relu")(layers.Flatten()(x))
        return zoo.random_weights(keras.Model(i, layers.Dense(3)(x)), seed=10)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(0.5, 1, (2, SIZE, SIZE, 2))


def _summed(attributions):
    return np.abs(attributions).sum(axis=-1)


def _noisy_gradients(model, x, t):
    return slow.gradients(model, slow.noisy(x, 50, 0.15), t)


def _values(model, x):
    return keras.Model(model.input, model.get_layer("last").output).predict(x, verbose=0)


def _cam(kind, model, x, t):
    last = model.get_layer("last").output
    values = _values(model, x)
    head = keras.Sequential([keras.Input(last.shape[1:], dtype="float64"), *model.layers[-3:]])
    slopes = tfs.attributions(head, values, targets=t, on_problem="ignore")["gradient"]
    return slow.placed(slow.cam(kind, values, slopes), (SIZE, SIZE), [(2, 1), (2, 1)])


def _linear_layers(model):
    """The matrix and the bias of each layer with weights."""
    found = []
    for layer in model.layers:
        if not layer.weights:
            continue
        kernel, bias = layer.get_weights()
        if kernel.ndim == 4:  # a convolution without padding, of each unit image
            shape = layer.input.shape[1:]
            units = np.eye(np.prod(shape)).reshape(-1, *shape)
            outputs = tf.nn.conv2d(units, kernel, 1, "VALID").numpy()
            bias = np.tile(bias, outputs[0].size // len(bias))
            kernel = outputs.reshape(len(units), -1)
        found.append((kernel, bias))
    return found


def _lrp(model, x, t, first, convolution, dense):
    rules = [first, convolution, dense, dense]
    return slow.lrp(_linear_layers(model), x, t, rules).sum(axis=-1)


def _rule(model, x, t, rule):
    return _summed(slow.gradients(model, [x], t, rule)[0])


# Functions (model, images, targets, details) -> maps (n, h, w), from the formulas.
SLOW = {
    "input_x_gradient": lambda m, x, t, _: _summed(x * slow.gradients(m, [x], t)[0]),
    "smooth_grad": lambda m, x, t, _: _summed(_noisy_gradients(m, x, t).mean(axis=0)),
    "smooth_grad_squared": lambda m, x, t, _: (
        (_noisy_gradients(m, x, t) ** 2).mean(axis=0).sum(axis=-1)
    ),
    "var_grad": lambda m, x, t, _: _noisy_gradients(m, x, t).var(axis=0).sum(axis=-1),
    "integrated_gradients": lambda m, x, t, told: _summed(
        _each(slow.integrated, m, x, t, told["steps"])
    ),
    "expected_gradients": lambda m, x, t, _: _summed(slow.expected(m, x, t, 200)),
    "blur_ig": lambda m, x, t, told: _summed(_each(slow.blur_integrated, m, x, t, told["steps"])),
    "guided_ig": lambda m, x, t, _: _summed(slow.guided_integrated(m, x, t, 200)),
    "grad_cam": lambda m, x, t, _: _cam("grad_cam", m, x, t),
    "grad_cam_plus_plus": lambda m, x, t, _: _cam("grad_cam_plus_plus", m, x, t),
    "layer_cam": lambda m, x, t, _: _cam("layer_cam", m, x, t),
    "hires_cam": lambda m, x, t, _: _cam("hires_cam", m, x, t),
    "xgrad_cam": lambda m, x, t, _: _cam("xgrad_cam", m, x, t),
    "score_cam": lambda m, x, t, _: slow.score_cam(m, x, t, _values(m, x), [(2, 1), (2, 1)]),
    "occlusion": lambda m, x, t, _: slow.occlusion(m, x, t, (1, 1), (1, 1)),
    "rise": lambda m, x, t, _: slow.rise(m, x, t, slow.rise_masks((SIZE, SIZE), 1000))[0],
    "lrp_epsilon": lambda m, x, t, _: _lrp(m, x, t, "epsilon", "epsilon", "epsilon"),
    "lrp_z_plus": lambda m, x, t, _: _lrp(m, x, t, "z_plus", "z_plus", "z_plus"),
    "lrp_alpha2_beta1": lambda m, x, t, _: _lrp(m, x, t, *["alpha2_beta1"] * 3),
    "lrp_epsilon_plus": lambda m, x, t, _: _lrp(m, x, t, "z_plus", "z_plus", "epsilon"),
    "lrp_epsilon_plus_flat": lambda m, x, t, _: _lrp(m, x, t, "flat", "z_plus", "epsilon"),
    "deep_lift": lambda m, x, t, _: _summed(slow.deep_lift(_linear_layers(m), x, t)),
    # For a network of ReLUs, linear layers and biases.
    "transformer_lrp": lambda m, x, t, _: _summed(x * slow.gradients(m, [x], t)[0]),
    "guided_grad_cam": lambda m, x, t, _: (
        _rule(m, x, t, "guided_backprop") * _cam("grad_cam", m, x, t)
    ),
}
TOLERANCE = {"smooth_grad": 1e-4, "smooth_grad_squared": 1e-4, "var_grad": 1e-4, "guided_ig": 1e-3}


def _each(integral, model, x, t, nodes):
    """Integrate each image with the number of steps that it took."""
    parts = zip(x, t, nodes, strict=True)
    return np.concatenate([integral(model, i[None], c[None], int(n)) for i, c, n in parts])


def test_every_row_has_a_slow_version():
    # Rules have theirs in test_rules, attention in test_attention.
    attention = {"attention_rollout", "generic_attention", "legrad"}
    assert set(SLOW) | set(tfs.RULES) | attention == set(tfs.METHODS)
    for name, method in tfs.METHODS.items():
        assert method.composition is None or name in SLOW or name in attention


@pytest.mark.parametrize("name", SLOW)
def test_a_row_equals_its_definition(name, model, images):
    targets = np.array([1, 2])
    found = tfs.saliency_map(model, images, name, targets=targets, on_problem="ignore")
    reference = SLOW[name](model, images, targets, found.details.get(name))
    slow.near(found[name], reference, TOLERANCE.get(name, 1e-5))


@pytest.mark.slow
def test_all_rows_together_are_the_rows_alone(model, images):
    names = [name for name in tfs.METHODS if name in SLOW or name in tfs.RULES]
    together = tfs.saliency_map(model, images, names, targets=1, on_problem="ignore")
    for name in names:
        alone = tfs.saliency_map(model, images, name, targets=1, on_problem="ignore")
        tolerance = 1e-3 if name == "guided_ig" else 1e-5
        np.testing.assert_allclose(
            together[name], alone[name], atol=tolerance * np.abs(alone[name]).max(), rtol=0
        )


def test_reduction_is_the_methods_unless_it_is_told(model, images):
    signed = tfs.Method("signed", "gradient", tfs.InputXGradient(), "sum")
    names = [signed, "input_x_gradient", "gradient"]
    whole = tfs.attributions(model, images, names, targets=1)
    own = tfs.saliency_map(model, images, names, targets=1)
    told = tfs.saliency_map(model, images, names, targets=1, reduction="max_abs")
    slow.near(own["signed"], whole["signed"].sum(axis=-1))
    slow.near(own["gradient"], _summed(whole["gradient"]))
    for name in whole:
        slow.near(told[name], np.abs(whole[name]).max(axis=-1))
    with pytest.raises(tfs.OptionError, match="Unknown reduction: 'mean'"):
        tfs.saliency_map(model, images, tfs.Method("m", "gradient", None, "mean"))


def test_defaults_are_rows_of_one_backward_pass():
    assert all(tfs.METHODS[name].composition is None for name in DEFAULT_METHODS)
    world = synthetic.make_shapes(3, seed=5)
    few = ["smooth_grad", "grad_cam", "rect_grad"]
    result = tfs.evaluate(synthetic.shapes_model(), world, few)
    maps = tfs.saliency_map(synthetic.shapes_model(), world.images, few, targets=world.labels)
    for name in few:
        expected = tfs.METRICS["localization_auc"](maps[name], world.masks)
        assert result.of(name, "localization_auc") == pytest.approx(expected, rel=1e-5)
