"""Maps while a model trains: the files have the maps of each epoch, and training is unaffected."""

import importlib.util
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import tfsaliency as tfs
from tfsaliency.visualization.tiles import color_map

METHODS = ["gradient", "guided_backprop", "smooth_grad", "grad_cam"]
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype("float32")
LABELS = (IMAGES[:, :8].mean(axis=(1, 2, 3)) > IMAGES[:, 8:].mean(axis=(1, 2, 3))).astype(int)


def _model():
    """A network with all that draws random numbers or keeps statistics in training."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.RandomFlip(),
            layers.RandomRotation(0.1),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.SpatialDropout2D(0.2),
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class _Keep(keras.callbacks.Callback):
    """Keeps the weights of each epoch."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.get_weights())


def _fit(*callbacks, epochs=4):
    model = _model()
    history = model.fit(
        IMAGES, LABELS, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks)
    )
    states = (
        [v.numpy() for v in model.variables],
        [v.numpy() for v in model.optimizer.variables],
        history.history,
        random.random(),
        np.random.random(),
        tf.random.uniform(()).numpy(),
    )
    return model, states


def _events(folder):
    """The images of event files, decoded, by tag and step."""
    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                tensor = tf.make_ndarray(value.tensor)
                if value.metadata.plugin_data.plugin_name == "images":
                    tensor = np.stack([tf.io.decode_png(each).numpy() for each in tensor[2:]])
                found[value.tag, event.step] = tensor
    return found


def test_training_is_bit_for_bit_the_same(tmp_path):
    watch = tfs.SaliencyCallback(
        IMAGES[:2], METHODS, log_dir=tmp_path / "logs", png_dir=tmp_path / "png", targets=1
    )
    _, alone = _fit()
    _, watched = _fit(watch)
    for a, b in zip(keras.tree.flatten(alone), keras.tree.flatten(watched), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(watch.seconds) == 4 and min(watch.seconds) > 0


def test_tensorboard_has_the_maps_of_each_epoch(tmp_path):
    keep = _Keep()
    watch = tfs.SaliencyCallback(IMAGES[:3], METHODS, log_dir=tmp_path, every=2, targets=1)
    model, _ = _fit(keep, watch, epochs=5)
    found = _events(tmp_path)
    steps = {step for tag, step in found if tag == "saliency/gradient"}
    assert steps == {1, 3}
    np.testing.assert_array_equal(found["saliency/images", 1], IMAGES[:3].astype(np.uint8))
    assert ("saliency/images", 3) not in found
    for step in steps:
        model.set_weights(keep.weights[step])
        maps = tfs.saliency_map(model, IMAGES[:3], METHODS, targets=1)
        for name in METHODS:
            drawn = [tfs.overlay(IMAGES[i], maps[name][i]) for i in range(3)]
            np.testing.assert_array_equal(found[f"saliency/{name}", step], drawn)
        assert found["saliency/seconds", step] > 0


def test_figures_are_those_of_plot(tmp_path):
    keep = _Keep()
    watch = tfs.SaliencyCallback(IMAGES[:2], "gradient", png_dir=tmp_path, overlay=False)
    model, _ = _fit(keep, watch, epochs=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_0001.png", "epoch_0002.png"]
    model.set_weights(keep.weights[0])
    maps = tfs.saliency_map(model, IMAGES[:2])
    title = f"Epoch 1. Maps of the {maps.score}"
    maps.plot(title=title).savefig(tmp_path / "again.png")
    first, again = (Image.open(tmp_path / name) for name in ("epoch_0001.png", "again.png"))
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))


def test_one_trace_serves_all_epochs(tmp_path, monkeypatch):
    from tfsaliency.engine import kept_traces

    made = []
    build = kept_traces.build_trace
    monkeypatch.setattr(kept_traces, "build_trace", lambda *a: made.append(1) or build(*a))
    _fit(tfs.SaliencyCallback(IMAGES[:2], png_dir=tmp_path), epochs=3)
    assert len(made) == 1


