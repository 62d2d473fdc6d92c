"""Mutated photos and result files, and odd arguments: only errors of our own come out.

docs/reliability.md has the counts.
"""

import io
import warnings
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, features

import tfsaliency as tfs
from tfsaliency import synthetic

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

pytestmark = pytest.mark.slow
often = partial(
    settings, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip


# Photos.

FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "ICO", "TGA", "PPM", "PCX", "SGI", "DDS", "MPO"]
FORMATS += [name for name in ("WEBP", "AVIF") if features.check(name.lower())]
FORMATS += ["JPEG2000"] if features.check("jpg_2000") else []


def _photo(name):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype="uint8"))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x0132] = 6, "a photo", "2026:11:27 10:00:00"
    file = io.BytesIO()
    options = {"exif": exif} if name in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "MPO") else {}
    image.save(file, name, **options)
    return file.getvalue()


PHOTOS = [_photo(name) for name in FORMATS]


@st.composite
def mutants(draw, originals):
    """Bytes with some values changed, removed, repeated, cut off or taken from another file."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        # Half of all changes are in the header.
        at = at % 64 if draw(st.booleans()) else at
        kind = draw(st.integers(0, 5))
        if kind == 0 and data:
            data[at % len(data)] = draw(st.integers(0, 255))
        elif kind == 1 and data:
            data[at % len(data)] ^= 1 << draw(st.integers(0, 7))
        elif kind == 2:
            del data[at : at + draw(st.integers(1, 16))]
        elif kind == 3:
            data[at:at] = draw(st.binary(max_size=16))
        elif kind == 4:
            del data[draw(st.integers(0, len(data))) :]
        else:
            other = draw(st.sampled_from(originals))
            data[at : at + 32] = other[at : at + 32]
    return bytes(data)


def test_mutated_photos(tmp_path):
    path, outcomes = tmp_path / "photo", {"read": 0, "refused": 0}

    @often(max_examples=10_000)
    @given(mutants(PHOTOS))
    def attack(data):
        path.write_bytes(data)
        try:
            image = tfs.load_images(path, size=(16, 16))
        except tfs.ImageError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert image.shape == (1, 16, 16, 3) and np.isfinite(image).all()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd files
        attack()
    print(outcomes)
    assert min(outcomes.values()) > 1000


# Result files.


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A file of each kind: its bytes, and the class that reads it."""
    folder = tmp_path_factory.mktemp("results")
    model, world = synthetic.shapes_model(), synthetic.make_shapes(8, seed=0)
    options = {"plan": "all", "seeds": 1, "similarities": "spearman", "verbose": 0}
    made = [
        tfs.saliency_map(model, world.images[:2], ["gradient", "grad_cam"]),
        tfs.sanity_check(model, world.images, **options, on_problem="ignore"),
        tfs.evaluate(model, world, "gradient"),
        tfs.csc_profile(model, world.images, start="conv8", verbose=0),
        tfs.input_invariance_check(model, world.images[:2], verbose=0),
    ]
    files = []
    for result in made:
        result.save(folder / "result.npz")
        files.append(((folder / "result.npz").read_bytes(), type(result)))
    return files


def test_mutated_results(results, tmp_path):
    path, outcomes = tmp_path / "result.npz", {"read": 0, "refused": 0}
    kinds = {data: kind for data, kind in results}

    @often(max_examples=3_000)
    @given(st.data())
    def attack(draw):
        original = draw.draw(st.sampled_from(sorted(kinds, key=len)))
        path.write_bytes(draw.draw(mutants([original])))
        try:
            loaded = kinds[original].load(path)
        except tfs.ResultError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert str(loaded) and repr(loaded)

    attack()
    print(outcomes)
    assert outcomes["refused"] > 1000


# Arguments.

MODEL = keras.Sequential(
    [
        keras.Input((12, 12, 3)),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, activation="softmax"),
    ]
)
IMAGES = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype("float32")


class _Odd:
    def __repr__(self):
        return "odd"


