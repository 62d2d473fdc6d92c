"""SmoothGrad beside bare gradients of as many samples, and its peak memory.

    python benchmarks/smooth_grad.py

One image of 227 x 227, SqueezeNet with random weights. Times are interleaved in one process, the
median of 9; memory is the peak of a process of its own. Run it with nothing else running.
"""

import subprocess
import sys
import time
from statistics import median

import keras
import numpy as np
import tensorflow as tf
from speed import peak_memory

import tfsaliency as tfs

SAMPLES, SIZES, REPEATS, FEW, MANY = 50, (8, 16, 32, 50), 9, 20, 400
CHUNK = 16  # points at a time where memory is looked at: FEW fill it, too


def explained(model: keras.Model, samples: int, batch_size: int, image: np.ndarray) -> None:
    """Explain one image."""
    method = tfs.Method("smooth", "gradient", tfs.SmoothGrad(samples))
    tfs.attributions(model, image, method, batch_size=batch_size, on_problem="ignore")


def main() -> None:
    model = tfs.models.SqueezeNet(weights=None)
    images = np.random.default_rng(0).uniform(-100, 100, (SAMPLES, 227, 227, 3)).astype("float32")
    if len(sys.argv) > 1:  # a process of its own, to look at its memory
        explained(model, int(sys.argv[1]), CHUNK, images[:1])
        explained(model, int(sys.argv[1]), CHUNK, images[:1])
        print(peak_memory())
        return

    @tf.function(reduce_retracing=True)
    def bare(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            scores = tf.reduce_max(model(x, training=False), axis=-1)
        return tape.gradient(scores, x)

    def all_bare(size: int) -> None:
        for start in range(0, SAMPLES, size):
            bare(tf.constant(images[start : start + size])).numpy()

    jobs = {}
    for size in SIZES:
        jobs["bare", size] = lambda size=size: all_bare(size)
        jobs["smooth", size] = lambda size=size: explained(model, SAMPLES, size, images[:1])
    seconds = {key: [] for key in jobs}
    for _ in range(REPEATS + 1):
        for key, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[key].append(time.perf_counter() - start)
    times = {key: median(each[1:]) for key, each in seconds.items()}
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}\n")
    print("| points at a time | 50 bare gradients | SmoothGrad of 50 | ratio |\n|---|---|---|---|")
    for size in SIZES:
        own, smooth = times["bare", size], times["smooth", size]
        print(f"| {size} | {own:.3f} s | {smooth:.3f} s | {smooth / own:.3f} |")
    best = min(times["smooth", size] for size in SIZES) / min(times["bare", size] for size in SIZES)
    print(f"\nBest against best: {best:.3f}")
    peaks = []
    for samples in (FEW, MANY):
        command = [sys.executable, __file__, str(samples)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(run.stdout.split()[-1]))
    few, many = (f"{peak / 2**10:.0f} MB" for peak in peaks)
    ratio = peaks[1] / peaks[0]
    print(
        f"Peak memory, {CHUNK} at a time: {FEW} samples {few}, {MANY} samples {many}, {ratio:.3f}"
    )


if __name__ == "__main__":
    main()
