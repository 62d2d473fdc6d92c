"""Relevance, DeepLIFT, occlusion and Guided Grad-CAM beside captum and zennit.

    python benchmarks/relevance_peers.py maps OURS.npz SQUEEZENET_WEIGHTS PHOTO [PHOTO ...]

    python3 -m venv .venv-torch && . .venv-torch/bin/activate
    pip install torch torchvision captum zennit
    python benchmarks/relevance_peers.py peers OURS.npz THEIRS.npz

    python benchmarks/relevance_peers.py compare OURS.npz THEIRS.npz

The first and the last command need tfsaliency; the second one needs the two libraries, in an
environment of its own. They explain the top class by the same weights and the same preprocessed
photos, in the precision of the environment variable DTYPE (float32 or float64). Printed: the
largest difference of attributions as a fraction of the largest attribution.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

WINDOW, STRIDE, EPSILON = 32, 16, 1e-6
DTYPE = os.environ.get("DTYPE", "float32")

# --- tfsaliency ---------------------------------------------------------------------------------


def our_maps(file: str, weights: str, *photos: str) -> None:
    import keras

    keras.config.set_floatx(DTYPE)
    import tfsaliency as tfs

    model = tfs.models.SqueezeNet(weights)
    images = tfs.load_images(photos, size=(227, 227)).astype(DTYPE)
    inputs = tfs.models.squeezenet.preprocess_input(images)
    methods = [
        *("lrp_epsilon", "lrp_z_plus", "lrp_alpha2_beta1", "lrp_epsilon_plus"),
        *("lrp_epsilon_plus_flat", "deep_lift", "guided_backprop", "guided_grad_cam"),
        tfs.Occlusion(window=WINDOW, stride=STRIDE),
    ]
    maps = tfs.attributions(model, inputs, methods, score="logit")
    arrays = {name: maps[name] for name in maps}
    weights = {f"weight_{i:02d}": each for i, each in enumerate(model.get_weights())}
    grid = maps.coverage["guided_grad_cam"].grids[0]
    places = {"first": grid.first[0], "step": grid.step[0]}
    np.savez(file, inputs=inputs, targets=maps.targets, **places, **arrays, **weights)


# --- captum and zennit --------------------------------------------------------------------------


def torch_squeezenet(arrays: list[np.ndarray]):
    """Build the same network in torch, with modules that both libraries know."""
    import torch
    from torch import nn

    class Fire(nn.Module):
        def __init__(self, wide: int, squeeze: int, expand: int) -> None:
            super().__init__()
            self.squeeze, self.expand1 = nn.Conv2d(wide, squeeze, 1), nn.Conv2d(squeeze, expand, 1)
            self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1)
            self.relu, self.relu1, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.relu(self.squeeze(x))
            return torch.cat([self.relu1(self.expand1(x)), self.relu3(self.expand3(x))], 1)

    class SqueezeNet(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).flatten(1)  # captum has no rule of nn.Flatten

    sizes = [(64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128)]
    sizes += [(256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)]
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU()]
    for number, size in enumerate(sizes):
        if number in (0, 2, 4):
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        layers.append(Fire(*size))
    layers += [nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    model = SqueezeNet(*layers)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for module, kernel, bias in zip(convolutions, arrays[::2], arrays[1::2], strict=True):
        module.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1)).contiguous()
        module.bias.data = torch.tensor(bias)
    return model.eval().to(getattr(torch, DTYPE))


def deep_lift_by_hand(model, x, targets):
    """Return DeepLIFT's rescale rule from a baseline of 0, written layer by layer."""
    import torch
    from torch import nn

    def pull(layer, at, given):
        at = at.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(layer(at), at, given)[0]

    def over_step(change, tangent, at, other):
        near = (at - other).abs() < 1e-10
        return torch.where(near, tangent, change / torch.where(near, 1, at - other))

    def back(layer, at, other, given):
        y, other_y = layer(at), layer(other)
        if isinstance(layer, nn.ReLU):
            return over_step((y - other_y) * given, pull(layer, at, given), at, other)
        if isinstance(layer, nn.MaxPool2d):
            top = torch.maximum(y, other_y)
            change = pull(layer, at, (top - other_y) * given)
            change = change + pull(layer, other, (y - top) * given)
            return over_step(change, pull(layer, at, given), at, other)
        if type(layer).__name__ != "Fire":
            return pull(layer, at, given)
        halves = []
        kept = [layer.relu(layer.squeeze(each)) for each in (at, other)]
        for wide, part in zip((layer.expand1, layer.expand3), given.chunk(2, 1), strict=True):
            ends = [wide(each) for each in kept]
            halves.append(pull(wide, kept[0], back(layer.relu, *ends, part)))
        ends = [layer.squeeze(each) for each in (at, other)]
        return pull(layer.squeeze, at, back(layer.relu, *ends, sum(halves)))

    with torch.no_grad():
        ends = [(x.detach(), torch.zeros_like(x))]
        for layer in model:
            ends.append(tuple(layer(each) for each in ends[-1]))
        given = torch.nn.functional.one_hot(targets, 1000).to(x.dtype)[..., None, None]
        for layer, (at, other) in zip(reversed(model), reversed(ends[:-1]), strict=True):
            given = back(layer, at, other, given)
    return given * x


