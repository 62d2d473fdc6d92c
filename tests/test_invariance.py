"""input_invariance_check, and maps of the least likely class."""

from dataclasses import replace

import keras
import numpy as np
import pytest

import tfsaliency as tfs
from tfsaliency import synthetic

SIDE = 6


@pytest.fixture(scope="module")
def linear():
    """Two outputs without a bias, of weights that are returned."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), layers.Flatten(), layers.Dense(2, use_bias=False)]
    )
    return model, model.layers[-1].kernel.numpy().reshape(SIDE, SIDE, 3, 2)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(4, SIDE, SIDE, 3)).astype("float32")


def test_changes_under_a_shift_in_closed_form(linear, images):
    """x * w becomes (x + m) * w: the change is |m w| / |x w|."""
    model, weights = linear
    path = tfs.Method("path", composition=tfs.IntegratedGradients(baseline=0.0))
    moving = tfs.Method("moving", composition=tfs.IntegratedGradients(baseline="mean"))
    methods = ["gradient", "input_x_gradient", path, moving, "guided_backprop"][:4]
    found = tfs.input_invariance_check(model, images, methods, shift=0.5, targets=1, verbose=0)
    change = np.linalg.norm(0.5 * weights[..., 1]) / np.linalg.norm(
        (images * weights[..., 1]).reshape(4, -1), axis=1
    )
    for place in (1, 2):
        assert found.values[place] == pytest.approx(change, rel=1e-3)
    assert found.mean("input_x_gradient") == pytest.approx(change.mean(), rel=1e-3)
    assert (found.values[[0, 3]] < 1e-4).all()  # a mean color moves with the image
    verdicts = [found.verdict(name) for name in found.methods]
    assert verdicts == ["invariant", "not invariant", "not invariant", "invariant"]
    assert f"path              {change.mean():.2g}" in str(found)


def test_rules_of_relus_are_invariant():
    data = synthetic.make_shapes(4, seed=2)
    prepared = tfs.prepare(synthetic.shapes_model(), preprocess=lambda x: x / 2)
    found = tfs.input_invariance_check(prepared, data.images, ["guided_backprop", "zeiler_fergus"])
    assert found.settings["shift"] == f"{np.ptp(data.images) / 2:g}"
    assert {found.verdict(name) for name in found.methods} == {"invariant"}


def test_what_cannot_be_shifted(linear, images):
    model, _ = linear
    with pytest.raises(tfs.OptionError, match="shift"):
        tfs.input_invariance_check(model, images, shift=0.0, targets=0)
    with pytest.raises(tfs.ModelError, match=r"keras\.Model with one input"):
        tfs.input_invariance_check(lambda x: model(x), images)
    with pytest.raises(tfs.ModelError, match="smaller shift"):
        tfs.input_invariance_check(model, images, shift=1e7, targets=0)
    with pytest.raises(tfs.OptionError, match="Unknown method: 'gradientt'"):
        tfs.input_invariance_check(model, images, targets=0).mean("gradientt")


def test_the_least_likely_class_is_explained():
    data, model = synthetic.make_shapes(8, seed=5), synthetic.shapes_model()
    found = tfs.random_logit_check(
        model, data.images, ["gradient", "guided_backprop"], against="least_likely", seeds=1
    )
    outputs = model.predict(data.images.astype("float32"), verbose=0)
    pair = [
        tfs.attributions(model, data.images, "gradient", targets=targets)["gradient"]
        for targets in (outputs.argmax(axis=1), outputs.argmin(axis=1))
    ]
    expected = tfs.judge(pair[0], pair[1][np.newaxis])
    verdict = found.verdicts["gradient"][0]
    assert verdict.invariance == pytest.approx(expected.invariance, rel=1e-3, abs=1e-4)
    assert found.settings["check"].startswith("class sensitivity")
    assert verdict.signed < -0.5  # what speaks for one class speaks against the other
    assert tfs.verify(found, model, data.images).confirmed
    lowest = tfs.random_logit_check(
        model, data.images, against="least_likely", seeds=1, targets=outputs.argmin(axis=1)
    )  # where the least likely class is explained, the next one is the other
    assert lowest.verdicts["gradient"][0].invariance < 1
    with pytest.raises(tfs.OptionError, match="against"):
        tfs.random_logit_check(model, data.images, against="most_likely")


def test_a_binary_logit_a_fixed_batch_and_maps_of_zeros():
    images = np.random.default_rng(1).normal(size=(4, SIDE, SIDE, 1)).astype("float32")
    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(4, SIDE, SIDE, 1))
    flat = layers.Reshape((SIDE * SIDE,))(inputs)
    model = keras.Model(inputs, layers.Dense(1, kernel_initializer="ones")(flat))
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    for target in (0, 1):
        found = tfs.input_invariance_check(model, images, targets=target)
        assert found.verdict("gradient") == "invariant"
    model.layers[-1].kernel.assign(0 * model.layers[-1].kernel)
    found = tfs.input_invariance_check(model, images, targets=1)
    assert found.verdict("gradient") == "cannot tell"


def test_a_result_is_saved_verified_and_reported(tmp_path):
    data = synthetic.make_shapes(3, seed=2)
    model = synthetic.shapes_model()
    names = ["gradient", "input_x_gradient"]
    found = tfs.input_invariance_check(model, data.images, names, targets=[1, 2, 3], verbose=0)
    found.save(tmp_path / "found.npz")
    loaded = tfs.InputInvariance.load(tmp_path / "found.npz")
    assert str(loaded) == str(found) and (loaded.values == found.values).all()
    assert tfs.verify(tmp_path / "found.npz", model, data.images, verbose=0).confirmed
    other = replace(found, values=found.values * [[1], [0]])
    text = str(tfs.verify(other, model, data.images, verbose=0))
    assert "values: others" in text
    assert "verdict on input_x_gradient: not invariant, recorded invariant" in text
    text = str(tfs.verify(found, model, 255 - data.images, verbose=0))
    assert "pixels of image 2" in text
    tfs.write_report(tmp_path / "report.html", sanity=loaded, verbose=0)
    page = (tmp_path / "report.html").read_text()
    assert "A constant of 255 was added" in page and "input_x_gradient: not invariant." in page
    assert "not invariant" in found._repr_html_()
    axis = found.plot().axes[0]
    assert [line.get_xdata().max() for line in axis.lines[:2]] == pytest.approx(
        np.maximum(found.values, 1e-8).max(axis=1)
    )


@pytest.mark.parametrize("name", ["values", "methods", "record"])
def test_a_damaged_result_is_refused(name, tmp_path):
    model, images = synthetic.shapes_model(), synthetic.make_shapes(2, seed=2).images
    found = tfs.input_invariance_check(model, images, verbose=0)
    wrong = {"values": found.values[:, :0], "methods": ("gradient", "other"), "record": 3}
    replace(found, **{name: wrong[name]}).save(tmp_path / "found.npz")
    with pytest.raises(tfs.ResultError, match=r"InputInvariance\.save"):
        tfs.InputInvariance.load(tmp_path / "found.npz")
