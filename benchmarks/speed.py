"""What maps cost beside the bare gradient, and the import beside TensorFlow's.

    python benchmarks/speed.py [SQUEEZENET_WEIGHTS]

The bare gradient is what one would write by hand: one tf.function with a GradientTape. All of it
is interleaved in one process, and the table holds medians of ratios, so that a slow moment of the
machine hits all columns alike. Run nothing else meanwhile.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import keras
import numpy as np
import tensorflow as tf

import tfsaliency as tfs

ROUNDS = 9
IMPORTS = 5


def bare_gradient(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    @tf.function
    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = model(images, training=False)
            score = tf.gather(outputs, tf.argmax(outputs, axis=-1), batch_dims=1)
        return tape.gradient(score, images)

    return lambda images: tf.reduce_sum(tf.abs(gradient(tf.constant(images))), axis=-1).numpy()


def seconds(function: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def measure(build: Callable[[], keras.Model], batch: int) -> dict[str, float]:
    """Return the ratios of every method, and of three at once, to the bare gradient."""
    model = build()
    rng = np.random.default_rng(0)
    images = rng.uniform(-120, 120, (batch, *model.input_shape[1:])).astype("float32")
    jobs: dict[str, Callable[[np.ndarray], object]] = {"bare": bare_gradient(model)}
    for name in tfs.METHODS:
        jobs[name] = lambda x, name=name: tfs.gradient_map(model, x, name, batch_size=batch)
    jobs["three"] = lambda x: tfs.gradient_map(model, x, list(tfs.METHODS), batch_size=batch)
    for job in jobs.values():
        job(images)
    rounds = [{name: seconds(job, images) for name, job in jobs.items()} for _ in range(ROUNDS)]
    return {name: median(r[name] / r["bare"] for r in rounds) for name in jobs if name != "bare"}


def measure_first_call(build: Callable[[], keras.Model]) -> dict[str, float]:
    """Return the ratios of first calls on models that nothing was traced for."""
    shape = build().input_shape[1:]
    images = np.random.default_rng(0).uniform(-120, 120, (1, *shape)).astype("float32")
    jobs = {
        "bare": lambda model: bare_gradient(model)(images),
        "gradient": lambda model: tfs.gradient_map(model, images),
        "guided_backprop": lambda model: tfs.gradient_map(model, images, "guided_backprop"),
        "three": lambda model: tfs.gradient_map(model, images, list(tfs.METHODS)),
    }
    rounds = []
    for _ in range(6):
        rounds.append({name: seconds(job, build()) for name, job in jobs.items()})
    rounds = rounds[1:]  # the first pays for what TensorFlow sets up once
    return {name: median(r[name] / r["bare"] for r in rounds) for name in jobs if name != "bare"}


def measure_import() -> float:
    """Return the seconds that importing tfsaliency adds to tensorflow and keras."""
    code = (
        "import time, tensorflow, keras; start = time.perf_counter(); import tfsaliency;"
        "print(time.perf_counter() - start)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(IMPORTS)
    ]
    return median(float(run.stdout) for run in runs)


def main() -> None:
    weights = sys.argv[1] if len(sys.argv) > 1 else None
    models = {
        "SqueezeNet": lambda: tfs.models.SqueezeNet(weights, include_softmax=False),
        "ResNet50": lambda: keras.applications.ResNet50(weights=None, classifier_activation=None),
    }
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}")
    print(f"import tfsaliency after tensorflow and keras: {measure_import():.3f} s\n")
    columns = [*tfs.METHODS, "three"]
    print(f"| model, batch | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, build in models.items():
        for batch in (1, 8):
            row = measure(build, batch)
            print(f"| {name}, {batch} | {' | '.join(f'{row[c]:.2f}' for c in columns)} |")
    first = measure_first_call(models["SqueezeNet"])
    cells = [f"{first[c]:.2f}" if c in first else "" for c in columns]
    print(f"| SqueezeNet, 1, first call | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
