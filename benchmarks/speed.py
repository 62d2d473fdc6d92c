"""Cost of maps beside the bare gradient: time, first calls, memory, imports.

    python benchmarks/speed.py [TABLE ...] [SQUEEZENET_WEIGHTS [PHOTO ...]]

Tables: first, one_pass, inputs, fold, many_pass, precision, memory; all by default. The bare
gradient is a hand-written tf.function with a GradientTape. All of a row is interleaved in one
process, and the tables hold medians of ratios, so that a slow moment of the machine hits all
columns alike. Memory is the peak of a process of its own. Without weights SqueezeNet has random
ones; without photos noise stands for them. TF_ENABLE_ONEDNN_OPTS=0 and 1 give the times without and
with oneDNN. All tables take half an hour; run nothing else meanwhile.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import keras
import numpy as np
import tensorflow as tf

import tfsaliency as tfs
from tfsaliency.models.squeezenet import preprocess_input
from tfsaliency.records import name_device

ROUNDS, FIRST_ROUNDS, IMPORTS = 9, 10, 9
BATCHES = (1, 8, 32)
THREE = ["gradient", "guided_backprop", "zeiler_fergus"]
# One backward pass for each rule; the others take many, and are explained one image at a time.
ONE_PASS = [
    *THREE,
    "rect_grad",
    "input_x_gradient",
    "grad_cam",
    "grad_cam_plus_plus",
    "layer_cam",
    "guided_grad_cam",
]
MANY_PASSES = [name for name in tfs.METHODS if name not in ONE_PASS]
FEW, MANY = 100, 10_000  # images of a stream
TABLES = ("first", "one_pass", "inputs", "fold", "many_pass", "precision", "memory")
FILES = [word for word in sys.argv[1:] if word not in TABLES]
WEIGHTS = FILES[0] if FILES else None

Job = Callable[[np.ndarray], object]


def squeezenet() -> keras.Model:
    return tfs.models.SqueezeNet(WEIGHTS, include_softmax=False)


MODELS: dict[str, Callable[[], keras.Model]] = {
    "SqueezeNet": squeezenet,
    "ResNet50": lambda: keras.applications.ResNet50(weights=None, classifier_activation=None),
    "MobileNetV2": lambda: keras.applications.MobileNetV2(weights=None, classifier_activation=None),
}


def bare_gradient(model: keras.Model) -> Job:
    @tf.function(reduce_retracing=True)
    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = model(images, training=False)
            score = tf.gather(outputs, tf.argmax(outputs, axis=-1), batch_dims=1)
        return tape.gradient(score, images)

    return lambda images: tf.reduce_sum(tf.abs(gradient(tf.constant(images))), axis=-1).numpy()


def bare_forward(model: keras.Model) -> Job:
    @tf.function(reduce_retracing=True)
    def forward(images):
        return model(images, training=False)

    return lambda images: forward(tf.constant(images)).numpy()


def maps_of(model: object, methods: object) -> Job:
    """Return a job that makes maps of the logits, of a model or of a prepared one."""
    options = {"score": "logit"} if isinstance(model, keras.Model) else {}
    return lambda images: tfs.saliency_map(
        model, images, methods, on_problem="ignore", verbose=0, **options
    )


def noise(n: int, shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(0).uniform(-120, 120, (n, *shape)).astype("float32")


def seconds(function: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def ratios(jobs: dict[str, Job], images: np.ndarray, unit: str) -> dict[str, float]:
    """Return the median ratio of each job to one of them, and the seconds of that one."""
    for job in jobs.values():
        job(images)
        job(images)
    rounds = [{name: seconds(job, images) for name, job in jobs.items()} for _ in range(ROUNDS)]
    found = {name: median(r[name] / r[unit] for r in rounds) for name in jobs}
    return {**found, unit: median(r[unit] for r in rounds)}


def print_table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def one_pass_rows() -> Iterator[Sequence[str]]:
    for name, build in MODELS.items():
        model = build()
        jobs = {"bare": bare_gradient(model), "forward": bare_forward(model)}
        jobs |= {method: maps_of(model, method) for method in ONE_PASS}
        jobs["three"] = maps_of(model, THREE)
        for batch in BATCHES:
            found = ratios(jobs, noise(batch, model.input_shape[1:]), "bare")
            unit = f"{found.pop('bare') * 1000:.0f} ms"
            yield [f"{name}, {batch}", unit, *(f"{value:.2f}" for value in found.values())]


def input_rows() -> Iterator[Sequence[str]]:
    """Cost of the looks at the images, by their values: photos as whole numbers or standardized."""
    model = squeezenet()
    shape = (8, *model.input_shape[1:])
    rng = np.random.default_rng(0)
    kinds = {
        "uint8": rng.integers(0, 256, shape).astype("uint8"),
        "0 to 255": rng.uniform(0, 255, shape).astype("float32"),
        "mean color subtracted": noise(*shape[:1], shape[1:]),
        "standardized": rng.normal(size=shape).astype("float32"),
    }
    bare = bare_gradient(model)
    for kind, images in kinds.items():
        jobs: dict[str, Job] = {"bare": lambda x: bare(x.astype("float32"))}
        jobs |= {method: maps_of(model, method) for method in THREE}
        found = ratios(jobs, images, "bare")
        yield [kind, *(f"{found[method]:.2f}" for method in THREE)]


def fold_rows() -> Iterator[Sequence[str]]:
    """Gradients of 8 images with and without batch normalization folded."""
    for name in ("MobileNetV2", "ResNet50", "DenseNet121", "Xception"):
        model = getattr(keras.applications, name)(weights=None, classifier_activation=None)
        rng = np.random.default_rng(0)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
                layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape))
        images = noise(8, model.input_shape[1:])
        with_fold, without = (
            tfs.prepare(model, score="logit", fold=fold) for fold in (True, False)
        )
        jobs = {"bare": bare_gradient(model), "fold": maps_of(with_fold, "gradient")}
        jobs["without"] = maps_of(without, "gradient")
        found = ratios(jobs, images, "bare")
        a, b = (job(images)["gradient"] for job in list(jobs.values())[1:])
        apart = np.abs(a - b) > 1e-5 * np.abs(b).max(axis=(1, 2), keepdims=True)
        yield [
            name,
            f"{found['bare'] * 1000:.0f} ms",
            f"{found['fold']:.3f}",
            f"{found['without']:.3f}",
            f"{np.median(np.abs(a - b).max(axis=(1, 2)) / np.abs(b).max(axis=(1, 2))):.0e}",
            f"{apart.mean():.2%}",
        ]


def many_pass_rows() -> Iterator[Sequence[str]]:
    model = squeezenet()
    jobs = {"bare": bare_gradient(model), **{m: maps_of(model, m) for m in MANY_PASSES}}
    found = ratios(jobs, photos(model)[:1], "bare")
    for name in MANY_PASSES:
        yield [name, f"{found[name]:.0f}"]


def first_call_rows() -> Iterator[Sequence[str]]:
    images = noise(1, squeezenet().input_shape[1:])
    jobs: dict[str, Callable[[keras.Model], object]] = {
        "bare": lambda model: bare_gradient(model)(images),
        "three": lambda model: maps_of(model, THREE)(images),
        **{name: lambda model, name=name: maps_of(model, name)(images) for name in THREE},
    }
    rounds = []
    for _ in range(FIRST_ROUNDS):
        rounds.append({name: seconds(job, squeezenet()) for name, job in jobs.items()})
    rounds = rounds[1:]  # the first pays for what TensorFlow sets up once
    for name in ("bare", *THREE, "three"):
        took = median(r[name] for r in rounds)
        yield [name, f"{took:.2f} s", f"{median(r[name] / r['bare'] for r in rounds):.2f}"]


def precision_rows() -> Iterator[Sequence[str]]:
    model = squeezenet()
    images = photos(model)
    low = tfs.prepare(model, score="logit", precision="bfloat16")
    smooth = tfs.Method("smooth_grad", "gradient", tfs.SmoothGrad(50))
    methods = [tfs.METHODS[name] for name in (*THREE, "grad_cam")]
    for method, batch in [*((m, len(images)) for m in methods), (smooth, 1)]:
        jobs = {"float32": maps_of(model, method), "bfloat16": maps_of(low, method)}
        ratio = ratios(jobs, images[:batch], "float32")["bfloat16"]
        a, b = (job(images[:batch])[method.name] for job in jobs.values())
        alike = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
        cells = f"{ratio:.2f}", f"{np.mean(alike):.3f}", f"{np.min(alike):.3f}"
        yield [f"{method.name}, {batch}", *cells]


def photos(model: keras.Model) -> np.ndarray:
    paths = FILES[1:]
    if not paths:
        return noise(8, model.input_shape[1:])
    return preprocess_input(tfs.load_images(paths, model))


def import_seconds() -> float:
    """Return the seconds that importing tfsaliency adds to tensorflow and keras."""
    code = (
        "import time, tensorflow, keras; start = time.perf_counter(); import tfsaliency;"
        "print(time.perf_counter() - start)"
    )
    return median(float(_of_process("-c", code)) for _ in range(IMPORTS))


def memory_rows() -> Iterator[Sequence[str]]:
    def peak(*job: object) -> int:
        return int(_of_process(__file__, WEIGHTS or "", "--peak", *map(str, job)))

    for kind, label in {
        "bare": "the bare gradient, 32 images",
        "gradient": "gradient_map, 32 images",
        "three": "gradient_map, three methods, 32 images",
        "stream": f"saliency_map_batches, {FEW} images, 32 at a time",
    }.items():
        yield [label, f"{peak(kind, FEW) / 2**10:.0f} MB"]
    few, many = peak("stream", FEW), peak("stream", MANY)
    yield [f"the same, {MANY} images", f"{many / 2**10:.0f} MB, {many / few:.3f} of {FEW}"]


def _of_process(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return run.stdout.split()[-1]


def print_peak(kind: str, count: int) -> None:
    """Do a job and print the peak of this process's memory, in kB."""
    model = squeezenet()
    images = noise(32, model.input_shape[1:])
    if kind == "stream":
        batches = (images[: min(32, count - start)] for start in range(0, count, 32))
        for maps in tfs.saliency_map_batches(model, batches, score="logit", on_problem="ignore"):
            assert maps["gradient"].any()
    else:
        methods = THREE if kind == "three" else "gradient"
        job = bare_gradient(model) if kind == "bare" else maps_of(model, methods)
        for _ in range(4):  # as many as make FEW images
            job(images)
    print(peak_memory())


