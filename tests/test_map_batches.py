"""saliency_map_batches: the maps of saliency_map, batch by batch, fetched ahead."""

import threading
import time
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo

import tfsaliency as tfs

N = 7
LABELS = np.array([0, 3, 2, 1, 1, 0, 2])


@pytest.fixture(scope="module")
def model():
    return zoo.SPELLINGS["ReLU layer"].build("float32")


@pytest.fixture(scope="module")
def images():
    return zoo.images(N).astype("float32")


def _joined(stream, name):
    return np.concatenate([maps[name] for maps in stream])


class _Photos(keras.utils.PyDataset):
    """Batches of three, without an IndexError at their end."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.images[3 * index : 3 * index + 3], LABELS[3 * index : 3 * index + 3]


SOURCES = {
    "dataset": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(3),
    "dataset with labels": lambda x: tf.data.Dataset.from_tensor_slices((x, LABELS)).batch(3),
    "with weights": lambda x: tf.data.Dataset.from_tensor_slices((x, LABELS, LABELS)).batch(3),
    "PyDataset": _Photos,
    "generator": lambda x: (part for part in np.split(x, [3, 4])),
    "list": lambda x: [x[:3], list(x[3:])],
}


@pytest.mark.parametrize("source", SOURCES)
def test_maps_are_those_of_all_images_at_once(source, model, images):
    methods = ["gradient", "guided_backprop"]
    expected = tfs.saliency_map(model, images, methods, reduction="max_abs")
    stream = [
        *tfs.saliency_map_batches(model, SOURCES[source](images), methods, reduction="max_abs")
    ]
    for name in methods:
        zoo.assert_equal_maps(np.concatenate([m[name] for m in stream]), expected[name], 1e-6)
    assert [t for maps in stream for t in maps.targets] == expected.targets.tolist()
    np.testing.assert_array_equal(np.concatenate([m.images for m in stream]), images)


@pytest.mark.parametrize("source", ["dataset with labels", "with weights", "PyDataset"])
def test_labels_that_come_along_are_explained_if_asked_for(source, model, images):
    batches = SOURCES[source](images)
    found = _joined(tfs.saliency_map_batches(model, batches, targets="labels"), "gradient")
    expected = tfs.saliency_map(model, images, targets=LABELS)["gradient"]
    zoo.assert_equal_maps(found, expected, 1e-6)


def test_options_are_those_of_gradient_map(model, images):
    names = ["ant", "bee", "cat", "dog"]
    options = dict(targets="bee", class_names=names, score="margin", preprocess=lambda x: x / 2)
    found = _joined(
        tfs.saliency_map_batches(model, [images[:4], images[4:]], **options), "gradient"
    )
    zoo.assert_equal_maps(found, tfs.saliency_map(model, images, **options)["gradient"], 1e-6)


def test_the_first_of_a_tuple_may_be_several_inputs():
    a, b = keras.Input((4, 4, 1), name="a"), keras.Input((3,), name="b")
    hidden = keras.layers.Dense(3)(keras.layers.Flatten()(a))
    model = keras.Model([a, b], keras.layers.Multiply()([hidden, b]))
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(4, 4, 4, 1)), "b": rng.normal(size=(4, 3))}
    prepared = tfs.prepare(model, input="a")
    dataset = tf.data.Dataset.from_tensor_slices((x, [0, 1, 2, 0])).batch(3)
    found = _joined(tfs.saliency_map_batches(prepared, dataset, targets="labels"), "gradient")
    kernel = model.layers[2].get_weights()[0].T[[0, 1, 2, 0]]
    expected = kernel * x["b"][range(4), [0, 1, 2, 0]][:, None]
    zoo.assert_equal_maps(found.reshape(4, 16), np.abs(expected), 1e-6)


def test_one_batch_is_fetched_ahead_and_no_more(model, images):
    fetched, threads = [], set()

    def batches():
        for i in range(N):
            fetched.append(i)
            threads.add(threading.get_ident())
            yield images[i : i + 1]

    stream = tfs.saliency_map_batches(model, batches())
    assert not fetched
    for i, _ in enumerate(stream):
        late = time.monotonic() + 10
        while len(fetched) < min(i + 2, N) and time.monotonic() < late:
            time.sleep(0.001)  # the next one is being fetched
        assert fetched == list(range(min(i + 2, N)))
    assert threading.get_ident() not in threads


def test_a_stream_that_is_given_up_ends_its_thread(model, images):
    before = threading.active_count()
    stream = tfs.saliency_map_batches(model, (images[:2] for _ in range(10)))
    next(stream)
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before


def test_nothing_is_traced_again(model, images):
    prepared = tfs.prepare(model)
    list(tfs.saliency_map_batches(prepared, [images[:4], images[4:6], images[6:]]))
    assert len(prepared._kept.traces) == 1
    (trace,) = prepared._kept.traces.values()
    tfs.saliency_map(prepared, images[0])
    assert list(prepared._kept.traces.values()) == [trace]


def test_problems_are_told_of_the_line_that_asks(images):
    dead = zoo.SPELLINGS["ReLU layer"].build("float32")
    dead.layers[-1].set_weights([np.zeros((5, 4)), np.zeros(4)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for maps in tfs.saliency_map_batches(dead, [images[:3]]):
            assert maps.problems[0].cause == "zero_map"
    assert caught[0].category is tfs.SaliencyWarning
    assert caught[0].filename == __file__
    with pytest.raises(tfs.MeaninglessMapError, match="images 0, 1 and 2"):
        next(tfs.saliency_map_batches(dead, [images[:3]], on_problem="raise"))


class _Broken(Exception):
    pass


def _breaks(images):
    yield images[:2]
    raise _Broken


def test_what_breaks_is_raised_after_what_came_before(model, images):
    stream = tfs.saliency_map_batches(model, _breaks(images))
    assert len(next(stream).images) == 2
    with pytest.raises(_Broken):
        next(stream)
    stream = tfs.saliency_map_batches(model, [images[:2], images[:, :5]])
    next(stream)
    with pytest.raises(tfs.ImageError, match="Wrong size of images"):
        next(stream)


@pytest.mark.parametrize(
    ("batches", "options", "match"),
    [
        (np.ones((2, 7, 7, 3)), {}, r"ndarray of shape \(2, 7, 7, 3\). saliency_map takes one"),
        (tf.ones((2, 7, 7, 3)), {}, "saliency_map takes one batch"),
        ("photos", {}, "Received: str"),
        (3, {}, "Received: int"),
        ([], {"targets": [0, 1]}, "one class for all batches, or 'labels'.*Received: list"),
        ([], {"methods": "gradeint"}, "Did you mean 'gradient'"),
        ([], {"reduction": "sumabs"}, "Did you mean 'sum_abs'"),
        ([], {"on_problem": "warm"}, "Did you mean 'warn'"),
    ],
)
def test_impossible_requests_are_refused_before_anything_is_fetched(batches, options, match, model):
    with pytest.raises(tfs.OptionError, match=match):
        tfs.saliency_map_batches(model, batches, **options)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (None, "without labels"),
        (np.full((2, 4), 0.25), r"shape \(2, 4\).*np.argmax\(targets, axis=-1\)"),
        (np.eye(5)[:2], r"shape \(2, 5\)"),
        (np.array([0.5, 1.0]), "Received: 0.5"),
        (np.array([0]), "one for each of 2 images"),
    ],
)
def test_labels_that_cannot_be_explained_are_refused(labels, match, model, images):
    batch = images[:2] if labels is None else (images[:2], labels)
    with pytest.raises(tfs.OptionError, match=match):
        next(tfs.saliency_map_batches(model, [batch], targets="labels"))


def test_a_column_of_labels_is_taken_as_keras_takes_it(model, images):
    batch = images[:2], np.array([[1], [3]])
    (maps,) = tfs.saliency_map_batches(model, [batch], targets="labels")
    assert maps.targets.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda x: tuple(x[:2]), "two images. Pass them as a list"),
        (lambda x: tuple(x[:4]), "a tuple of 4"),
        (lambda x: (), "a tuple of 0"),
    ],
)
def test_a_tuple_of_images_is_not_taken_for_one_and_its_labels(make, match, model, images):
    with pytest.raises(tfs.OptionError, match=match):
        next(tfs.saliency_map_batches(model, [make(images)]))
    (maps,) = tfs.saliency_map_batches(model, [(images[:2], images[:2, :, :, :1])])  # as masks are
    assert len(maps.images) == 2
