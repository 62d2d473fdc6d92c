"""The MNIST experiment of Adebayo et al. 2018: training and checks, beside their numbers.

    python benchmarks/adebayo_mnist.py MNIST_FOLDER [MODELS_FOLDER]

MNIST_FOLDER holds the 10,000 test digits in IDX format. The first 1,000 are held out and the first
10 of these explained; their CNN and MLP are trained on the others, 15 epochs, three times. Trained
models are kept in MODELS_FOLDER (mnist_models by default) and used again; training goes on where it
was interrupted. Published: mean (std over images) of the Spearman correlation of abs maps, layers
drawn anew from the top by their own initializers, each network's own top class. They trained on
60,000 digits, 50 epochs: expect the same order, not the same digits.
"""

import gzip
import sys
from pathlib import Path

import keras
import numpy as np

import tfsaliency as tfs

TRAINING_SEEDS, SEEDS = (0, 1, 2), 4
HELD_OUT, EXPLAINED = 1000, 10
EPOCHS, BATCH, RATE, DECAY = 15, 50, 1e-4, 1e-3

# From the stored outputs of the authors' notebooks, from the top layer down.
PUBLISHED = {
    "cnn": {
        "gradient": (".601 (.084)", ".396 (.129)", ".106 (.052)", ".082 (.030)"),
        "smooth_grad": (".536 (.060)", ".330 (.032)", ".180 (.054)", ".213 (.024)"),
        "guided_backprop": (".888 (.031)", ".773 (.035)", ".628 (.073)", ".444 (.053)"),
        "grad_cam": (".556 (.229)", ".344 (.184)", ".290 (.165)", ".299 (.134)"),
        "guided_grad_cam": (".555 (.224)", ".359 (.175)", ".329 (.181)", ".282 (.108)"),
        "integrated_gradients": (".994 (.003)", ".993 (.004)", ".993 (.005)", ".992 (.005)"),
        "input_x_gradient": (".993 (.005)", ".993 (.004)", ".993 (.004)", ".992 (.006)"),
        "smooth_integrated": (".577 (.079)", ".429 (.099)", ".379 (.088)", ".361 (.078)"),
    },
    "mlp": {
        "gradient": (".234 (.194)", ".099 (.062)", ".015 (.038)", ".020 (.036)"),
        "smooth_grad": (".255 (.174)", ".124 (.059)", ".007 (.049)", ".025 (.037)"),
        "guided_backprop": (".903 (.054)", ".823 (.085)", ".439 (.051)", ".044 (.025)"),
        "integrated_gradients": (".994 (.004)", ".993 (.005)", ".992 (.005)", ".993 (.004)"),
        "input_x_gradient": (".994 (.004)", ".993 (.005)", ".992 (.005)", ".993 (.004)"),
        "smooth_integrated": (".407 (.117)", ".368 (.104)", ".335 (.087)", ".345 (.110)"),
    },
}
# As theirs: 50 points from black, and 50 samples; of both together fewer, which takes minutes and
# not hours.
RULE = "gradient"
INTEGRATED = tfs.IntegratedGradients(steps=50, max_steps=50)
SMOOTH_INTEGRATED = tfs.SmoothGrad(20, inner=tfs.IntegratedGradients(steps=10, max_steps=10))
METHODS = {
    **tfs.METHODS,
    "integrated_gradients": tfs.Method("integrated_gradients", RULE, INTEGRATED),
    "smooth_integrated": tfs.Method("smooth_integrated", RULE, SMOOTH_INTEGRATED),
}


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read a file of the IDX format, compressed or not."""
    (path,) = folder.glob(f"{name}*")
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    axes = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i]) for i in range(axes)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def cnn() -> keras.Model:
    """Build conv 32, pool, conv 64, pool, fc 1024, 10."""
    options = {
        "kernel_initializer": keras.initializers.TruncatedNormal(stddev=0.1),
        "bias_initializer": keras.initializers.Constant(0.1),
    }
    decayed = {**options, "kernel_regularizer": keras.regularizers.L2(DECAY)}
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 5, padding="same", activation="relu", name="conv1", **decayed),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 5, padding="same", activation="relu", name="conv2", **decayed),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(1024, activation="relu", name="fc1", **decayed),
            layers.Dense(10, name="softmax_linear", **options),
        ],
        name="cnn",
    )


def mlp() -> keras.Model:
    """Build 2500, 1500, 500, 10."""
    sizes = {"hidden1": 2500, "hidden2": 1500, "hidden3": 500, "logits": 10}
    model = [keras.Input((28, 28, 1)), keras.layers.Flatten()]
    fan_in = 28 * 28
    for name, size in sizes.items():
        initializer = keras.initializers.TruncatedNormal(stddev=2 / np.sqrt(fan_in))
        activation = None if name == "logits" else "relu"
        model.append(
            keras.layers.Dense(
                size, activation=activation, kernel_initializer=initializer, name=name
            )
        )
        fan_in = size
    return keras.Sequential(model, name="mlp")


def trained(build, seed: int, digits: np.ndarray, labels: np.ndarray, folder: Path) -> keras.Model:
    """Train a network, or load it if it was trained before."""
    keras.utils.set_random_seed(seed)
    model = build()
    path = folder / f"{model.name}-{seed}.keras"
    if path.exists():
        return keras.models.load_model(path)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE), loss, metrics=["accuracy"])
    backup = keras.callbacks.BackupAndRestore(folder / f"{model.name}-{seed}-backup")
    model.fit(digits, labels, BATCH, EPOCHS, callbacks=[backup], verbose=2)
    model.save(path)
    return model


def checked(model: keras.Model, digits: np.ndarray) -> tfs.SanityResult:
    """Check as the authors did: the maps of each network's own top class."""
    methods = [METHODS[name] for name in (*PUBLISHED[model.name], "zeiler_fergus", "rect_grad")]
    return tfs.sanity_check(
        model, digits, methods, seeds=SEEDS, retarget=True, on_problem="ignore", verbose=0
    )


