"""Eight models of keras.applications, small and in float64, against overridden ops."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from setups import float64, slow_but

import tfsaliency as tfs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import coverage as benchmark

METHODS = benchmark.METHODS
# Options that make each small, and its ReLUs and gates.
MODELS = {
    "VGG16": ({"input_shape": (32, 32, 3), "classes": 10}, 15, 0),
    "ResNet50": ({"input_shape": (64, 64, 3), "classes": 10}, 49, 0),
    "DenseNet121": ({"input_shape": (64, 64, 3), "classes": 10}, 121, 0),
    "Xception": ({"input_shape": (71, 71, 3), "classes": 10}, 35, 0),
    "MobileNet": ({"input_shape": (64, 64, 3), "classes": 10, "alpha": 0.25}, 27, 0),
    "MobileNetV2": ({"input_shape": (64, 64, 3), "classes": 10, "alpha": 0.35}, 35, 0),
    "MobileNetV3Small": ({"input_shape": (64, 64, 3), "classes": 10, "alpha": 1.0}, 14, 28),
    "EfficientNetB0": ({"input_shape": (64, 64, 3), "classes": 10}, 0, 0),
}


@pytest.mark.parametrize("name", slow_but(MODELS, "VGG16", "MobileNetV2"))
def test_a_model_of_keras_applications(name):
    options, relus, gates = MODELS[name]
    keras.utils.set_random_seed(0)
    with float64():
        model = getattr(keras.applications, name)(weights=None, **options)
    low, high, *_ = tfs.models.ranges.find_trained_range(model)
    x = np.random.default_rng(0).uniform(low, high, model.input_shape[1:])[np.newaxis]
    methods = METHODS if relus else ["gradient"]
    if not relus:
        with pytest.raises(tfs.NoReluError):
            tfs.saliency_map(model, x, "guided_backprop")
    maps = tfs.attributions(model, x, methods)
    x = x.astype("float32")
    expected = benchmark.reference(model, x, int(maps.targets[0]), name, methods)
    for method in methods:
        largest = np.abs(expected[method]).max()
        assert largest > 0
        assert np.abs(maps[method] - expected[method]).max() <= 1e-4 * largest
        found = maps.coverage[method]
        assert (found.relus, found.reached, len(found.gates)) == (relus, relus, gates)