def placed(cells: np.ndarray, first: float, step: float, size: int):
    """Interpolate square cells (n, k, k) between their centers in the image, as tfsaliency does."""
    import torch

    centers = first + step * np.arange(cells.shape[-1])
    hats = [np.interp(np.arange(size), centers, row) for row in np.eye(len(centers))]
    return torch.tensor(np.einsum("nij,iy,jx->nyx", cells, hats, hats))[:, None]


def captum_maps(make: Callable, x, targets, first: float, step: float) -> dict:
    from captum import attr
    from captum.attr._utils.lrp_rules import EpsilonRule

    model = make()
    for module in model.modules():
        if not list(module.children()) and type(module).__name__ in ("Conv2d", "AdaptiveAvgPool2d"):
            module.rule = EpsilonRule(EPSILON)
    maps = {"lrp_epsilon": attr.LRP(model).attribute(x, target=targets)}
    maps["deep_lift"] = attr.DeepLift(make()).attribute(x, target=targets)
    maps["guided_backprop"] = attr.GuidedBackprop(make()).attribute(x, target=targets)
    model = make()
    guided = attr.GuidedGradCam(model, model[-2])
    maps["guided_grad_cam"] = guided.attribute(x, targets, interpolate_mode="bilinear")
    cells = attr.LayerGradCam(model, model[-2]).attribute(x, targets, relu_attributions=True)
    cam = placed(cells[:, 0].detach().numpy(), first, step, x.shape[-1])
    maps["guided_grad_cam, cells placed"] = maps["guided_backprop"] * cam
    window, stride = (3, WINDOW, WINDOW), (3, STRIDE, STRIDE)
    maps["occlusion"] = attr.Occlusion(make()).attribute(x, window, stride, target=targets)
    return maps


def zennit_maps(make: Callable, x, targets) -> dict:
    import torch
    from zennit import composites, rules
    from zennit.attribution import Gradient

    none = ["bias"]  # tfsaliency's z-plus and flat rules leave biases out
    made = {
        "lrp_epsilon": composites.LayerMapComposite(
            [*composites.layer_map_base(), (torch.nn.Conv2d, rules.Epsilon(epsilon=EPSILON))]
        ),
        "lrp_z_plus": composites.EpsilonPlus(zero_params=none),
        "lrp_epsilon_plus": composites.EpsilonPlus(zero_params=none),
        "lrp_epsilon_plus_flat": composites.EpsilonPlusFlat(zero_params=none),
        "lrp_alpha2_beta1": composites.EpsilonAlpha2Beta1(),
        "guided_backprop": composites.GuidedBackprop(),
    }
    maps = {}
    for name, composite in made.items():
        # Relevance starts at the logit, gradients at 1.
        starts = torch.nn.functional.one_hot(targets, 1000)
        with Gradient(model=make(), composite=composite) as attributor:
            seed = starts if name == "guided_backprop" else lambda out, s=starts: out * s
            _, maps[name] = attributor(x.clone(), seed)
    return maps


def their_maps(file: str, out: str) -> None:
    import torch

    data = np.load(file)
    arrays = [data[name] for name in sorted(n for n in data if n.startswith("weight_"))]
    # Not contiguous: in this layout torch chooses among equal values of a pool as TensorFlow does.
    x = torch.tensor(data["inputs"].transpose(0, 3, 1, 2)).requires_grad_()
    targets = torch.tensor(np.asarray(data["targets"], np.int64))

    def make() -> torch.nn.Module:
        return torch_squeezenet(arrays)

    first, step = float(data["first"]), float(data["step"])
    found = {
        "captum": captum_maps(make, x, targets, first, step),
        "zennit": zennit_maps(make, x, targets),
        "torch": {"deep_lift, by hand": deep_lift_by_hand(make(), x, targets)},
    }
    arrays = {
        f"{library} {name}": values.detach().numpy().transpose(0, 2, 3, 1)
        for library, maps in found.items()
        for name, values in maps.items()
    }
    np.savez(out, **arrays)


# --- comparison ---------------------------------------------------------------------------------


def compare(ours: str, theirs: str) -> None:
    mine, other = np.load(ours), np.load(theirs)
    print("| library | method | difference | pixels above 1e-4 | correlation | sum over ours |")
    print("|---|---|---|---|---|---|")
    for key in other:
        library, name = key.split(maxsplit=1)
        a, b = mine[name.split(",")[0]].astype(float), other[key].astype(float)
        if a.shape[-1] != b.shape[-1]:
            b = b.mean(-1, keepdims=True)  # an attribution without channels, repeated
        axes = tuple(range(1, a.ndim))
        off = np.abs(a - b) / np.max(np.abs(a), axes, keepdims=True)
        share = np.mean(off.max(-1) > 1e-4)
        r = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        sums = np.median(b.sum(axes) / a.sum(axes))
        row = f"{off.max():.1e} | {share:.2%} | {r:.6f} | {sums:.4f}"
        print(f"| {library} | {name} | {row} |")


COMMANDS = {"maps": our_maps, "peers": their_maps, "compare": compare}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