def main() -> None:
    source = Path(sys.argv[1])
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "mnist_models")
    folder.mkdir(exist_ok=True)
    digits = read_idx(source, "t10k-images").astype("float32")[..., np.newaxis] / 255
    labels = read_idx(source, "t10k-labels").astype("int32")
    explained, held = digits[:EXPLAINED], slice(0, HELD_OUT)
    for build in (cnn, mlp):
        results, accuracies = [], []
        for seed in TRAINING_SEEDS:
            model = trained(build, seed, digits[HELD_OUT:], labels[HELD_OUT:], folder)
            right = np.argmax(model.predict(digits[held], verbose=0), axis=-1) == labels[held]
            accuracies.append(right.mean())
            results.append(checked(model, explained))
        report(build.__name__, results, accuracies, explained)


def noise_off_zero(digits: np.ndarray) -> float:
    """Return the Spearman correlation of x * noise and x * other noise where x is not 0."""
    rng, found = np.random.default_rng(0), []
    for digit in digits:
        inked = digit[digit != 0]
        for _ in range(SEEDS):
            a, b = (np.abs(inked * rng.normal(size=inked.shape))[None, None] for _ in range(2))
            found.append(tfs.SIMILARITIES["spearman"](a, b).mean())
    return float(np.mean(found))


def report(
    name: str, results: list[tfs.SanityResult], accuracies: list[float], digits: np.ndarray
) -> None:
    """Print the tables of one architecture."""
    steps = [step.name for step in results[0].steps]
    listed = ", ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    print(f"\n## {name}, accuracy on held-out digits {listed}\n")
    columns = " | ".join(f"+ {step}" for step in steps)
    print(f"| method | | {columns} |\n|---|---|{'---|' * len(steps)}")
    # methods, steps, training seeds, images: the random networks of a step are averaged.
    axes = {
        similarity: stack(results, similarity) for similarity in ("spearman", "spearman (x != 0)")
    }
    table = axes["spearman"]
    for m, method in enumerate(results[0].methods):
        if method in PUBLISHED[name]:
            print(f"| {method} | published | {' | '.join(PUBLISHED[name][method])} |")
        cells = [f"{t.mean():.3f} ({t.mean(axis=0).std():.3f})" for t in table[m]]
        print(f"| {method} | here, mean of 3 | {' | '.join(cells)} |")
        for r in range(len(results)):
            cells = [f"{t[r].mean():.3f}" for t in table[m]]
            print(f"| | training seed {r} | {' | '.join(cells)} |")
        cells = [f"{np.nanmean(t):.3f}" for t in axes["spearman (x != 0)"][m]]
        print(f"| | over pixels x != 0 | {' | '.join(cells)} |")
        for r, result in enumerate(results):
            verdicts = [f"{v.invariance:.2f} {v.verdict}" for v in result.verdicts[method]]
            print(f"| | verdict, training seed {r} | {' | '.join(verdicts)} |")
    noise = [result.explained_by["gradient"].noise_to_noise for result in results]
    print(f"\nx * noise against x * other noise: {np.mean(noise):.3f} over all pixels")
    gradient, guided = (list(results[0].methods).index(m) for m in ("gradient", "guided_backprop"))
    top = table[:, 0].mean(axis=-1)
    facts = {
        "guided backprop above gradient at the top layer, every training seed": (
            top[guided] > top[gradient]
        ).all(),
        "the gradient falls from the top layer to the last": (
            table[gradient, 0].mean() > table[gradient, -1].mean()
        ),
        "guided backprop falls at every step": (np.diff(table[guided].mean(axis=(1, 2))) < 0).all(),
    }
    off, floor = axes["spearman (x != 0)"], noise_off_zero(digits)
    print(f"and over pixels x != 0: {floor:.3f}\n")
    for method in ("integrated_gradients", "input_x_gradient"):
        m = list(results[0].methods).index(method)
        lowest, largest = table[m].mean(axis=(1, 2)).min(), np.nanmean(off[m], axis=(1, 2)).max()
        facts[f"{method} above .98 over all pixels at every step ({lowest:.3f})"] = lowest > 0.98
        facts[f"and no more than x * noise over pixels x != 0 (+ .05; {largest:.3f})"] = (
            largest <= floor + 0.05
        )
    for fact, holds in facts.items():
        print(f"- {fact}: {'holds' if holds else 'DOES NOT HOLD'}")


def stack(results: list[tfs.SanityResult], similarity: str) -> np.ndarray:
    """Return (methods, steps, training seeds, images)."""
    tables = [result.select(similarity=similarity) for result in results]
    return np.stack([np.nanmean(table, axis=-1) for table in tables], axis=2)


if __name__ == "__main__":
    main()