def peak_memory() -> int:
    """Return the peak of this process's memory in kB, on Linux.

    What resource.getrusage tells begins with that of the process that started this one.
    """
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1])


def tables() -> dict[str, tuple[Sequence[str], Callable[[], Iterator[Sequence[str]]]]]:
    """Return the head and the rows of each table."""
    bfloat16 = ["bfloat16, batch", "over float32", "correlation of maps", "the least"]
    fold = ["8 images", "bare", "folded", "fold=False", "largest difference", "pixels above 1e-5"]
    one_pass = ["model, batch", "bare", "forward", *ONE_PASS, "three in one call"]
    return {
        "first": (["first call, one image", "seconds", "ratio"], first_call_rows),
        "one_pass": (one_pass, one_pass_rows),
        "inputs": (["SqueezeNet, 8 images", *THREE], input_rows),
        "fold": (fold, fold_rows),
        "many_pass": (["SqueezeNet, one image", "bare gradients"], many_pass_rows),
        "precision": (bfloat16, precision_rows),
        "memory": (["peak memory, SqueezeNet", ""], memory_rows),
    }


def main() -> None:
    """Print the chosen tables."""
    wanted = [word for word in sys.argv[1:] if word in TABLES] or list(TABLES)
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, NumPy {np.__version__}")
    print(f"{name_device()}")
    if "first" in wanted:
        print(f"Importing tfsaliency after tensorflow and keras takes {import_seconds():.3f} s.")
    for name, (head, rows) in tables().items():
        if name in wanted:
            print_table(head, rows())


if __name__ == "__main__":
    if "--peak" in sys.argv:
        WEIGHTS = WEIGHTS or None
        print_peak(sys.argv[3], int(sys.argv[4]))
    else:
        main()
