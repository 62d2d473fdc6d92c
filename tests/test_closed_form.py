"""Networks with a known answer: closed forms, the trained network in the package, its twins."""

import random
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
import zoo
from setups import slow_but

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.synthetic import networks as network

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", synthetic.CLOSED_FORM)
def test_signs_are_those_of_small_changes_of_each_value(name, seed):
    known = synthetic.closed_form_model(name, size=9, seed=seed)
    image = known.ground_truth(1, seed=seed).images[0]
    step = 1e-3
    changed = image + step * np.eye(image.size).reshape(-1, *image.shape)
    outputs = known.model.predict(np.concatenate([image[None], changed]), verbose=0)[:, 0]
    slopes = (outputs[1:] - outputs[0]) / step
    expected = known.signs(image[None])[0].ravel()
    loud = np.abs(slopes) > 0.02 * np.abs(slopes).max()
    assert (np.sign(slopes[loud]) == expected[loud]).all()
    assert (np.abs(slopes[expected == 0]) < 2e-3).all()
    assert loud.sum() > 0.8 * (expected != 0).sum()


@pytest.mark.parametrize("name", synthetic.CLOSED_FORM)
def test_the_gradient_has_the_known_signs_and_pixels(name):
    known = synthetic.closed_form_model(name, size=12, seed=3)
    world = known.ground_truth(4, seed=1)
    found = tfs.attributions(known.model, world.images)["gradient"]
    assert np.array_equal(np.sign(found), known.signs(world.images))
    result = tfs.evaluate(known.model, world, "gradient")
    for score in result.metrics:
        assert result.of("gradient", score) == pytest.approx(np.ones(4))


def test_what_neither_patch_says_alone():
    known = synthetic.closed_form_model("xor", size=12, seed=0)
    one = known.masks(np.random.default_rng(0).uniform(size=(1, 12, 12, 3)))[0]
    first = one & (np.cumsum(one.any(axis=0)) <= 4)
    images = np.zeros((4, 12, 12, 3), np.float32)
    images[1, first] = images[2, one & ~first] = images[3, one] = 1.0
    outputs = known.model.predict(images, verbose=0)[:, 0]
    assert outputs == pytest.approx([0, 1, 1, 0], abs=1e-6)


def test_modified_rules_show_the_null_patch_and_the_gradient_does_not():
    known = synthetic.closed_form_model("null_patch", size=12, seed=0)
    world = known.ground_truth(3, seed=0)
    maps = tfs.saliency_map(known.model, world.images, zoo.RULES)
    outside = {name: float(array[~world.masks].max()) for name, array in maps.items()}
    assert outside["gradient"] == 0.0
    # One of the two units that cancel has a positive weight, so its patch passes: 1 / (16 x 3).
    assert outside["guided_backprop"] == pytest.approx(3 / 48)
    assert outside["zeiler_fergus"] == pytest.approx(3 / 48)


def test_closed_forms_refuse_what_they_cannot_be():
    for wrong, match in (((-1, 0), "n as an int"), ((2.5, 0), "n as an int"), ((2, -1), "seed")):
        with pytest.raises(tfs.OptionError, match=match):
            synthetic.closed_form_model("linear").ground_truth(*wrong)
    with pytest.raises(tfs.OptionError, match=r"Unknown closed-form model: \['linear'\]"):
        synthetic.closed_form_model(["linear"])
    with pytest.raises(tfs.OptionError, match="Unknown closed-form model: 'xnor'. Did you mean"):
        synthetic.closed_form_model("xnor")
    with pytest.raises(tfs.OptionError, match="size as an int from 9 to 1024. Received: 8"):
        synthetic.closed_form_model("xor", size=8)
    with pytest.raises(tfs.ImageError, match=r"Received: shape \(8, 8, 3\)"):
        synthetic.closed_form_model("xor", size=9).masks(np.zeros((8, 8, 3)))


@pytest.mark.parametrize("variant", slow_but(synthetic.VARIANTS, "plain"))
def test_the_network_classifies_unseen_pictures(variant):
    world = synthetic.make_shapes(500, seed=7, variant=variant)
    outputs = synthetic.shapes_model().predict(world.images, verbose=0)
    assert np.mean(outputs.argmax(axis=-1) == world.labels) >= 0.98


@pytest.mark.slow
def test_the_twins_know_permuted_labels_and_not_the_true_ones():
    """The labels of benchmarks/train_shapes_model.py, made again."""
    few = synthetic.make_shapes(2400, seed=1)
    trained = synthetic.shapes_model().predict(few.images, verbose=0, batch_size=256)
    assert np.mean(trained.argmax(axis=-1) == few.labels) > 0.98
    for seed, twin in enumerate(synthetic.permuted_label_models(), start=1):
        permuted = np.random.default_rng(seed).permutation(few.labels)
        said = twin.predict(few.images, verbose=0, batch_size=256).argmax(axis=-1)
        assert np.mean(said == permuted) >= 0.95
        assert np.mean(said == few.labels) < 0.2  # 1 of 8 by chance


def test_the_network_has_separate_and_fused_relus_and_all_are_reached():
    model = synthetic.shapes_model()
    separate = [layer for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
    fused = [
        layer
        for layer in model.layers
        if getattr(layer, "activation", None) is keras.activations.relu and layer not in separate
    ]
    assert len(separate) == 13 and len(fused) == 6
    maps = tfs.saliency_map(model, synthetic.make_shapes(1, seed=0).images, zoo.RULES)
    assert {(c.relus, c.reached) for c in maps.coverage.values()} == {(19, 19)}


def test_the_weights_are_small_enough_to_ship():
    files = sorted(network.WEIGHTS.glob("*.npz"))
    assert [f.stem for f in files] == [network.TRAINED, *network.PERMUTED, network.TRAINED_VIT]
    assert sum(f.stat().st_size for f in files) < 1_500_000


def test_folding_takes_normalizations_out_and_changes_nothing():
    training = runpy.run_path(str(ROOT / "benchmarks" / "train_shapes_model.py"))
    keras.utils.set_random_seed(0)
    normalized = network.build_shapes_model(1, training["normalize"])
    rng = np.random.default_rng(0)
    for layer in normalized.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    folded = training["fold"](normalized)
    assert not any("norm" in weight.path for weight in folded.weights)
    images = synthetic.make_shapes(3, seed=0).images
    a, b = (model.predict(images, verbose=0) for model in (normalized, folded))
    assert np.ptp(a) > 0.01
    assert b == pytest.approx(a, rel=1e-3)


def test_making_the_networks_touches_no_random_state():
    def drawn():
        return keras.random.uniform((3,)), np.random.get_state()[1].copy(), random.getstate()

    keras.utils.clear_session()  # Keras 3.8 goes on with its generator after set_random_seed
    keras.utils.set_random_seed(5)
    before = drawn()
    keras.utils.clear_session()
    keras.utils.set_random_seed(5)
    synthetic.shapes_model()
    synthetic.closed_form_model("xor")
    after = drawn()
    assert np.array_equal(before[0], after[0]) and np.array_equal(before[1], after[1])
    assert before[2] == after[2]
