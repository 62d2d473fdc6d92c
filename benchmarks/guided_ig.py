"""Guided IG on pictures with a known answer, at several distances from the straight line.

    python benchmarks/guided_ig.py

Pictures of make_shapes that neither network was trained on; 0 is the straight line of integrated
gradients, 1 the path without a limit.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfsaliency as tfs
from tfsaliency import synthetic

PICTURES, STEPS = 64, 50
DISTANCES = (0, 0.02, 0.05, 0.1, 0.2, 0.4, 1)


def main() -> None:
    data = synthetic.make_shapes(PICTURES, seed=11)
    methods = [
        tfs.Method(f"{distance:g}", composition=tfs.GuidedIG(steps=STEPS, max_distance=distance))
        for distance in DISTANCES
    ]
    for architecture in ("cnn", "vit"):
        model = synthetic.shapes_model(architecture)
        result = tfs.evaluate(model, data, methods, on_problem="ignore", verbose=0)
        print(f"\n{architecture}\n\n{result}")


if __name__ == "__main__":
    main()
