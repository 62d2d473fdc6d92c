"""Metrics of every method and control on pictures with a known answer, and their verdicts.

    python benchmarks/known_answers.py [PICTURES [both] [cnn] [vit]]

Prints the tables of benchmarks/README.md: for each network and variant of the pictures the means
with their 95 % intervals and what differs, and the verdicts of both randomizations of the CNN.
"both" compares the class activation maps of both networks on plain pictures.
"""

import sys
from collections.abc import Sequence

import keras
import tensorflow as tf

import tfsaliency as tfs
from tfsaliency import synthetic

CAMS = [m for m, each in tfs.METHODS.items() if isinstance(each.composition, tfs.CAM)]
SEED, CHECKED = 4, 16  # other pictures than those of training, tests and demonstration


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(model: keras.Model, methods: Sequence[str], variant: str, pictures: int) -> None:
    """Print the means of all metrics on pictures of a variant, and what differs."""
    world = synthetic.make_shapes(pictures, SEED, variant=variant)
    result = tfs.evaluate(model, world, methods, on_problem="ignore")
    correct = result.correct.mean()
    print(f"### {model.name}, {variant}, {correct:.1%} classified correctly\n")
    print(row(["", *result.metrics]))
    print(row(["---"] * (1 + len(result.metrics))))
    for name in result.names:
        cells = [name]
        for metric in result.metrics:
            low, high = result.interval(name, metric)
            spread = "" if name == "chance" else f" ({low:.3f} to {high:.3f})"
            cells.append(f"{result.mean(name, metric):.3f}{spread}")
        print(row(cells))
    print()
    for metric in result.metrics:
        print(f"- {metric}: {' > '.join(map(' = '.join, result.ranking(metric)))}")
    print(flush=True)


def verdicts(model: keras.Model, methods: Sequence[str]) -> None:
    """Print the verdicts of both randomizations of the CNN."""
    twins = synthetic.permuted_label_models()
    world = synthetic.make_shapes(CHECKED, SEED)
    options = {"targets": world.labels, "verbose": 0, "on_problem": "ignore"}
    once = tfs.sanity_check(model, world.images[:2], seeds=1, **options | {"targets": 0})
    upper = once.steps[1].layers
    cascade = tfs.sanity_check(model, world.images, methods, plan=[upper], **options)
    permuted = tfs.data_randomization_check(model, world.images, methods, permuted=twins, **options)
    print(f"### {model.name}, verdicts, {CHECKED} pictures\n")
    print(row(["", "new weights in " + " + ".join(upper), "permuted labels"]))
    print(row(["---"] * 3))
    for method in methods:
        print(row([method, str(cascade.verdicts[method][0]), str(permuted.verdicts[method][0])]))


def main() -> None:
    pictures = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    networks = sys.argv[2:] or ["both", "cnn", "vit"]
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {pictures} pictures\n")
    if "both" in networks:
        for name in ("cnn", "vit"):
            table(synthetic.shapes_model(name), ["gradient", *CAMS], "plain", pictures)
    for name in [name for name in networks if name != "both"]:
        model = synthetic.shapes_model(name)
        # The transformer has no ReLU, so rules of ReLUs do not apply.
        methods = [m for m, each in tfs.METHODS.items() if name == "cnn" or each.rule == "gradient"]
        for variant in synthetic.VARIANTS:
            table(model, methods, variant, pictures)
        if name == "cnn":
            verdicts(model, methods)


if __name__ == "__main__":
    main()
