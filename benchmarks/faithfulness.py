"""Grades of metrics, scores of methods, and what they cost.

    python benchmarks/faithfulness.py grade [PICTURES [cnn] [vit] [shortcut]]
    python benchmarks/faithfulness.py methods cnn|vit [PICTURES]
    python benchmarks/faithfulness.py methods squeezenet WEIGHTS PHOTO PHOTO ...
    python benchmarks/faithfulness.py methods efficientnet MODEL.keras PHOTO PHOTO ...
    python benchmarks/faithfulness.py time WEIGHTS PHOTO PHOTO ...

grade: maps of stated quality are planted, mixtures of the true mask and noise. For each metric:
whether its means rise with the share of truth in 200 draws of 64 pictures, how often an interval
covers the mean of all pictures, and how often noise is called faithful, and truth is not, at
several numbers of pictures. "shortcut" is a network that reads a mark in the corner instead of the
object. methods: the table of all metrics, and of all methods or, for photos, seven; the verdicts,
and the rank correlations of metrics. time: deletion and insertion over their bare forward passes.
"""

import os
import sys
import time
import warnings
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.evaluation import metric as metrics_of
from tfsaliency.evaluation import run
from tfsaliency.similarity.rank import average_ranks

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SIZES, DRAWS, MONOTONE = (8, 16, 32, 64), 200, 64
ROUNDS, STEPS = 9, 32
SEED = 21  # other pictures than those of training and tests
JUDGED = [name for name, metric in tfs.METRICS.items() if metric.direction]
# Methods for photos; all would take a day.
FOR_PHOTOS = [
    "gradient", "guided_backprop", "zeiler_fergus", "integrated_gradients", "grad_cam",
    "lrp_epsilon_plus", "deep_lift",
]  # fmt: skip
FAITHFUL = [name for name in JUDGED if not tfs.METRICS[name].needs_masks]


# --- planted maps -------------------------------------------------------------------------------


class Planted:
    """Mixtures of masks and noise in place of the maps of methods.

    A share of the pixels has the value of the mask, the others have noise.
    """

    def __init__(self, masks, images, shares=SHARES):
        rng = np.random.default_rng(0)
        lot, noise, ties = rng.uniform(size=(3, *masks.shape))
        truth = (masks + 0.1 * ties) / 1.1  # ties of a mask are broken
        self._maps = [np.where(lot < share, truth, noise) for share in shares]
        self._controls = [
            run._in_parts(each, images, np.random.default_rng(1)) for each in tfs.CONTROLS.values()
        ]
        self._channels = images.shape[-1]

    def of(self, image):
        """Return attributions and maps as evaluate does, of all rows for one image."""
        n = len(self._maps[0])
        maps = [each[image] for each in (*self._maps, *self._controls)]
        maps += [each[(image + 1) % n] for each in self._maps]
        spread = [np.repeat(m[..., None] / self._channels, self._channels, -1) for m in maps]
        return np.stack(spread), np.stack(maps)


def measure(model, data, planted, names):
    """Return the values (rows, metrics, images) of planted maps."""
    stand_ins = tuple(tfs.Method(f"share {share}") for share in SHARES)
    prepared = tfs.prepare(model)
    batch = prepared.check(data.images)
    found = tfs.attributions(model, data.images, targets=data.labels, on_problem="ignore")
    controls = tuple(tfs.CONTROLS.values())
    scoring = run.make_scoring(prepared, batch, stand_ins, (), controls, found)
    chosen = tuple(tfs.METRICS[name] for name in names)
    with run.Progress("auto", len(batch.images), "image", "grading") as progress:
        return run._measure(chosen, scoring, planted, data.masks, 64, 0, progress)


def grade(pictures=192, *networks):
    pictures = int(pictures)
    for network in networks or ("cnn", "vit", "shortcut"):
        if network == "shortcut":
            model, data = with_shortcut(pictures)
        else:
            model, data = (
                synthetic.shapes_model(network),
                synthetic.make_shapes(pictures, SEED),
            )
        values = measure(model, data, Planted(data.masks, data.images), JUDGED)
        print(f"\n### {network}, {pictures} pictures\n")
        # The mark of "shortcut" is at the same place in each picture, and so is its mask.
        grade_table(values, with_other_photo=network != "shortcut")


