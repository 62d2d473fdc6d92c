"""Time of a sanity check, beside its bare forward and gradient passes.

    python benchmarks/sanity.py SQUEEZENET_WEIGHTS PHOTO PHOTO ...

A cascade over SqueezeNet's 26 layers, the given photos, three methods, Spearman and SSIM, one
seed, against 27 x 3 calls of one tf.function with a GradientTape: the trained network and 26
randomized ones, three methods each. Both are done in turns in one process; the table holds medians
of ratios. Run nothing else meanwhile. (peers.py times that of Quantus.)
"""

import sys
import time
from statistics import median
from typing import Any

import tensorflow as tf
from speed import THREE, bare_gradient, seconds

import tfsaliency as tfs
from tfsaliency.models.squeezenet import preprocess_input
from tfsaliency.sanity import comparison, run

ROUNDS = 3
LAYERS, METHODS = 26, 3


class Stopwatch:
    """Adds up the seconds that some functions take, each without those inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.open: list[float] = []

    def watch(self, module: Any, name: str, label: str) -> None:
        """Time a function of a module from now on."""
        function = getattr(module, name)

        def timed(*args: object, **kwargs: object) -> object:
            self.open.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - start
                inner = self.open.pop()
                self.seconds[label] = self.seconds.get(label, 0.0) + took - inner
                if self.open:
                    self.open[-1] += took

        setattr(module, name, timed)


def watched() -> Stopwatch:
    """Put a stopwatch on the parts of a check."""
    watch = Stopwatch()
    watch.watch(comparison.Inputs, "attributions", "gradients, while maps are compared")
    watch.watch(run, "draw_weights", "weights drawn")
    watch.watch(run, "_verdict", "verdict: intervals")
    watch.watch(run, "compare_with_controls", "controls")
    return watch


def main() -> None:
    weights, *photos = sys.argv[1:]
    model = tfs.models.SqueezeNet(weights, include_softmax=False)
    images = preprocess_input(tfs.load_images(photos, model, fit="squash"))
    gradient = bare_gradient(model)

    def bare() -> None:
        for _ in range((LAYERS + 1) * METHODS):
            gradient(images)

    def check() -> None:
        tfs.sanity_check(model, images, THREE, seeds=1, score="logit", verbose=0)

    gradient(images)
    tfs.sanity_check(model, images, THREE, plan=["conv10"], seeds=1, score="logit", verbose=0)
    rounds = [(seconds(bare), seconds(check)) for _ in range(ROUNDS)]
    unit = median(b for b, _ in rounds)
    watch = watched()
    total = seconds(check)
    watch.seconds["the rest"] = total - sum(watch.seconds.values())
    print(f"TensorFlow {tf.__version__}, {len(images)} photos\n")
    print("| | ratio |\n|---|---|")
    print(f"| {(LAYERS + 1) * METHODS} bare passes ({unit:.1f} s) | 1 |")
    print(f"| sanity_check | {median(c / b for b, c in rounds):.2f} |")
    for label, took in watch.seconds.items():
        print(f"| - {label} | {took / unit:.2f} |")


if __name__ == "__main__":
    main()
