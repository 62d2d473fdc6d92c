"""Attributions whose dependence on a network is known, without code of the package.

A planted method is a function (photos, rng) -> attributions (n, h, w, c), called once for each
network: values drawn from rng are new for each network, the rest does not depend on it.
"""

import numpy as np
from scipy import ndimage


def natural(n, size, rng):
    """Make photo-like arrays (n, size, size, 3): textures over large areas of light and dark."""
    shape = (n, size, size, 3)
    return (
        smooth(rng, shape, 1.5) + 2 * smooth(rng, shape, 8.0) + smooth(rng, (n, size, size, 1), 4)
    )


def smooth(rng, shape, sigma):
    field = ndimage.gaussian_filter(rng.normal(size=shape), (0, sigma, sigma, 0), mode="wrap")
    return field / field.std(axis=(1, 2, 3), keepdims=True)


def centered(maps):
    """Give maps a mean of 0 and a variance of 1."""
    maps = maps - maps.mean(axis=(1, 2, 3), keepdims=True)
    return maps / maps.std(axis=(1, 2, 3), keepdims=True)


def edges(photos):
    return np.stack([np.hypot(ndimage.sobel(p, 0), ndimage.sobel(p, 1)) for p in photos])


def field(photos):
    """A fixed random field for each photo, independent of the others."""
    seeds = [abs(int(1e6 * photo[0, 0, 0])) for photo in photos]
    return np.stack([np.random.default_rng(seed).normal(size=photos[0].shape) for seed in seeds])


def envelope(photos):
    """A centered bump, the same for all photos."""
    axis = np.linspace(-1, 1, photos.shape[1])
    bump = np.exp(-(axis[:, None] ** 2 + axis**2) / 0.4)
    return np.broadcast_to(bump[..., None], photos.shape)


def other_gradient(photos):
    """The gradient of another network: signed, of the photo, the same for all networks."""
    kernel = np.random.default_rng(77).normal(size=(5, 5, 3))
    maps = np.stack([ndimage.convolve(p, kernel, mode="wrap") for p in photos])
    return centered(maps * np.roll(photos, 3, axis=1))


def cam(photos, rng):
    """A sum of 64 coarse feature maps with the network's own weights, rectified and enlarged."""
    size = photos.shape[1]
    filters = np.random.default_rng(5).normal(size=(64, 5, 5, 3))
    step = size // 14
    features = [
        np.maximum(ndimage.convolve(p, f, mode="wrap")[::step, ::step, 1], 0)
        for p in photos
        for f in filters
    ]
    features = np.stack(features).reshape(len(photos), 64, *features[0].shape)
    coarse = np.maximum(np.einsum("nkhw,k->nhw", features, rng.normal(size=64)), 0)
    enlarged = ndimage.zoom(coarse, (1, size / coarse.shape[1], size / coarse.shape[2]), order=1)
    return enlarged[..., None]


def spike(photos, rng):
    maps = rng.normal(size=photos.shape)
    maps[:, 10, 10] = 200.0
    return maps


FRESH = {
    "x * N": lambda x, rng: x * rng.normal(size=x.shape),
    "smooth noise * envelope": lambda x, rng: smooth(rng, x.shape, 3.0) * envelope(x),
    "t3 noise * envelope": lambda x, rng: rng.standard_t(3, x.shape) * envelope(x),
    "sum abs(N) * envelope^2": lambda x, rng: (
        np.abs(rng.normal(size=x.shape)).sum(-1, keepdims=True) * envelope(x)[..., :1] ** 2
    ),
    "CAM-like noise": cam,
    "x * U(0, 1)": lambda x, rng: x * rng.uniform(size=x.shape),
    "noise and one fixed spike": spike,
}

FIXED = {
    "edge map": lambda x, rng: edges(x),
    "x * constant": lambda x, rng: 0.3 * x,
    "another network's gradient": lambda x, rng: other_gradient(x),
    "random sign * edge": lambda x, rng: edges(x) * rng.choice([-1, 1], (len(x), 1, 1, 1)),
    "edge + .33 noise": lambda x, rng: centered(edges(x)) + 0.33 * rng.normal(size=x.shape),
}


def mixture(pattern, w):
    """Return the planted method w * fixed + sqrt(1 - w^2) * fresh: a share w^2 is fixed."""
    return lambda x, rng: w * centered(pattern(x)) + np.sqrt(1 - w**2) * rng.normal(size=x.shape)


def attributions(method, photos, networks, rng):
    """Return the attributions of the trained network and of the others."""
    trained, *others = (method(photos, rng) for _ in range(1 + networks))
    return trained, np.stack(others)
