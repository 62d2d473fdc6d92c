"""Time of other libraries for the same maps, beside the bare gradient and tfsaliency.

    python3 -m venv .venv-peers && . .venv-peers/bin/activate
    pip install tensorflow-cpu matplotlib && pip install --no-deps -e .
    pip install --no-deps tf-keras-vis xplique tf-explain saliency quantus
    pip install scipy scikit-image scikit-learn opencv-python-headless imageio packaging deprecated
    pip install pandas tqdm cachetools tensorflow_probability tf_keras
    python benchmarks/peers.py [SQUEEZENET_WEIGHTS [PHOTO ...]]

Run it in a separate environment, because some of them need other versions than this project. It
reports and skips libraries that are not installed or do not run on this Keras. Times are
interleaved in one process, medians of 9 rounds, over the bare gradient of the same images. Run
nothing else meanwhile.
"""

import importlib.metadata
import os
import sys
import warnings
from collections.abc import Callable
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from speed import THREE, bare_gradient, maps_of, photos, print_table, seconds, squeezenet

import tfsaliency as tfs

ROUNDS, SAMPLES = 9, 50
BATCHES = (1, 8)
RULE = "gradient"
SMOOTH = tfs.Method("smooth", RULE, tfs.SmoothGrad(SAMPLES))
INTEGRATED = tfs.Method(
    "integrated", RULE, tfs.IntegratedGradients(steps=SAMPLES, max_steps=SAMPLES)
)

# The maps to make, and (model, classes (n,)) -> a job of each library that makes them.
Job = Callable[[np.ndarray], object]
Jobs = dict[str, Job]


def tfsaliency_jobs(model: keras.Model, classes: np.ndarray) -> Jobs:
    methods = {"gradient": "gradient", "guided_backprop": "guided_backprop"}
    methods |= {"smooth_grad": SMOOTH, "integrated_gradients": INTEGRATED}
    return {name: maps_of(model, method) for name, method in methods.items()}


def tf_keras_vis_jobs(model: keras.Model, classes: np.ndarray) -> Jobs:
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.scores import CategoricalScore

    explainer, score = Saliency(model, clone=False), CategoricalScore(classes.tolist())

    def smooth(x: np.ndarray) -> object:
        return explainer(score, x, smooth_samples=SAMPLES, smooth_noise=0.15)

    return {"gradient": lambda x: explainer(score, x), "smooth_grad": smooth}


def xplique_jobs(model: keras.Model, classes: np.ndarray) -> Jobs:
    from xplique import attributions

    targets = tf.one_hot(classes, model.output_shape[-1])
    made = {
        "gradient": attributions.Saliency(model),
        "guided_backprop": attributions.GuidedBackprop(model),
        "smooth_grad": attributions.SmoothGrad(model, nb_samples=SAMPLES),
        "integrated_gradients": attributions.IntegratedGradients(model, steps=SAMPLES),
    }
    return {name: lambda x, each=each: each(x, targets) for name, each in made.items()}


def tf_explain_jobs(model: keras.Model, classes: np.ndarray) -> Jobs:
    from tf_explain import core

    index = int(classes[0])
    made = {
        "gradient": core.VanillaGradients(),
        "smooth_grad": core.SmoothGrad(),
        "integrated_gradients": core.IntegratedGradients(),
    }
    options = {
        "gradient": {},
        "smooth_grad": {"num_samples": SAMPLES, "noise": 20.0},
        "integrated_gradients": {"n_steps": SAMPLES},
    }
    return {
        name: lambda x, name=name: made[name].explain((x, None), model, index, **options[name])
        for name in made
    }