def test_a_model_that_its_first_batch_builds_is_tried_behind_that(tmp_path):
    model = keras.Sequential(
        [layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(2, "softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    watch = tfs.SaliencyCallback(IMAGES[:2], "grad_cam", layer="nope", png_dir=tmp_path)
    batches = []
    count = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda b, logs: batches.append(b))
    with pytest.raises(tfs.OptionError, match="nope"):
        model.fit(IMAGES, LABELS, batch_size=8, callbacks=[watch, count], verbose=0)
    assert batches == [0]  # the second one did not begin


def test_a_folder_of_an_earlier_training_is_not_used_without_a_word(tmp_path):
    watch = tfs.SaliencyCallback(IMAGES[:2], png_dir=tmp_path / "png")
    _fit(watch, epochs=1)
    with pytest.warns(UserWarning, match="pictures of an earlier training"):
        _fit(watch, epochs=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(tfs.OptionError, match="the file"):
        _fit(tfs.SaliencyCallback(IMAGES[:2], png_dir=tmp_path / "file"))


def test_a_model_of_several_inputs_and_a_region(tmp_path):
    image, number = keras.Input((8, 8, 3), name="image"), keras.Input((2,), name="number")
    h = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    h = layers.Concatenate()([h, layers.Reshape((8, 8, 2))(layers.Dense(128)(number))])
    out = layers.Conv2D(2, 1, activation="softmax", name="classes")(h)
    model = keras.Model({"image": image, "number": number}, out)
    model.compile("sgd", "sparse_categorical_crossentropy")
    inputs = {"image": IMAGES[:8, :8, :8], "number": np.ones((8, 2))}
    region = np.zeros((8, 8))
    region[:4] = 1
    keep = _Keep()
    few = {name: array[:2] for name, array in inputs.items()}
    watch = tfs.SaliencyCallback(
        few, log_dir=tmp_path, input="image", targets=1, region=region, overlay=False
    )
    model.fit(inputs, np.zeros((8, 8, 8)), epochs=1, callbacks=[watch, keep], verbose=0)
    maps = tfs.saliency_map(tfs.prepare(model, input="image"), few, targets=1, region=region)
    drawn = [color_map(each.astype(float)) for each in maps["gradient"]]
    np.testing.assert_array_equal(_events(tmp_path)["saliency/gradient", 0], drawn)


def test_sequences_are_drawn_as_a_figure(tmp_path):
    model = keras.Sequential(
        [keras.Input((20, 1)), layers.Conv1D(4, 3, activation="relu"), layers.Flatten(),
         layers.Dense(2, activation="softmax")]
    )  # fmt: skip
    model.compile("sgd", "sparse_categorical_crossentropy")
    waves = np.random.default_rng(0).normal(size=(8, 20, 1))
    watch = tfs.SaliencyCallback(waves[:2], log_dir=tmp_path)
    model.fit(waves, np.arange(8) % 2, epochs=1, callbacks=[watch], verbose=0)
    drawn = _events(tmp_path)["saliency/figure", 0]
    assert drawn.ndim == 4 and len(np.unique(drawn)) > 50


def test_errors_come_before_training(tmp_path, monkeypatch):
    with pytest.raises(tfs.OptionError, match="Expected log_dir"):
        tfs.SaliencyCallback(IMAGES)
    with pytest.raises(tfs.OptionError, match="Did you mean 'gradient'"):
        tfs.SaliencyCallback(IMAGES, "gradiemt", png_dir=tmp_path)
    watch = tfs.SaliencyCallback(IMAGES[:2, :8], png_dir=tmp_path / "png")
    keep = _Keep()
    with pytest.raises(tfs.ImageError, match="16"):
        _fit(keep, watch)
    assert keep.weights == []
    cells = tfs.CAM(resize=False)
    for where in ("png_dir", "log_dir"):
        with pytest.raises(tfs.ImageError, match="overlay=False"):
            _fit(keep, tfs.SaliencyCallback(IMAGES[:2], cells, **{where: tmp_path / where}))
    assert keep.weights == []
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else found(name)
    )
    with pytest.raises(ImportError, match=r"pip install 'tfsaliency\[tensorboard\]'"):
        tfs.SaliencyCallback(IMAGES, log_dir=tmp_path)
    tfs.SaliencyCallback(IMAGES, png_dir=tmp_path)  # needs no TensorBoard