class _Raises:
    """An array-like whose conversion fails."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("no array")

    def __len__(self):
        return 2


ODD = [
    None, True, False, 0, 1, -1, 2, 3, 10**30, 0.5, 2.0, -0.0, np.nan, np.inf, 1j,
    "", "gradient", "grad_cam", "x", "0", "\0", "é" * 300, b"gradient", (), [], {}, set(), [None],
    [0, 1], [1, 0, 2], (0, 1), [0.5, 1], ["gradient", "gradient"], ["a", "b", "c"], {"a": 1},
    {0, 1}, {"gradient"}, range(2), iter([1, 2]), [[0], [1]], [[0, 1, 0], [1, 0, 0]], [[0, 1], [1]],
    np.array(1), np.zeros(0), np.zeros(2), np.ones((2, 3)), np.eye(3), np.zeros((12, 12)),
    np.zeros((2, 12, 12, 3)), np.ones((1, 12, 12, 3), np.uint8), np.full((2, 12, 12, 3), np.nan),
    np.full((2, 12, 12, 3), 1e300), np.zeros((2, 12, 12, 4)), np.zeros((0, 12, 12, 3)),
    np.array(["a"]), np.array([None]), np.array([object()]), np.ones(2, bool), np.ones(2, complex),
    np.ma.masked_array([1, 2], [True, False]), np.datetime64("2026-11-27"), np.float16(1),
    tf.constant([0, 1]), tf.zeros((2, 12, 12, 3)), tf.ragged.constant([[1], [1, 2]]),
    tf.sparse.from_dense([[1.0]]), tf.data.Dataset.range(2), tf.Variable(1.0),
    MODEL, MODEL.layers[0], MODEL.layers[-1], keras, keras.Model, keras.layers.ReLU(), _Odd(),
    _Raises(),
    Image.new("RGB", (12, 12)), [Image.new("L", (3, 3))], Image.new("I;16", (12, 12)),
    lambda: None, lambda x: x, lambda x, y: x, lambda x, y: x[:, 0], len,
    lambda *a, **k: None,
    tfs.SmoothGrad(samples=2), tfs.CAM(), tfs.CAM(layer="none"), tfs.Method("m"), tfs.METHODS,
    tfs.METHODS["gradient"], tfs.SIMILARITIES["spearman"], tfs.RANDOMIZERS["matched"],
    Exception("e"),
]  # fmt: skip
SHAPES = synthetic.make_shapes(2, seed=0)
ATTRIBUTIONS = np.random.default_rng(1).normal(size=(2, 5, 5, 3))
FULL = {
    "saliency_map": (tfs.saliency_map, {"model": MODEL, "images": IMAGES}, {
        "methods", "targets", "class_names", "score", "preprocess", "reduction", "layer", "region",
        "batch_size", "on_problem",
    }),
    "attributions": (tfs.attributions, {"model": MODEL, "images": IMAGES}, {"methods", "targets"}),
    "prepare": (tfs.prepare, {"model": MODEL}, {
        "score", "preprocess", "input", "output", "precision", "jit_compile",
    }),
    "load_images": (tfs.load_images, {"paths": Image.new("RGB", (9, 9)), "size": (4, 4)}, {
        "model", "fit",
    }),
    "sanity_check": (
        tfs.sanity_check,
        {"model": MODEL, "images": IMAGES, "seeds": 1, "plan": "all", "similarities": "pearson",
         "verbose": 0},
        {"methods", "randomizer", "retarget", "baseline", "targets", "on_problem"},
    ),
    "random_logit_check": (
        tfs.random_logit_check,
        {"model": MODEL, "images": IMAGES, "seeds": 1, "similarities": "pearson", "verbose": 0},
        {"targets", "score"},
    ),
    "evaluate": (
        tfs.evaluate,
        {"model": synthetic.shapes_model(), "data": SHAPES, "methods": "gradient"},
        {"reduction", "score", "seed", "batch_size", "on_problem"},
    ),
    "tile_input_and_maps": (
        tfs.tile_input_and_maps,
        {"image": np.zeros((4, 4, 3)), "maps": [np.eye(4)], "labels": ["a", "b"]},
        {"title", "cmap", "percentile"},
    ),
    "overlay": (
        tfs.overlay, {"image": np.zeros((4, 4, 3)), "saliency_map": np.eye(4)},
        {"cmap", "strength", "percentile"},
    ),
    "similarity_to": (tfs.similarity_to, {"vectors": np.ones(3)}, set()),
    "on_logits": (tfs.on_logits, {"function": len}, set()),
    "randomize_layer": (tfs.randomize_layer, {"layer": MODEL.layers[0]}, {"randomizer", "seed"}),
    "CAM": (tfs.CAM, {}, {"weights", "layer", "rule", "grid", "prefix", "relu", "resize"}),
    "SmoothGrad": (tfs.SmoothGrad, {}, {"samples", "noise", "seed", "inner", "statistic"}),
    "IntegratedGradients": (tfs.IntegratedGradients, {}, {
        "baseline", "tolerance", "steps", "max_steps", "inner",
    }),
    "make_shapes": (synthetic.make_shapes, {"n": 1, "seed": 0}, {"size", "variant"}),
    "closed_form_model": (synthetic.closed_form_model, {"name": "xor"}, {"size", "seed"}),
    "judge": (tfs.judge, {"trained": ATTRIBUTIONS, "randomized": ATTRIBUTIONS[None]}, set()),
    "tile_ground_truth": (
        tfs.tile_ground_truth, {"data": SHAPES, "maps": {"a": SHAPES.images.mean(-1)}},
        {"labels", "title"},
    ),
    "tile_cascade": (tfs.tile_cascade, {"result": None}, set()),
    "plot_similarities": (tfs.plot_similarities, {"result": None}, set()),
    "plot_evaluation": (tfs.plot_evaluation, {"evaluation": None}, set()),
    "randomize_model_parameters": (
        tfs.randomize_model_parameters, {"model": MODEL, "start": 0},
        {"count", "randomizer", "seed"},
    ),
    "saliency_map_batches": (
        lambda **o: list(tfs.saliency_map_batches(**o)), {"model": MODEL, "batches": [IMAGES]},
        {"targets", "batch_size", "region"},
    ),
    "Method": (tfs.Method, {"name": "m"}, {"rule", "composition", "reduction"}),
}  # fmt: skip


@st.composite
def calls(draw):
    """A function, and its arguments, of which one or two are odd."""
    name = draw(st.sampled_from(sorted(FULL)))
    _, needed, others = FULL[name]
    arguments = dict(needed)
    names = sorted({*needed, *others})
    for _ in range(draw(st.integers(1, 2)) if names else 0):
        arguments[draw(st.sampled_from(names))] = draw(st.integers(0, len(ODD) - 1))
    return name, arguments


def test_odd_arguments():
    outcomes = {"returned": 0, "refused": 0}

    @often(max_examples=10_000)
    @given(calls())
    def attack(call):
        name, arguments = call
        function, needed, _ = FULL[name]
        given = {
            key: ODD[value] if isinstance(value, int) and needed.get(key) is not value else value
            for key, value in arguments.items()
        }
        try:
            function(**given)
            outcomes["returned"] += 1
        except (tfs.TfSaliencyError, ImportError):
            outcomes["refused"] += 1
        except Exception:  # of a function that the caller gives; it is passed on
            if not any(callable(given.get(key)) for key in ("methods", "preprocess")):
                raise

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attack()
    print(outcomes)
    assert min(outcomes.values()) > 100


def test_every_odd_value_of_every_argument():
    tried = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for function, needed, others in FULL.values():
            for key in sorted({*needed, *others}):
                for odd in ODD:
                    tried += 1
                    try:
                        function(**{**needed, key: odd})
                    except (tfs.TfSaliencyError, ImportError):
                        pass
                    except Exception:  # of a function that the caller gives
                        if key not in ("methods", "preprocess") or not callable(odd):
                            raise
    print(tried)
    assert tried > 5000