def grade_table(values, with_other_photo):
    k = len(SHARES)
    heads = [f"share {share:g}" for share in SHARES]
    errors = [f"noise faithful, {n}" for n in SIZES] + [f"truth faithful, {n}" for n in SIZES]
    cells = [
        "",
        *heads,
        "monotone",
        "half covered",
        "mask covered",
        *errors,
        f"truth no better, {SIZES[-1]}",
    ]
    print(f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}")
    rng = np.random.default_rng(5)
    n = values.shape[-1]
    for place, name in enumerate(JUDGED):
        of, sign = values[:, place], tfs.METRICS[name].direction
        means = np.nanmean(of[:k], axis=1)
        rising, covered, planted = 0, np.zeros(2), [2, k - 1]  # a half, and the mask
        leads = sign * (of[planted] - of[k])  # over the random map
        for _ in range(DRAWS):
            chosen = rng.choice(n, MONOTONE)
            rising += bool((np.diff(sign * np.nanmean(of[:k, chosen], axis=1)) > 0).all())
            for i, row in enumerate(planted):
                random = {"random": sign * of[k, chosen]}
                verdict = tfs.judge_metric(sign * of[row, chosen], random)
                covered[i] += verdict.low <= np.nanmean(leads[i]) <= verdict.high
        rates = {
            (share, size): verdicts(of, share, size, sign, rng, with_other_photo)
            for share in (0, -1)
            for size in SIZES
        }
        row = [name, *(f"{mean:.3f}" for mean in means)]
        row += [f"{rising / DRAWS:.0%}", *(f"{each / DRAWS:.1%}" for each in covered)]
        row += [f"{rates[share, size][0]:.1%}" for share in (0, -1) for size in SIZES]
        print(f"| {' | '.join([*row, f'{rates[-1, SIZES[-1]][1]:.1%}'])} |", flush=True)


def verdicts(of, share, size, sign, rng, with_other_photo):
    """Return how often a planted map is called better, and no better, than its controls."""
    k, controls = len(SHARES), list(tfs.CONTROLS)
    place, counts = range(k)[share], np.zeros(2)
    for _ in range(DRAWS):
        chosen = rng.choice(of.shape[-1], size, replace=False)
        others = {name: of[k + i, chosen] for i, name in enumerate(controls)}
        if with_other_photo:
            others["other photo"] = of[k + len(controls) + place, chosen]
        verdict = tfs.judge_metric(of[place, chosen], others, sign > 0).verdict
        counts += verdict.startswith("more"), verdict == "no better"
    return counts / DRAWS


def with_shortcut(pictures):
    """Return a network that reads the color of a mark in the corner, and pictures with marks."""
    data = synthetic.make_shapes(pictures, SEED)
    side, classes = 10, 8
    colors = np.array([[255 * (c >> bit & 1) for bit in range(3)] for c in range(classes)], float)
    images = data.images.copy()
    images[:, 2 : 2 + side, 2 : 2 + side] = colors[data.labels][:, None, None]
    masks = np.zeros_like(data.masks)
    masks[:, 2 : 2 + side, 2 : 2 + side] = True
    inputs = keras.Input(images.shape[1:])
    mark = keras.layers.Cropping2D(((2, 64 - 2 - side), (2, 64 - 2 - side)))(inputs)
    mean = keras.layers.GlobalAveragePooling2D()(mark)
    nearest = keras.layers.Dense(classes)
    base = synthetic.shapes_model()
    logits = keras.Model(base.inputs, base.layers[-2].output)(inputs)
    x = keras.layers.Add()([nearest(mean), keras.layers.Rescaling(0.1)(logits)])
    model = keras.Model(inputs, keras.layers.Softmax()(x), name="shortcut")
    centered = (colors - 127.5) / 127.5
    nearest.set_weights([centered.T / 127.5 * 3, -3 * centered.sum(axis=1)])
    return model, synthetic.GroundTruth(images, data.labels, masks)


# --- methods ------------------------------------------------------------------------------------


