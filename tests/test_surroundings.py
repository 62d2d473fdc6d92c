"""Maps in threads, processes, coroutines, callbacks and distribution strategies."""

import asyncio
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers

import tfsaliency as tfs

METHODS = ["gradient", "guided_backprop", "grad_cam", "smooth_grad"]
X = np.random.default_rng(0).normal(size=(4, 12, 12, 3)).astype("float32")


def _model(seed=0):
    return zoo.random_weights(
        keras.Sequential(
            [
                keras.Input((12, 12, 3)),
                layers.Conv2D(6, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(3, activation="softmax"),
            ]
        ),
        seed,
    )


def _assert_equal(ours, theirs):
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-7)


def test_eight_threads_share_a_model():
    model = _model()
    expected = [tfs.saliency_map(model, X * k, METHODS) for k in range(1, 9)]
    fresh = zoo.random_weights(keras.models.clone_model(model))
    fresh.set_weights(model.get_weights())
    with ThreadPoolExecutor(8) as threads:
        jobs = [
            threads.submit(tfs.saliency_map, fresh, X * k, METHODS[k % 2 :]) for k in range(1, 9)
        ]
        for k, (job, maps) in enumerate(zip(jobs, expected, strict=True), start=1):
            ours = job.result(timeout=120)
            assert list(ours) == METHODS[k % 2 :]
            _assert_equal(maps, {name: ours[name] for name in ours})


def test_threads_with_models_of_their_own():
    models = [_model(seed) for seed in range(8)]
    expected = [tfs.saliency_map(model, X, METHODS[:2]) for model in models]
    for model in models:
        tfs.clear_traces(model)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda model: tfs.saliency_map(model, X, METHODS[:2]), models))
    for ours, theirs in zip(found, expected, strict=True):
        _assert_equal(ours, theirs)


def test_coroutines():
    model = _model()
    expected = tfs.saliency_map(model, X)

    async def explain():
        in_threads = [asyncio.to_thread(tfs.saliency_map, model, X) for _ in range(3)]
        return [tfs.saliency_map(model, X), *await asyncio.gather(*in_threads)]

    for maps in asyncio.run(explain()):
        _assert_equal(maps, expected)


def test_a_callback_of_fit():
    """Maps during training are those of the weights at that moment, and do not change it."""
    seen = []

    class Explain(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            maps = tfs.saliency_map(self.model, X, METHODS[:2], targets=1)
            seen.append(({name: maps[name] for name in maps}, self.model.get_weights()))

    def train(callbacks):
        keras.utils.set_random_seed(3)
        model = _model()
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(X, np.array([0, 1, 2, 1]), epochs=3, verbose=0, callbacks=callbacks)
        return model

    with_maps, without = train([Explain()]), train([])
    for a, b in zip(with_maps.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(seen) == 3
    for maps, weights in seen:
        with_maps.set_weights(weights)
        _assert_equal(maps, tfs.saliency_map(with_maps, X, METHODS[:2], targets=1))


def test_a_distribution_strategy():
    expected = tfs.saliency_map(_model(), X, METHODS[:3])
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = _model()
        model.set_weights(_model().get_weights())
        inside = tfs.saliency_map(model, X, METHODS[:3])
    _assert_equal(inside, expected)
    _assert_equal(tfs.saliency_map(model, X, METHODS[:3]), expected)


def _explain(seed):
    return tfs.saliency_map(_model(seed), X)["gradient"]


@pytest.mark.slow
def test_spawned_processes():
    expected = _explain(1)
    with get_context("spawn").Pool(2) as pool:
        for maps in pool.map(_explain, [1, 1]):
            np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-7)


FORK = """
    import os, keras, numpy as np, tfsaliency as tfs
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(),
                              keras.layers.Dense(2, activation="softmax")])
    x = np.ones((1, 4, 4, 3))
    USED_BEFORE = tfs.saliency_map(model, x, on_problem="ignore")
    child = os.fork()
    if child == 0:
        try:
            tfs.saliency_map(model, x, on_problem="ignore")
        except tfs.TfSaliencyError as error:
            print("spawn" in str(error), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_fork_after_use_is_refused_instead_of_waiting_forever():
    code = textwrap.dedent(FORK)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.stdout == "True\n"
