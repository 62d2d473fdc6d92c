"""Every batch is checked and preprocessed once, before anything is computed."""

import keras
import numpy as np
import pytest
from keras import layers

import tfsaliency as tfs
from tfsaliency.engine import build


def _model(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((12, 12, 3)), layers.Conv2D(3, 3, activation="relu", name="conv"),
         layers.Flatten(), layers.Dense(3, activation="softmax", name="top")]
    )  # fmt: skip


MODEL, OTHERS = _model(0), (_model(1), _model(2))
IMAGES = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype(np.float32)
LABELS = np.arange(8) % 3
DATA = tfs.GroundTruth(IMAGES, LABELS, IMAGES[..., 0] > 0.5)
QUIET = {"verbose": 0, "on_problem": "ignore"}

# Calls of each public function with preprocess=, by name.
CALLS = {
    "saliency_map": lambda **o: tfs.saliency_map(MODEL, IMAGES, batch_size=3, **o),
    "attributions": lambda **o: tfs.attributions(MODEL, IMAGES, batch_size=3, **o),
    "sanity_check": lambda **o: tfs.sanity_check(MODEL, IMAGES, batch_size=3, **QUIET, **o),
    "smooth": lambda **o: tfs.sanity_check(
        MODEL, IMAGES, tfs.SmoothGrad(2), plan="all", **QUIET, **o
    ),
    "emprt": lambda **o: tfs.sanity_check(
        MODEL, IMAGES, plan="all", similarities="emprt", **QUIET, **o
    ),
    "random_logit_check": lambda **o: tfs.random_logit_check(MODEL, IMAGES, **QUIET, **o),
    "data_randomization_check": lambda **o: tfs.data_randomization_check(
        MODEL, IMAGES, permuted=OTHERS, **QUIET, **o
    ),
    "evaluate": lambda **o: tfs.evaluate(MODEL, DATA, "gradient", batch_size=3, **o),
}


@pytest.mark.parametrize("name", CALLS)
def test_preprocess_is_called_once_with_all_images(name):
    given = []
    CALLS[name](preprocess=lambda x: given.append(x.copy()) or x / 2)
    assert [len(each) for each in given] == [8]
    assert np.array_equal(given[0], IMAGES)


def test_a_stream_preprocesses_each_batch_once():
    given = []
    parts = [IMAGES[:3], IMAGES[3:6], IMAGES[6:]]
    maps = list(
        tfs.saliency_map_batches(
            MODEL, parts, preprocess=lambda x: given.append(len(x)) or x / 2, batch_size=2
        )
    )
    assert given == [3, 3, 2] and len(maps) == 3


@pytest.mark.parametrize("name", ["sanity_check", "random_logit_check", "data_randomization_check"])
def test_a_random_preprocess_gives_all_networks_the_same_images(name):
    """The verdict equals that of the preprocessed images, passed without preprocessing."""
    returned = []

    def noisy(x):
        rng = np.random.default_rng(len(returned))
        returned.append(x + rng.normal(size=x.shape).astype(x.dtype))
        return returned[-1]

    found = CALLS[name](preprocess=noisy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "IMAGES", returned[0])
        expected = CALLS[name]()
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.verdicts == expected.verdicts


def test_controls_are_those_of_the_preprocessed_images():
    found = tfs.evaluate(MODEL, DATA, "gradient", preprocess=lambda x: np.flip(x, axis=1).copy())
    flipped = tfs.GroundTruth(np.flip(IMAGES, axis=1).copy(), LABELS, DATA.masks)
    expected = tfs.evaluate(MODEL, flipped, "gradient")
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "smooth"])
def test_images_are_looked_at_before_anything_is_computed(name, monkeypatch):
    moved = np.moveaxis(IMAGES, -1, 1)
    model = keras.Sequential(
        [
            keras.Input((3, 12, 12)),
            layers.Permute((2, 3, 1)),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    monkeypatch.setitem(globals(), "MODEL", model)
    monkeypatch.setitem(globals(), "OTHERS", (model, model))
    monkeypatch.setitem(globals(), "IMAGES", moved)
    monkeypatch.setitem(
        globals(), "DATA", tfs.GroundTruth(moved, LABELS, np.ones((8, 3, 12), bool))
    )
    monkeypatch.setitem(QUIET, "on_problem", "raise")
    monkeypatch.setattr(build, "trace_gradients", lambda *_: pytest.fail("something is computed"))
    options = {} if "check" in name or name == "emprt" else {"on_problem": "raise"}
    with pytest.raises(tfs.MeaninglessMapError, match="channels_first"):
        CALLS[name](**options)