def saliency_jobs(model: keras.Model, classes: np.ndarray) -> Jobs:
    from saliency import core

    def gradients(x: np.ndarray, call_model_args: dict, expected_keys: object = None) -> dict:
        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            scores = model(x, training=False)[:, call_model_args["class"]]
        return {core.INPUT_OUTPUT_GRADIENTS: tape.gradient(scores, x).numpy()}

    gradient, integrated = core.GradientSaliency(), core.IntegratedGradients()

    def each(mask: Callable[..., object], **options: object) -> Job:
        return lambda images: [
            mask(image, gradients, {"class": int(c)}, **options)
            for image, c in zip(images, classes, strict=True)
        ]

    return {
        "gradient": each(gradient.GetMask),
        "smooth_grad": each(gradient.GetSmoothedMask, nsamples=SAMPLES),
        "integrated_gradients": each(integrated.GetMask, x_steps=SAMPLES, batch_size=SAMPLES),
    }


LIBRARIES = {
    "tfsaliency": tfsaliency_jobs,
    "tf-keras-vis": tf_keras_vis_jobs,
    "xplique": xplique_jobs,
    "tf-explain": tf_explain_jobs,
    "saliency": saliency_jobs,
}


def leave_out(what: str, error: Exception) -> None:
    print(f"- {what} is left out: {type(error).__name__}: {' '.join(str(error).split())[:150]}")


def usable_jobs(model: keras.Model, images: np.ndarray) -> dict[tuple[str, str], Job]:
    """Return the jobs that run, by library and map; report the others."""
    classes = np.argmax(model.predict(images, verbose=0), axis=-1)
    usable = {}
    for library, make in LIBRARIES.items():
        try:
            jobs = make(model, classes)
        except Exception as error:  # errors of other libraries
            leave_out(library, error)
            continue
        for name, job in jobs.items():
            try:
                job(images)
                usable[library, name] = job
            except Exception as error:
                print(
                    f"- {library}, {name} is left out: {type(error).__name__}: {str(error)[:200]}"
                )
    return usable


def rows(model: keras.Model, images: np.ndarray, names: list[str]) -> list[list[str]]:
    """Return a row for each library: its ratios to the bare gradient."""
    jobs = {key: job for key, job in usable_jobs(model, images).items() if key[1] in names}
    bare = bare_gradient(model)
    bare(images)
    rounds = []
    for _ in range(ROUNDS):
        unit = seconds(bare, images)
        rounds.append({key: seconds(job, images) / unit for key, job in jobs.items()})
    found = {key: median(r[key] for r in rounds) for key in jobs}
    table = []
    for library in LIBRARIES:
        cells = [f"{found[library, n]:.1f}" if (library, n) in found else "" for n in names]
        if any(cells):
            table.append([f"{library} {importlib.metadata.version(library)}", *cells])
    return table


def check_rows(model: keras.Model, images: np.ndarray) -> list[list[str]]:
    """Return the time of a randomization check of the gradient, and of one by Quantus."""
    took = seconds(lambda: tfs.sanity_check(model, images, "gradient", seeds=1, verbose=0))
    table = [["tfsaliency: Spearman, SSIM, verdict", f"{took:.1f} s"]]
    try:
        import quantus

        metric = quantus.MPRT(disable_warnings=True, display_progressbar=False)
        classes = np.argmax(model.predict(images, verbose=0), axis=-1)
        options = {"method": "VanillaGradients"}

        def check() -> None:
            metric(
                model=model,
                x_batch=images,
                y_batch=classes,
                a_batch=None,
                explain_func=quantus.explain,
                explain_func_kwargs=options,
            )

        version = importlib.metadata.version("quantus")
        table.append([f"Quantus {version}: its default similarity", f"{seconds(check):.1f} s"])
    except Exception as error:
        leave_out("Quantus", error)
    return table


def main() -> None:
    warnings.simplefilter("ignore")
    model = squeezenet()
    images = photos(model)
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}\n")
    for batch in BATCHES:
        names = THREE[:2] if batch > 1 else [*THREE[:2], "smooth_grad", "integrated_gradients"]
        table = rows(model, images[:batch], names)
        print_table([f"SqueezeNet, {batch}, over the bare gradient", *names], iter(table))
        print()
    table = check_rows(model, images)
    print_table([f"cascade over 26 layers, gradient, {len(images)} images", ""], iter(table))


if __name__ == "__main__":
    sys.exit(main())
