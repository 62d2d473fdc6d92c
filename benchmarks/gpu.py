"""Cost of maps on a GPU, beside the bare gradient there.

    python benchmarks/gpu.py [SQUEEZENET_WEIGHTS]

The table of speed.py for one pass, and with XLA and bfloat16. Where TensorFlow finds no GPU, it
says so and ends with exit code 1.
"""

import sys

import numpy as np
import tensorflow as tf
from speed import BATCHES, MODELS, ONE_PASS, THREE, bare_gradient, maps_of, noise, ratios

import tfsaliency as tfs
from tfsaliency.records import name_device

VARIANTS = {
    "jit_compile": {"jit_compile": True},
    "bfloat16": {"precision": "bfloat16"},
    "both": {"jit_compile": True, "precision": "bfloat16"},
}


def main() -> int:
    """Print the table, or that there is no GPU."""
    if not tf.config.list_physical_devices("GPU"):
        print(
            "TensorFlow finds no GPU on this machine; benchmarks/speed.py measures its processor."
        )
        return 1
    print(name_device())
    columns = [*ONE_PASS, "three", *(f"gradient, {variant}" for variant in VARIANTS)]
    print(f"\n| model, batch | bare | {' | '.join(columns)} |\n|{'---|' * (2 + len(columns))}")
    for name, build in MODELS.items():
        model = build()
        jobs = {"bare": bare_gradient(model)}
        jobs |= {method: maps_of(model, method) for method in ONE_PASS}
        jobs["three"] = maps_of(model, THREE)
        for variant, options in VARIANTS.items():
            prepared = tfs.prepare(model, score="logit", **options)
            jobs[f"gradient, {variant}"] = maps_of(prepared, "gradient")
        for batch in BATCHES:
            found = ratios(jobs, noise(batch, model.input_shape[1:]), "bare")
            cells = [f"{found[column]:.2f}" for column in columns]
            print(f"| {name}, {batch} | {found['bare'] * 1e3:.1f} ms | {' | '.join(cells)} |")
        alike = _correlation(model, maps_of(model, "gradient"))
        print(f"| {name}: correlation of maps with those of the processor | {alike:.6f} |")
    return 0


def _correlation(model: object, job: object) -> float:
    images = noise(2, model.input_shape[1:])
    on_gpu = job(images)["gradient"]
    with tf.device("/CPU:0"):
        own = bare_gradient(model)(images)
    return float(np.corrcoef(on_gpu.ravel(), own.ravel())[0, 1])


if __name__ == "__main__":
    sys.exit(main())
