"""The time of occlusion and of relevance beside bare passes, and the memory of RISE.

    python benchmarks/forward_only.py time
    python benchmarks/forward_only.py memory

SqueezeNet with random weights; ratios are interleaved in one process, the median of 9. Run it on a
machine that does nothing else.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import tensorflow as tf

import tfsaliency as tfs
from tfsaliency.records import name_device

ROUNDS = 9
SIDE, WINDOW, STRIDE = 227, 32, 16


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratio(name, function, bare):
    """Print the median of the ratios of two functions."""
    function(), bare()
    ratios = [timed(function) / timed(bare) for _ in range(ROUNDS)]
    low, high = min(ratios), max(ratios)
    print(f"{name}: {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})", flush=True)


def times():
    keras.utils.set_random_seed(0)
    model = tfs.models.SqueezeNet(weights=None)
    photo = np.random.default_rng(0).normal(0, 50, (1, SIDE, SIDE, 3)).astype("float32")
    forward = tf.function(lambda x: model(x, training=False))
    windows = (-(-(SIDE - WINDOW) // STRIDE) + 1) ** 2
    sizes = {}
    for size in (1, 2, 4, 8, 16, 32):
        batch = tf.constant(np.repeat(photo, size, axis=0))
        forward(batch)
        sizes[size] = statistics.median(timed(lambda b=batch: forward(b)) for _ in range(9)) / size
    best = min(sizes, key=sizes.get)
    print(f"{windows} windows; forward passes are fastest at batches of {best}")
    batch = tf.constant(np.repeat(photo, best, axis=0))
    rest = tf.constant(np.repeat(photo, (1 + windows) % best or best, axis=0))

    def bare():
        for _ in range((1 + windows) // best):
            forward(batch)
        if (1 + windows) % best:
            forward(rest)

    prepared = tfs.prepare(model)
    occlusion = tfs.Occlusion(window=WINDOW, stride=STRIDE)
    options = {"targets": 0, "verbose": 0, "on_problem": "ignore"}
    ratio(
        "occlusion / forward passes of all windows and the photo",
        lambda: tfs.saliency_map(prepared, photo, occlusion, batch_size=best, **options),
        bare,
    )
    eight = np.repeat(photo, 8, axis=0)
    gradient = lambda: tfs.saliency_map(prepared, eight, "gradient", **options)  # noqa: E731
    for method in ("lrp_epsilon", "transformer_lrp", "lrp_z_plus", "lrp_alpha2_beta1", "deep_lift"):
        ratio(
            f"{method} / gradient, 8 images",
            lambda m=method: tfs.saliency_map(prepared, eight, m, **options),
            gradient,
        )


def memory(masks=None):
    """Print the peak memory of RISE, in a process of its own for each number of masks."""
    if masks:
        model = tfs.models.SqueezeNet(weights=None)
        photo = np.random.default_rng(0).normal(0, 50, (1, SIDE, SIDE, 3))
        tfs.saliency_map(model, photo, tfs.RISE(masks=int(masks)), verbose=0, on_problem="ignore")
        print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
        return
    peaks = []
    for count in (400, 4000):
        command = [sys.executable, __file__, "memory", str(count)]
        peaks.append(int(subprocess.check_output(command, text=True).split()[-1]) / 1024)
        print(f"RISE of {count} masks: {peaks[-1]:.0f} MB", flush=True)
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    print(name_device())
    if sys.argv[1] == "time":
        times()
    else:
        memory(*sys.argv[2:3])
