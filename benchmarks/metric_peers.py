"""Metrics beside Quantus, captum and pytorch-grad-cam, on the same arrays.

    python benchmarks/metric_peers.py ours OURS.npz SQUEEZENET_WEIGHTS PHOTO [PHOTO ...]

    python3 -m venv .venv-torch && . .venv-torch/bin/activate
    pip install torch torchvision captum quantus grad-cam
    python benchmarks/metric_peers.py peers OURS.npz THEIRS.npz

    python benchmarks/metric_peers.py compare OURS.npz THEIRS.npz

The first and the last command need tfsaliency; the second one needs the others, in an environment
of its own. All measure the same maps of the same images with the same random numbers, by a copy of
the network in torch. Printed: the largest difference, relative to the
largest value, for the maps of each method.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from relevance_peers import torch_squeezenet

STEPS, SAMPLES, SIDE = 227, 8, 227
METHODS = ("input_x_gradient", "occlusion")


def ours(file: str, weights: str, *photos: str) -> None:
    import tfsaliency as tfs
    from tfsaliency.evaluation.perturbation import impute

    model = tfs.models.SqueezeNet(weights)
    images = tfs.load_images(photos, size=(SIDE, SIDE))
    inputs = tfs.models.squeezenet.preprocess_input(images)
    kept: dict[str, list] = {"maps": [], "attributions": [], "squares": [], "noise": []}
    squares = tfs.Infidelity(samples=SAMPLES, normalize=False)

    def keep(maps, context):
        kept["maps"].append(maps[: len(METHODS)])
        kept["attributions"].append(context.attributions[: len(METHODS)])
        kept["squares"].append(squares._squares(context)[0])
        reach = 0.02 * np.ptp(context.image)
        noise = context.generator("noise").uniform(-reach, reach, (SAMPLES, SIDE, SIDE, 3))
        kept["noise"].append(noise.astype("float32"))
        return np.zeros(len(maps))

    metrics = [
        tfs.Metric("deletion", tfs.Deletion(steps=STEPS)),
        tfs.Metric("infidelity", squares),
        tfs.Metric("max_sensitivity", tfs.Sensitivity(samples=SAMPLES)),
        *("average_drop", "increase", "sparseness", "entropy"),
        tfs.Metric("keep", keep),
    ]
    result = tfs.evaluate(model, inputs, METHODS, metrics=metrics, score="logit")
    values = {
        metric: np.stack([result.of(method, metric) for method in METHODS], axis=1)
        for metric in result.metrics
        if metric != "keep"
    }
    rng = np.random.default_rng(0)
    missing = rng.uniform(size=(3, SIDE, SIDE)) < np.array([0.1, 0.5, 0.9])[:, None, None]
    values["imputation"] = impute(inputs[0], missing[..., np.newaxis])
    arrays = {name: np.stack(each) for name, each in kept.items()}
    layers = {f"weight_{i:02d}": each for i, each in enumerate(model.get_weights())}
    targets = tfs.saliency_map(model, inputs, verbose=0).targets
    facts = {"inputs": inputs, "targets": targets, "missing": missing}
    np.savez(file, **facts, **arrays, **layers, **{f"value {k}": v for k, v in values.items()})


def peers(file: str, out: str) -> None:
    import torch

    data = np.load(file)
    arrays = [data[name] for name in sorted(n for n in data if n.startswith("weight_"))]
    logits = torch_squeezenet(arrays)
    model = torch.nn.Sequential(logits, torch.nn.Softmax(1)).eval()
    x = torch.tensor(data["inputs"].transpose(0, 3, 1, 2))
    targets = torch.tensor(np.asarray(data["targets"], np.int64))
    found = {
        **of_quantus(model, x, targets, data),
        **of_captum(logits, x, targets, data),
        **of_grad_cam(model, x, targets, data),
    }
    np.savez(out, **found)


def by_method(function, data) -> np.ndarray:
    """Return values (n, methods) of a function of the number of the method."""
    return np.stack([np.asarray(function(m)) for m in range(len(METHODS))], axis=1)


def of_quantus(model, x, targets, data) -> dict:
    import quantus
    from quantus.functions.perturb_func import noisy_linear_imputation

    images, classes = x.numpy(), targets.numpy()
    maps = data["maps"].astype(float)
    options = {"disable_warnings": True, "abs": False}

    def flipped(m):
        # It counts features of the map, and replaces values of the image: three make a pixel.
        metric = quantus.PixelFlipping(features_in_step=SIDE, perturb_baseline=0.0, **options)
        given = maps[:, m, np.newaxis]
        curves = np.array(
            metric(model=model, x_batch=images, y_batch=classes, a_batch=given, channel_first=True)
        )
        with_start = model(x).detach().numpy()[np.arange(len(classes)), classes]
        return np.trapezoid(np.c_[with_start, curves[:, 2::3]], dx=1 / STEPS, axis=1)

    def plain(kind, m):
        given = np.abs(maps[:, m, np.newaxis])
        metric = kind(**{**options, "abs": True})
        return metric(model=model, x_batch=images, y_batch=classes, a_batch=given,
                      channel_first=True)  # fmt: skip

    imputed = [
        noisy_linear_imputation(images[0].astype(float), np.flatnonzero(mask), noise=0.0)
        for mask in data["missing"]
    ]
    return {
        "Quantus deletion": by_method(flipped, data),
        "Quantus sparseness": by_method(lambda m: plain(quantus.Sparseness, m), data),
        "Quantus entropy": by_method(lambda m: plain(quantus.Complexity, m), data),
        "Quantus imputation": np.stack(imputed).transpose(0, 2, 3, 1),
    }


def of_captum(model, x, targets, data) -> dict:
    import torch
    from captum import attr, metrics

    squares, noise = data["squares"], data["noise"].transpose(0, 1, 4, 2, 3)

    def infidelity(m):
        values = []
        for i in range(len(x)):
            masks = torch.tensor(squares[i][:, np.newaxis], dtype=torch.float32)

            def perturb(inputs, masks=masks):
                return masks * inputs, inputs * (1 - masks)

            given = torch.tensor(data["attributions"][i, m].transpose(2, 0, 1))[None]
            values.append(
                metrics.infidelity(model, perturb, x[i : i + 1], given, target=targets[i : i + 1],
                                   n_perturb_samples=SAMPLES).item()
            )  # fmt: skip
        return values

    def explain(inputs, target):
        inputs = inputs if isinstance(inputs, torch.Tensor) else inputs[0]
        found = attr.InputXGradient(model).attribute(inputs.detach().requires_grad_(), target)
        return found.abs().sum(1, keepdim=True).detach()

    def sensitivity(i):
        def perturb(inputs, radius):
            return inputs + torch.tensor(noise[i])

        found = metrics.sensitivity_max(
            explain, x[i : i + 1], perturb, n_perturb_samples=SAMPLES, target=targets[i : i + 1]
        )
        # captum 0.9 returns the root of the number of samples times the largest change.
        return found.item() / np.sqrt(SAMPLES)

    stable = np.full((len(x), len(METHODS)), np.nan)
    stable[:, 0] = [sensitivity(i) for i in range(len(x))]
    return {
        "captum infidelity": by_method(infidelity, data),
        "captum max_sensitivity": stable,
    }


def of_grad_cam(model, x, targets, data) -> dict:
    import torch
    from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    classes = [lambda output, t=int(t): output[t] for t in targets]
    before = model(x).detach().numpy()[np.arange(len(targets)), targets.numpy()]
    maps = data["maps"]
    low, high = (f(maps, axis=(2, 3), keepdims=True) for f in (np.min, np.max))
    unit = ((maps - low) / (high - low)).astype("float32")
    imputer = NoisyLinearImputer(noise=0.0)
    imputed = [
        imputer(x[0], torch.tensor(1.0 - mask.astype("float32"))).numpy()
        for mask in data["missing"]
    ]
    return {
        "pytorch-grad-cam average_drop": by_method(
            lambda m: DropInConfidence()(x, unit[:, m], classes, model) / before, data
        ),
        "pytorch-grad-cam increase": by_method(
            lambda m: IncreaseInConfidence()(x, unit[:, m], classes, model), data
        ),
        "pytorch-grad-cam imputation": np.stack(imputed).transpose(0, 2, 3, 1),
    }


def compare(ours_file: str, theirs_file: str) -> None:
    mine, theirs = np.load(ours_file), np.load(theirs_file)
    print("| library | metric | difference |\n|---|---|---|")
    for key in theirs:
        library, name = key.rsplit(" ", 1)
        a, b = mine[f"value {name}"], theirs[key]
        places = range(len(METHODS)) if a.ndim == 2 else [...]
        cells = []
        for m in places:
            one, other = (a[:, m], b[:, m]) if a.ndim == 2 else (a, b)
            if np.isfinite(other).all():
                off = np.abs(one - other).max() / max(np.abs(one).max(), 1e-30)
                cells.append(f"{off:.1e}")
        print(f"| {library} | {name} | {', '.join(cells)} |")


if __name__ == "__main__":
    {"ours": ours, "peers": peers, "compare": compare}[sys.argv[1]](*sys.argv[2:])