def methods(network, *rest):
    if network in ("cnn", "vit"):
        model = synthetic.shapes_model(network)
        data = synthetic.make_shapes(int(rest[0]) if rest else 64, SEED)
        names, options, candidates = JUDGED, {}, list(tfs.METHODS)
    else:
        weights, *photos = rest
        if network == "squeezenet":
            model = tfs.models.SqueezeNet(weights)
            options = {"preprocess": tfs.models.squeezenet.preprocess_input}
        else:
            model = keras.models.load_model(weights)
            options = {"preprocess": lambda x: (x - 127.0) / 128.0}
        data = tfs.load_images(photos, model, fit="squash")
        names, candidates = FAITHFUL, FOR_PHOTOS
    names = [*names, *(name for name in tfs.METRICS if not tfs.METRICS[name].direction)]
    usable = [name for name in candidates if works(model, data, name, options)]
    result = tfs.evaluate(model, data, usable, metrics=names, on_problem="ignore", **options)
    n = result.values.shape[-1]
    print(f"\n### {network}, {n} images\n")
    print(f"| | {' | '.join(names)} |\n|{'---|' * (1 + len(names))}")
    for name in result.names:
        print(f"| {name} | {' | '.join(cell(result, name, metric) for metric in names)} |")
    print("\n\\* more faithful than its controls, - no better, ? cannot tell\n")
    agreement(result)


def cell(result, name, metric):
    mean = result.mean(name, metric)
    text = f"{mean:.3g}" if np.isfinite(mean) else ""
    if name not in result.methods or not result.direction(metric):
        return text
    marks = {"more": "\\*", "no b": "-", "cann": "?"}
    return text + " " + marks[result.verdict(name, metric).verdict[:4]]


def works(model, data, name, options):
    images = data.images if isinstance(data, synthetic.GroundTruth) else data
    try:
        tfs.saliency_map(model, images[:1], name, on_problem="ignore", verbose=0, **options)
    except tfs.TfSaliencyError as error:
        print(f"- {name}: {type(error).__name__}")
        return False
    return True


def agreement(result):
    """Print the rank correlations of metrics over the methods' means."""
    names = [name for name in result.metrics if result.direction(name)]
    rank = {
        name: average_ranks(
            np.array([result.direction(name) * result.mean(m, name) for m in result.methods])
        )
        for name in names
    }
    print(f"| rank correlation | {' | '.join(names)} |\n|{'---|' * (1 + len(names))}")
    for one in names:
        row = [f"{np.corrcoef(rank[one], rank[other])[0, 1]:.2f}" for other in names]
        print(f"| {one} | {' | '.join(row)} |")


# --- time ---------------------------------------------------------------------------------------


def times(weights, *photos):
    """Print the time of deletion and insertion over bare forward passes of the same points."""
    model = tfs.models.SqueezeNet(weights)
    images = tfs.models.squeezenet.preprocess_input(
        tfs.load_images(photos[:8], model, fit="squash")
    )
    three = ["gradient", "guided_backprop", "zeiler_fergus"]
    forward = tf.function(lambda x: model(x, training=False))
    best, counted = 32, [0]
    real = metrics_of.Context._evaluate

    def counting(self, points):
        found = real(self, points)
        counted[0] += len(found.scores)
        return found

    metrics_of.Context._evaluate = counting
    prepared = tfs.prepare(model)
    maps_alone = lambda: tfs.attributions(prepared, images, three, verbose=0)  # noqa: E731
    both = lambda: tfs.evaluate(  # noqa: E731
        prepared, images, three, metrics=["deletion", "insertion"], batch_size=best, verbose=0
    )
    both(), maps_alone()
    counted[0] = 0
    both()
    points = counted[0]
    batch = tf.constant(np.resize(images, (best, *images.shape[1:])))
    forward(batch)

    def bare():
        for _ in range(points // best):
            forward(batch)

    ratios = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        both()
        middle = time.perf_counter()
        maps_alone()
        last = time.perf_counter()
        bare()
        spent = time.perf_counter() - last
        scaled = spent * points / (points // best * best)
        ratios.append((middle - start - (last - middle)) / scaled)
    print(
        f"{points} points; (evaluate - maps) / bare forward passes in batches of {best}: "
        f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"grade": grade, "methods": methods, "time": times}[sys.argv[1]](*sys.argv[2:])
