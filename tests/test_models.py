"""SqueezeNet: its architecture, weights file and download, and its classification of photos."""

import hashlib
import http.server
import json
import os
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image, ImageOps

import tfsaliency as tfs
from tfsaliency.models import squeezenet as module
from tfsaliency.models.squeezenet import decode_predictions, preprocess_input

DOG = ["English setter", "miniature schnauzer", "Tibetan terrier"]


def _top(model, images, n=1):
    return np.argsort(model.predict(preprocess_input(images), verbose=0), axis=-1)[:, ::-1][:, :n]


def test_the_dog_of_the_original(squeezenet, data, labels):
    x = tfs.load_images(data / "seed" / "anansi.jpg", squeezenet, fit="squash")
    (scores,) = squeezenet.predict(preprocess_input(x), verbose=0)
    best = np.argsort(scores)[::-1][:3]
    assert [labels[k] for k in best] == DOG
    np.testing.assert_allclose(scores[best], [0.640, 0.136, 0.054], atol=0.01)
    decoded = decode_predictions(scores[np.newaxis], top=3)[0]
    assert [name for _, name, _ in decoded] == [name.replace(" ", "_") for name in DOG]
    assert decoded[0][0] == "n02100735"


def test_the_imagenet_photos(squeezenet, data):
    index = json.loads((data / "imagenet_class_index.json").read_text())
    of = {wnid: int(k) for k, (wnid, _) in index.items()}
    photos = sorted((data / "imagenet").glob("*.JPEG"))
    truth = np.array([of[photo.name.split("_")[0]] for photo in photos])
    assert len(photos) == 48
    right = {}
    for fit in ("crop", "squash"):
        right[fit] = (
            _top(squeezenet, tfs.load_images(photos, squeezenet, fit=fit))[:, 0] == truth
        ).sum()
    assert right == {"crop": 48, "squash": 43}


def test_crop_is_pillows_fit(squeezenet, data):
    photo = sorted((data / "imagenet").glob("*.JPEG"))[0]
    with Image.open(photo) as image:
        fitted = ImageOps.fit(image.convert("RGB"), (227, 227), Image.Resampling.BICUBIC)
    assert np.array_equal(tfs.load_images(photo, squeezenet)[0], np.asarray(fitted, "float32"))


def test_the_architecture_by_hand():
    model = tfs.models.SqueezeNet(weights=None)
    assert model.count_params() == 1_235_496
    sizes = {name: model.get_layer(name).output.shape[1:] for name in ("conv1", "pool1", "pool3")}
    assert sizes == {"conv1": (113, 113, 64), "pool1": (56, 56, 64), "pool3": (28, 28, 128)}
    assert model.get_layer("pool5").output.shape[1:] == (14, 14, 256)
    names = [layer.name for layer in model.layers]
    assert names[:4] == ["data", "conv1", "relu_conv1", "pool1"]
    assert names[-5:] == ["drop9", "conv10", "relu_conv10", "pool10", "prob"]
    assert len(names) == 67  # MATLAB's 68 without its classification layer
    assert {"fire9-expand3x3", "fire2-relu_squeeze1x1", "fire5-concat"} < set(names)
    headless = tfs.models.SqueezeNet(weights=None, include_softmax=False, classes=7)
    assert headless.output_shape == (None, 7) and headless.layers[-1].name == "pool10"


