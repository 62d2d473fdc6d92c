"""Shared fixtures: the data folder, and networks with real weights."""

import functools
import os
import shutil
import tempfile
from pathlib import Path

# Keras reads these at import. Tests neither use nor fill the cache in the home folder.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["KERAS_HOME"] = tempfile.mkdtemp(prefix="keras-home-")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Without it, results have the same bits in each trace; TF_ENABLE_ONEDNN_OPTS=1 tests with it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import pytest
from setups import float64

import tfsaliency as tfs
from tfsaliency.synthetic.networks import build_shapes_model

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TFSALIENCY_TEST_DATA", ROOT.parent / "shared" / "data"))


def pytest_sessionfinish():
    shutil.rmtree(os.environ["KERAS_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of weights, photos and published figures, which users do not have."""
    if not DATA.is_dir():
        pytest.skip(f"no test data in {DATA}; set TFSALIENCY_TEST_DATA to a folder that has it")
    return DATA


@pytest.fixture(scope="session")
def squeezenet(data) -> keras.Model:
    """SqueezeNet v1.1 with its ImageNet weights."""
    return tfs.models.SqueezeNet(data / "squeezenet_v1.1.bin")


@pytest.fixture(scope="session")
def labels(data) -> list[str]:
    """The ImageNet class names, in the Keras cache, so that nothing is downloaded."""
    return _with_keras_home(data)


@pytest.fixture(scope="session")
def keras_home(data) -> Path:
    """A Keras cache with the weights file and the class names."""
    _with_keras_home(data)
    return Path(os.environ["KERAS_HOME"])


def _with_keras_home(data: Path) -> list[str]:
    folder = Path(os.environ["KERAS_HOME"]) / "models"
    folder.mkdir(exist_ok=True)
    for name in ("imagenet_class_index.json", "squeezenet_v1.1.bin"):
        shutil.copy(data / name, folder)
    from tfsaliency.models.imagenet import imagenet_class_names

    return imagenet_class_names()


@pytest.fixture(scope="session", autouse=True)
def one_network_of_the_wheel():
    """Share the trained networks of the wheel, and their traces, among all tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("shapes_model", "permuted_label_models"):
            patch.setattr(tfs.synthetic, name, functools.cache(getattr(tfs.synthetic, name)))
        yield


@pytest.fixture(scope="session")
def exact_shapes_model() -> keras.Model:
    """The trained network of the wheel in float64: for comparisons with slow versions."""
    with float64():
        model = build_shapes_model()
    model.set_weights(tfs.synthetic.shapes_model().get_weights())
    return model


@pytest.fixture(scope="session")
def exact_squeezenet(squeezenet) -> keras.Model:
    """SqueezeNet with its weights in float64."""
    with float64():
        model = tfs.models.SqueezeNet(weights=None)
    model.set_weights(squeezenet.get_weights())
    return model
