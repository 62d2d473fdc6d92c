"""Sanity checks of sequences, volumes and features, and of layers that cannot be rebuilt."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers

import tfsaliency as tfs
from tfsaliency.evaluation.controls import edge_map

KINDS = {
    "sequences": ((24, 3), lambda: layers.Conv1D(6, 3, activation="relu", name="first")),
    "volumes": ((5, 6, 7, 2), lambda: layers.Conv3D(6, 3, activation="relu", name="first")),
    "features": ((30,), lambda: layers.Dense(12, activation="relu", name="first")),
}


def _model(kind):
    shape, first = KINDS[kind]
    return zoo.random_weights(
        keras.Sequential(
            [keras.Input(shape), first(), layers.Flatten(), layers.Dense(3, "softmax", name="top")]
        )
    )


AS_IMAGES = {"sequences": (1, 24, 3), "volumes": (5, 42, 2), "features": (1, 30, 1)}


@pytest.mark.parametrize("kind", KINDS)
def test_verdicts_of_sequences_volumes_and_features(kind, tmp_path):
    """The numbers are those of images with the same values in another arrangement."""
    model, (shape, _), flat = _model(kind), KINDS[kind], AS_IMAGES[kind]
    x = np.random.default_rng(4).normal(size=(8, *shape)).astype("float32")
    of_images = keras.Sequential([keras.Input(flat), layers.Reshape(shape), *model.layers])
    options = dict(seeds=2, verbose=0, on_problem="ignore")
    ours = tfs.sanity_check(model, x, ["gradient", "guided_backprop"], **options)
    theirs = tfs.sanity_check(
        of_images, x.reshape(8, *flat), ["gradient", "guided_backprop"],
        similarities="spearman", **options,
    )  # fmt: skip
    assert (
        ours.similarities
        == theirs.similarities
        == (
            "cosine",
            "cosine_signed",
            "spearman",
            "spearman (x != 0)",
        )
    )
    np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-4, atol=1e-5)
    assert ours.verdicts["gradient"][0].verdict == theirs.verdicts["gradient"][0].verdict
    noise = ours.explained_by["gradient"].noise
    assert noise == pytest.approx(theirs.explained_by["gradient"].noise, rel=1e-4)
    ours.save(tmp_path / "result.npz")
    assert str(tfs.SanityResult.load(tmp_path / "result.npz")) == str(ours)
    tfs.tile_cascade(ours)
    tfs.plot_similarities(ours)
    with pytest.raises(tfs.OptionError, match="spearman.*emprt. Received: ssim, which compare"):
        tfs.sanity_check(model, x, similarities=["pearson", "ssim"], verbose=0)


@pytest.mark.parametrize("kind", KINDS)
def test_other_checks_take_them_too(kind):
    model, shape = _model(kind), KINDS[kind][0]
    x = np.random.default_rng(4).normal(size=(8, *shape)).astype("float32")
    result = tfs.random_logit_check(model, x, seeds=2, verbose=0, on_problem="ignore")
    same = tfs.attributions(model, x, targets=result.targets, on_problem="ignore")
    np.testing.assert_allclose(result.scores, same.scores, rtol=1e-5)
    assert result.verdicts["gradient"][0].invariance < 0.4


def test_edges_of_sequences_and_volumes():
    steps = np.zeros((1, 9, 1))
    steps[:, 5:] = 1.0
    assert edge_map(steps)[0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0]
    ramp = np.broadcast_to(np.arange(6.0)[:, None, None], (1, 6, 5, 4))[..., np.newaxis]
    inside = edge_map(ramp)[0, 1:-1]
    np.testing.assert_allclose(inside, np.full(inside.shape, 2.0 * 16))  # smoothed by 1 2 1 twice


class _Unknown(layers.Layer):
    """A layer whose config does not say how it was made."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.size), initializer="ones", name="k")

    def call(self, x):
        return keras.ops.relu(x @ self.kernel)

    def get_config(self):
        return {"name": self.name}


def _with_unknown():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", name="known"),
            _Unknown(5, name="unknown"),
            layers.Flatten(),
            layers.Dense(3, "softmax", name="top"),
        ]
    )
    return zoo.random_weights(model)


def test_a_layer_that_cannot_be_rebuilt_is_matched():
    model, x = _with_unknown(), np.random.default_rng(4).normal(size=(8, 8, 8, 3)).astype("float32")
    options = dict(seeds=2, similarities="spearman", verbose=0, on_problem="ignore")
    result = tfs.sanity_check(model, x, plan="cascade", **options)
    assert result.settings["drawn by 'matched'"] == ("1 layer not rebuilt by config: unknown")
    assert "unknown" in str(result)
    matched = tfs.sanity_check(model, x, plan=["unknown"], randomizer="matched", **options)
    alone = tfs.sanity_check(model, x, plan=["unknown"], **options)
    np.testing.assert_array_equal(alone.values, matched.values)
    assert "drawn by 'matched'" not in matched.settings
    with pytest.raises(tfs.OptionError, match="Cannot (copy|rebuild the layer) 'unknown'"):
        tfs.randomize_layer(model.get_layer("unknown"), randomizer="initializer")
