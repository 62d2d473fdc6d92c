"""Metrics of every method and control on pictures with a known answer, and their verdicts.

    python benchmarks/known_answers.py [PICTURES [both] [cnn] [vit] [verdicts]]

Prints the tables of benchmarks/README.md: for each network and variant of the pictures the means
with their 95 % intervals and what differs. "both" compares the class activation maps of both
networks on plain pictures; "verdicts" checks whether the methods depend on the parameters, the
labels and the class.
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
    """Print whether each method depends on the parameters, the labels and the class."""
    world = synthetic.make_shapes(CHECKED, SEED)
    options = {"targets": world.labels, "verbose": 0, "on_problem": "ignore"}
    once = tfs.sanity_check(model, world.images[:2], seeds=1, **options | {"targets": 0})
    upper = once.steps[1].layers
    twins = synthetic.permuted_label_models() if model.name == "shapes" else None
    print(f"### {model.name}, verdicts, {CHECKED} pictures\n")
    print(row(["", "new weights in " + " + ".join(upper), "permuted labels", "another class"]))
    print(row(["---"] * 4))
    for method in methods:
        case = model, world.images, method
        results = [tfs.sanity_check(*case, plan=[upper], **options)]
        if twins:
            results.append(tfs.data_randomization_check(*case, permuted=twins, **options))
        results.append(tfs.random_logit_check(*case, **options))
        cells = [str(result.verdicts[method][0]) for result in results]
        print(row([method, cells[0], cells[1] if twins else "", cells[-1]]), flush=True)
    print()


def usable(model: keras.Model) -> list[str]:
    """Return the methods that explain a network: their rules apply, and nothing is refused."""
    methods = [
        m for m, each in tfs.METHODS.items() if model.name == "shapes" or each.rule == "gradient"
    ]
    picture = synthetic.make_shapes(1, SEED).images
    found = []
    for method in methods:
        try:
            tfs.saliency_map(model, picture, method, on_problem="ignore", verbose=0)
        except tfs.TfSaliencyError as error:
            print(f"- {model.name}, {method}: {type(error).__name__}")
        else:
            found.append(method)
    return found


def main() -> None:
    pictures = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    networks = sys.argv[2:] or ["both", "cnn", "vit", "verdicts"]
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {pictures} pictures\n")
    if "both" in networks:
        for name in ("cnn", "vit"):
            table(synthetic.shapes_model(name), ["gradient", *CAMS], "plain", pictures)
    for name in [name for name in networks if name in ("cnn", "vit")]:
        model = synthetic.shapes_model(name)
        for variant in synthetic.VARIANTS:
            table(model, usable(model), variant, pictures)
    if "verdicts" in networks:
        for name in ("cnn", "vit"):
            model = synthetic.shapes_model(name)
            verdicts(model, usable(model))


if __name__ == "__main__":
    main()
