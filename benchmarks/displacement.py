"""Displacement of class activation maps from what they show, with the answer known.

    python benchmarks/displacement.py [DATA]

For each network: the mean signed displacement, rows and columns, between the centroid of grad_cam
and that of the object, in cells, with its 95 % interval; and the same if the cells were placed by
the structure of receptive fields alone, or stretched evenly over the image. Objects are the shapes
of synthetic.make_shapes, and for SqueezeNet and EfficientNet-Lite0 photos of 96 x 96 pixels pasted
into others, blurred to a plain background, at random places. DATA has imagenet/,
imagenet_class_index.json, squeezenet_v1.1.bin and efficientnet_lite0.keras.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import keras
import numpy as np
from PIL import Image

import tfsaliency as tfs
from tfsaliency import synthetic

PICTURES, PLACES = 200, 6  # shapes; places of each photo
PASTED = 96


def centroid(maps):
    """Return the centroid (n, 2) of maps (n, h, w) that are never negative."""
    total = maps.sum(axis=(1, 2))
    return np.stack(
        [(maps * np.indices(maps.shape[1:])[axis]).sum(axis=(1, 2)) / total for axis in (0, 1)], 1
    )


def interval(values, rng):
    """Return the mean of values, and its 95 % interval over resampled pictures."""
    means = [rng.choice(values, len(values)).mean() for _ in range(2000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def rows(name, prepared, images, targets, centers, layer=None):
    """Print the rows of one network: placed, and stretched."""
    cam = tfs.CAM(layer=layer, resize=False)
    grids = tfs.saliency_map(prepared, images, cam, targets=targets, on_problem="ignore")
    (grid,) = grids.coverage["grad_cam"].grids
    with mock.patch("tfsaliency.placement.parts._aside", lambda *_: (0.0, 0.0)):
        again = tfs.prepare(prepared.model, preprocess=prepared.preprocess)
        few = tfs.saliency_map(again, images[:1], cam, targets=targets[:1], on_problem="ignore")
    (structure,) = few.coverage["grad_cam"].grids
    even = replace(
        grid,
        first=grid.stretched_first,
        step=tuple(s / c for s, c in zip(grid.size, grid.cells, strict=True)),
    )
    for how, each in (("placed", grid), ("by structure", structure), ("stretched", even)):
        maps = each.to_image(grids["grad_cam"][..., np.newaxis])[..., 0].numpy()
        seen = maps.any(axis=(1, 2))
        way = (centroid(maps[seen]) - centers[seen]) / np.abs(grid.step)
        rng = np.random.default_rng(0)
        cells = [name, grid.layer, how, str(seen.sum()), *(interval(w, rng) for w in way.T)]
        print(f"| {' | '.join(cells)} |", flush=True)


def pasted(folder, size):
    """Return photos of 96 x 96 pixels in others, with their centers and classes."""
    rng = np.random.default_rng(0)
    files = sorted((folder / "imagenet").iterdir())
    images, centers, labels = [], [], []
    index = {wnid: k for k, wnid in enumerate(wordnet_ids(folder))}
    for i, path in enumerate(files):
        photo = Image.open(path).convert("RGB").resize((PASTED, PASTED), Image.Resampling.BICUBIC)
        other = Image.open(files[(i + 7) % len(files)]).convert("RGB").resize((4, 4))
        canvas = np.array(other.resize((size, size), Image.Resampling.BICUBIC), np.float32)
        for _ in range(PLACES):
            top, left = rng.integers(0, size - PASTED + 1, 2)
            image = canvas.copy()
            image[top : top + PASTED, left : left + PASTED] = photo
            images.append(image)
            centers.append((top + (PASTED - 1) / 2, left + (PASTED - 1) / 2))
            labels.append(index[path.name.split("_")[0]])
    return np.stack(images), np.array(centers), np.array(labels)


def wordnet_ids(folder):
    """Return the WordNet id of each class, in the order of the outputs."""
    table = json.loads((folder / "imagenet_class_index.json").read_text())
    return [table[str(k)][0] for k in range(len(table))]


def main():
    print("| network | layer | cells | pictures | rows | columns |\n|---|---|---|---|---|---|")
    shapes = synthetic.make_shapes(PICTURES, seed=11)
    centers = centroid(shapes.masks.astype(float))
    for name in ("cnn", "vit"):
        model = synthetic.shapes_model(name)
        rows(f"shapes {name}", tfs.prepare(model), shapes.images, shapes.labels, centers)
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        squeezenet = tfs.models.SqueezeNet(weights=folder / "squeezenet_v1.1.bin")
        prepared = tfs.prepare(squeezenet, preprocess=tfs.models.squeezenet.preprocess_input)
        images, centers, labels = pasted(folder, 227)
        for layer in (None, "fire9-concat"):
            rows("SqueezeNet v1.1", prepared, images, labels, centers, layer)
        lite = keras.models.load_model(folder / "efficientnet_lite0.keras", compile=False)
        prepared = tfs.prepare(lite, preprocess=lambda x: (x - 127) / 128)
        images, centers, labels = pasted(folder, 224)
        rows("EfficientNet-Lite0", prepared, images, labels, centers)


if __name__ == "__main__":
    main()