@pytest.mark.parametrize("size", [(17, 17), (32, 32), (33, 64), (64, 57), (128, 129), (224, 224)])
def test_pools_round_up_as_caffe_does(size):
    model = tfs.models.SqueezeNet(weights=None, classes=3, input_shape=(*size, 3))
    for axis, side in enumerate(size):
        side = (side - 3) // 2 + 1
        for pool in ("pool1", "pool3", "pool5"):
            side = -(-(side - 3) // 2) + 1
            assert model.get_layer(pool).output.shape[1 + axis] == side


@pytest.mark.parametrize("size", [(12, 12), (13, 13), (12, 13), (13, 12)])
def test_a_caffe_pool_takes_the_maximum_of_what_is_there(size):
    inputs = keras.Input((*size, 2))
    pool = keras.Model(inputs, module._caffe_pool(inputs, "pool"))
    x = np.random.default_rng(0).uniform(size=(1, *size, 2)).astype("float32")
    y = pool(x).numpy()[0]
    for i, j in np.ndindex(y.shape[:2]):
        window = x[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        np.testing.assert_array_equal(y[i, j], window.max(axis=(0, 1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 10}, "classes=1000 with trained weights"),
        ({"weights": None, "input_shape": (227, 227, 1)}, r"\(h, w, 3\)"),
        ({"weights": None, "input_shape": (None, None, 3)}, r"\(h, w, 3\)"),
        ({"weights": None, "input_shape": (16, 227, 3)}, "at least 17 x 17"),
        ({"weights": None, "input_shape": 227}, r"\(h, w, 3\)"),
        ({"weights": None, "classes": 0}, "classes as an int of at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(tfs.OptionError, match=message):
        tfs.models.SqueezeNet(**arguments)


def test_preprocess_input_by_hand():
    rgb = np.array([[[[1, 2, 3], [255, 0, 128]]]], dtype="uint8")
    expected = [[[[3 - 104, 2 - 117, 1 - 123], [128 - 104, 0 - 117, 255 - 123]]]]
    for form in (rgb, rgb.astype("float32"), rgb.astype("float64"), keras.ops.array(rgb)):
        given = np.array(form)
        result = preprocess_input(form)
        np.testing.assert_array_equal(np.array(result), expected)
        np.testing.assert_array_equal(np.array(form), given)
    assert preprocess_input(rgb).dtype == np.float32
    assert preprocess_input(rgb.astype("float64")).dtype == np.float64


def test_a_file_that_is_not_the_weights(data, tmp_path):
    good = (data / "squeezenet_v1.1.bin").read_bytes()
    path = tmp_path / "weights.bin"
    altered = bytearray(good)
    altered[1000] ^= 1
    for bad, message in [
        (good[:-1], "Received: 2478983 bytes"),
        (good + b"\0", "Received: 2478985 bytes"),
        (bytes(altered), "Received: 2478984 bytes, altered"),
        (b"", "Received: 0 bytes"),
    ]:
        path.write_bytes(bad)
        with pytest.raises(tfs.WeightsError, match=message):
            tfs.models.SqueezeNet(path)
    with pytest.raises(tfs.WeightsError, match="No such file"):
        tfs.models.SqueezeNet(tmp_path / "none.bin")
    with pytest.raises(tfs.WeightsError, match="directory"):
        tfs.models.SqueezeNet(tmp_path)
    with pytest.raises(tfs.WeightsError, match="Cannot read the weights file 5"):
        tfs.models.SqueezeNet(5)


class _Server:
    """A server on loopback that answers every request with the same bytes, and counts them."""

    def __init__(self, body: bytes, announced: int | None = None):
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests += 1
                self.send_response(200)
                self.send_header("Content-Length", str(announced or len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/weights.bin"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def empty_cache(monkeypatch):
    """The Keras cache without the weights file, restored after the test."""
    folder = Path(os.environ["KERAS_HOME"]) / "models"
    folder.mkdir(exist_ok=True)
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    for path in kept:
        path.unlink()
    yield folder
    for path in folder.iterdir():
        path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)


def test_weights_are_downloaded_once(data, empty_cache, monkeypatch):
    good = (data / "squeezenet_v1.1.bin").read_bytes()
    assert hashlib.sha256(good).hexdigest() == module.WEIGHTS_SHA256
    with _Server(good) as server:
        monkeypatch.setattr(module, "WEIGHTS_URL", server.url)
        first, second = tfs.models.SqueezeNet(), tfs.models.SqueezeNet()
        assert server.requests == 1
    from_file = tfs.models.SqueezeNet(data / "squeezenet_v1.1.bin")
    for a, b, c in zip(*(m.get_weights() for m in (first, second, from_file)), strict=True):
        assert np.array_equal(a, b) and np.array_equal(a, c)
    assert [path.read_bytes() for path in empty_cache.iterdir()] == [good]


@pytest.mark.parametrize("case", ["short", "altered", "cut off", "not found", "no network"])
def test_a_failed_download_leaves_nothing(case, data, empty_cache, monkeypatch):
    good = (data / "squeezenet_v1.1.bin").read_bytes()
    body = {"altered": good[:-1] + b"x", "short": good[:5000], "cut off": good[:5000]}.get(
        case, b""
    )
    with _Server(body, announced=len(good) if case == "cut off" else None) as server:
        url = server.url
        if case == "not found":
            monkeypatch.setattr(
                server.server.RequestHandlerClass, "do_GET", lambda self: self.send_error(404)
            )
        if case == "no network":
            url = "http://127.0.0.1:9/weights.bin"  # nothing listens there
        monkeypatch.setattr(module, "WEIGHTS_URL", url)
        ways = r"http://127.0.0.1.*--weights.*extra `imagenet`.*--model efficientnetlite0"
        with pytest.raises(tfs.WeightsError, match=ways):
            tfs.models.SqueezeNet()
    assert list(empty_cache.iterdir()) == []


def test_a_damaged_cache_is_downloaded_again(data, empty_cache, monkeypatch):
    good = (data / "squeezenet_v1.1.bin").read_bytes()
    (empty_cache / module.WEIGHTS_NAME).write_bytes(good[:100])
    with _Server(good) as server:
        monkeypatch.setattr(module, "WEIGHTS_URL", server.url)
        tfs.models.SqueezeNet()
        assert server.requests == 1
    assert (empty_cache / module.WEIGHTS_NAME).read_bytes() == good
