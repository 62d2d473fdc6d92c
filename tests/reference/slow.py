"""Compositions written from the formulas: one call of the gradient for each point, sums in NumPy.

Models compute in float64: in float32, a point that is rounded differently may lie on the other side
of a ReLU's corner. Values that the graph draws or tabulates in float32 are float32 here too:
uniform noise, its logarithm and cosine, the positions of nodes, the widths of blurs.
"""

import itertools

import numpy as np
import scipy.ndimage
import tensorflow as tf

import tfsaliency as tfs


def method(composition, rule="gradient"):
    """A Method of that composition, called "composed"."""
    return tfs.Method("composed", rule, composition)


def gradients(model, points, targets, rule="gradient"):
    """The gradients at points (m, n, h, w, c), with one call for each m."""
    dtype = np.dtype(model.inputs[0].dtype)
    calls = [
        tfs.attributions(model, each.astype(dtype), rule, targets=targets, on_problem="ignore")
        for each in points
    ]
    return np.stack([call[rule] for call in calls]).astype(np.float64)


def noisy(images, samples, noise, seed=0):
    """The images (samples, n, h, w, c) that SmoothGrad explains."""
    axes = tuple(range(1, images.ndim))
    spread = np.ptp(images, axis=axes, keepdims=True)
    draws = [normal(images.shape[1:], [seed, sample]) for sample in range(samples)]
    return np.stack([images + noise * spread * draw for draw in draws])


def normal(shape, key):
    """Standard normal noise of two halves of uniform noise, by Box and Muller."""
    size = int(np.prod(shape))
    half = -(-size // 2)
    u = tf.random.stateless_uniform((2, half), key)
    radius, angle = tf.sqrt(-2 * tf.math.log(1 - u[0])), 2 * np.pi * u[1]
    noise = np.r_[radius * tf.cos(angle), radius * tf.sin(angle)]
    exact = u.numpy().astype(np.float64)
    exact = np.sqrt(-2 * np.log(1 - exact[0])) * np.exp(2j * np.pi * exact[1])
    np.testing.assert_allclose(noise, np.r_[exact.real, exact.imag], rtol=1e-5, atol=1e-5)
    return noise[:size].reshape(shape).astype(np.float64)


def integrated(model, images, targets, count, baseline=0.0, rule="gradient"):
    """Integrated gradients by Gauss-Legendre nodes."""
    places, weights = np.polynomial.legendre.leggauss(count)
    start = np.asarray(baseline, images.dtype)
    way = images - start
    points = [start + np.float32(t) * way for t in (places + 1) / 2]
    return way * np.tensordot(weights / 2, gradients(model, points, targets, rule), 1)


def blurred(image, sigma):
    """An image (..., channels) convolved with a Gaussian, 0 around it."""
    sigmas = (sigma,) * (image.ndim - 1) + (0,)
    exact = image.astype(float)
    return scipy.ndimage.gaussian_filter(exact, sigmas, mode="constant", truncate=10)


def blur_integrated(model, images, targets, steps, largest=50.0, grid="quadratic"):
    """Blur integrated gradients: the gradient in the middle of a step times the step."""

    def at(place):
        left = 1 - np.float32(place) / np.float32(steps)
        sigma = np.float32(largest) * (left**2 if grid == "quadratic" else left)
        return np.stack([blurred(image, sigma) for image in images])

    total = np.zeros(images.shape)
    for step in range(steps):
        (slopes,) = gradients(model, [at(step + 0.5)], targets)
        total += slopes * (at(step + 1) - at(step))
    return total


def guided_integrated(model, images, targets, steps, fraction=0.1, baseline=0.0, max_distance=0.1):
    """Guided integrated gradients: features with the smallest |g| first, group by group.

    Features stay within max_distance of the straight line, as a fraction of their way.
    """
    start, values = np.full_like(images, baseline), np.zeros(images.shape)
    at, features = start.copy(), images[0].size
    size = 1 + int(fraction * (features - 1))
    whole = np.abs(images - at).reshape(len(images), -1).sum(axis=1, dtype=np.float64)
    for step in range(steps):
        (slopes,) = gradients(model, [at], targets)
        for i, image in enumerate(images):
            g, old, goal = slopes[i].ravel(), at[i].ravel().copy(), image.ravel()
            first, line = start[i].ravel(), (step + 1) / steps
            behind = first + images.dtype.type(max(line - max_distance, 0)) * (goal - first)
            new = np.where(np.abs(old - goal) > np.abs(behind - goal), behind, old)
            wanted = np.abs(goal - new).sum(dtype=np.float64) - whole[i] * (1 - line)
            ahead = images.dtype.type(min(line + max_distance, 1))
            end = first + ahead * (goal - first) if ahead < 1 else goal
            left = np.where(np.abs(new - goal) > np.abs(end - goal), end - new, 0)
            order = np.sort(np.where(left != 0, np.abs(g), np.inf))
            low, last, base = -np.inf, -1, new.copy()
            while wanted > 1e-6 * whole[i] and last < features - 1:
                last = min(last + size, features - 1)
                chosen = (np.abs(g) > low) & (np.abs(g) <= order[last]) & (left != 0)
                low = order[last]
                distance = np.abs(left[chosen]).sum(dtype=np.float64)
                part = 1.0 if step == steps - 1 else min(wanted / max(distance, 1e-30), 1.0)
                new[chosen] = (
                    end[chosen] if part == 1 else (base + images.dtype.type(part) * left)[chosen]
                )
                wanted -= part * distance
            values[i] += (g * (new - old)).reshape(image.shape)
            at[i] = new.reshape(image.shape)
    return values


def expected(model, images, targets, samples, baselines=None, seed=0):
    """Expected gradients: a baseline and a position on the path for each sample."""
    axes = tuple(range(1, images.ndim))
    low, high = (f(images, axis=axes, keepdims=True) for f in (np.min, np.max))
    total = np.zeros(images.shape)
    for sample in range(samples):
        key = [seed, 2 * sample]
        if baselines is None:
            noise = tf.random.stateless_uniform(images.shape[1:], key).numpy()
            start = low + (high - low) * noise
        else:
            which = tf.random.stateless_uniform((), key, 0, len(baselines), tf.int32).numpy()
            start = np.broadcast_to(baselines[which], images.shape).astype(images.dtype)
        place = tf.random.stateless_uniform((), [seed, 2 * sample + 1]).numpy()
        (slopes,) = gradients(model, [start + place * (images - start)], targets)
        total += (images - start) * slopes
    return total / samples


def placed(maps, shape, places, seen=None):
    """Maps (n, ...) in images: linear between the centers of cells, constant beyond them.

    For each axis, places has the center of the first cell and the step, seen the first and the last
    pixel that a cell sees.
    """
    for axis, (size, (first, step)) in enumerate(zip(shape, places, strict=True), start=1):
        centers = first + step * np.arange(maps.shape[axis])
        pixels = np.arange(size)
        maps = np.apply_along_axis(lambda v, p=pixels, c=centers: np.interp(p, c, v), axis, maps)
        if seen is not None:
            low, high = seen[axis - 1]
            hidden = (pixels < low) | (pixels > high)
            maps = np.where(
                np.expand_dims(hidden, list(range(axis)) + list(range(axis + 1, maps.ndim))),
                0,
                maps,
            )
    return maps


def cam(kind, values, slopes, relu=True):
    """A class activation map (n, ...), of outputs and slopes (n, ..., channels)."""
    values, slopes = (array.astype(np.float64) for array in (values, slopes))
    maps = []
    for a, g in zip(values, slopes, strict=True):
        total = np.zeros(a.shape[:-1])
        for k in range(a.shape[-1]):
            ak, gk = a[..., k], g[..., k]
            if kind == "grad_cam":
                weight = gk.mean()
            elif kind == "layer_cam":
                weight = np.maximum(gk, 0)
            elif kind == "hires_cam":
                weight = gk
            elif kind == "xgrad_cam":
                weight = (gk * ak).sum() / ak.sum() if ak.sum() else 0.0
            else:
                alpha = np.zeros(gk.shape)
                for place in np.ndindex(gk.shape):
                    below = 2 * gk[place] ** 2 + ak.sum() * gk[place] ** 3
                    alpha[place] = gk[place] ** 2 / below if below else 0.0
                weight = (alpha * np.maximum(gk, 0)).sum()
            total += weight * ak
        maps.append(np.maximum(total, 0) if relu else total)
    return np.stack(maps)


def near(found, reference, tolerance=1e-5):
    """Compare at a tolerance relative to the largest value."""
    assert found.shape == reference.shape
    largest = np.abs(reference).max()
    assert largest > 0
    assert np.abs(found - reference).max() <= tolerance * largest


def scores(model, images, targets):
    """The outputs of a model without a final activation at the targets, (n,)."""
    outputs = np.asarray(model(np.asarray(images, np.dtype(model.inputs[0].dtype))))
    return outputs[np.arange(len(outputs)), targets].astype(np.float64)


def occlusion(model, images, targets, window, stride, baseline=0.0):
    """Each pixel's mean change of the score over the windows that cover it."""
    sizes = images.shape[1:-1]
    starts = []
    for n, w, s in zip(sizes, window, stride, strict=True):
        along = [0]
        while along[-1] + w < n:
            along.append(along[-1] + s)
        starts.append(along)
    change, times = np.zeros(images.shape[:-1]), np.zeros(sizes)
    own = scores(model, images, targets)
    covers = np.broadcast_to(baseline, images.shape)
    for place in itertools.product(*starts):
        inside = tuple(slice(p, p + w) for p, w in zip(place, window, strict=True))
        covered = images.copy()
        covered[(slice(None), *inside)] = covers[(slice(None), *inside)]
        drop = own - scores(model, covered, targets)
        change[(slice(None), *inside)] += drop.reshape(-1, *[1] * len(sizes))
        times[inside] += 1
    return change / times


def rise_masks(sizes, count, cells=7, probability=0.5, seed=0):
    """Random masks (count, *sizes): grids enlarged linearly, of which a part is cut out."""
    masks = []
    for sample in range(count):
        shown = tf.random.stateless_uniform([cells] * len(sizes), [seed, 2 * sample]).numpy()
        shifts = tf.random.stateless_uniform([len(sizes)], [seed, 2 * sample + 1]).numpy()
        mask = (shown < probability).astype(np.float64)
        for axis, n in enumerate(sizes):
            cell = int(np.ceil(n / cells))
            length = (cells + 1) * cell
            centers = (np.arange(cells) + 0.5) * length / cells - 0.5
            first = int(np.floor(shifts[axis] * np.float32(cell)))
            mask = np.apply_along_axis(
                lambda v, c=centers, m=length, f=first, n=n: np.interp(np.arange(m), c, v)[
                    f : f + n
                ],
                axis,
                mask,
            )
        masks.append(mask)
    return np.stack(masks)


def rise(model, images, targets, masks):
    """The mean score behind masks (m, ...), weighted by the masks, and its standard error."""
    behind = np.concatenate([images * mask[..., np.newaxis] for mask in masks])
    every = scores(model, behind, np.tile(targets, len(masks))).reshape(len(masks), -1)
    weights = np.tensordot(every, masks, [[0], [0]])
    means = weights / masks.sum(axis=0)
    squares = sum(
        ((s.reshape(-1, *[1] * mask.ndim) - means) * mask) ** 2
        for s, mask in zip(every, masks, strict=True)
    )
    return means, np.sqrt(squares) / masks.sum(axis=0)


def score_cam(model, images, targets, values, places):
    """Outputs (n, ..., channels), weighted by the softmax of scores behind each channel."""
    maps = []
    for image, target, cells in zip(images, targets, values.astype(np.float64), strict=True):
        behind = []
        for k in range(cells.shape[-1]):
            a = cells[..., k]
            scaled = (a - a.min()) / np.ptp(a) if np.ptp(a) else np.zeros(a.shape)
            mask = placed(scaled[np.newaxis], image.shape[:-1], places)[0]
            behind.append(scores(model, (image * mask[..., np.newaxis])[np.newaxis], [target])[0])
        weights = np.exp(np.array(behind) - max(behind))
        maps.append(np.maximum((cells * weights / weights.sum()).sum(axis=-1), 0))
    return placed(np.stack(maps), images.shape[1:-1], places)


def divided(rule, inputs, weights, bias, relevance):
    """The relevance of the inputs of one layer, output by output."""
    passed = np.zeros(len(inputs))
    for j, r in enumerate(relevance):
        z, w = inputs * weights[:, j], weights[:, j]
        if rule == "epsilon":
            whole = z.sum() + bias[j]
            passed += z * r / (whole + 1e-6 * (1 if whole >= 0 else -1))
        elif rule == "gamma":
            z = inputs * (w + 0.25 * np.maximum(w, 0))
            whole = z.sum() + bias[j] + 0.25 * max(bias[j], 0)
            passed += z * r / (whole + 1e-6 * (1 if whole >= 0 else -1))
        elif rule == "alpha2_beta1":
            up, low = np.maximum(z, 0), np.minimum(z, 0)
            above, below = up.sum() + max(bias[j], 0), low.sum() + min(bias[j], 0)
            passed += 2 * up * r / above if above else 0
            passed -= low * r / below if below else 0
        elif rule == "z_plus":
            up = np.maximum(z, 0)
            passed += up * r / up.sum() if up.sum() else 0
        elif rule == "w_square":
            passed += w**2 * r / (w**2).sum()
        elif rule == "flat":  # of the weights that the layer has
            own = w != 0
            passed += own * r / own.sum()
        elif rule == "z_box":
            z = z + 3 * np.maximum(w, 0) - 4 * np.minimum(w, 0)
            passed += z * r / z.sum()
    return passed


def lrp(layers, images, targets, rules):
    """Relevance of a chain of linear layers (weights, bias) with a ReLU between them."""
    maps = []
    for image, target in zip(images, targets, strict=True):
        inputs, outputs = forward(layers, image.ravel())
        relevance = np.zeros(len(outputs[-1]))
        relevance[target] = outputs[-1][target]
        for (weights, bias), a, rule in zip(layers[::-1], inputs[::-1], rules[::-1], strict=True):
            relevance = divided(rule, a, weights, bias, relevance)
        maps.append(relevance.reshape(image.shape))
    return np.stack(maps)


def forward(layers, x):
    """The inputs and outputs of a chain of linear layers with a ReLU between them."""
    inputs, outputs = [], []
    for weights, bias in layers:
        inputs.append(np.maximum(outputs[-1], 0) if outputs else x)
        outputs.append(inputs[-1] @ weights + bias)
    return inputs, outputs


def deep_lift(layers, images, targets):
    """DeepLIFT of such a chain, from a baseline of 0."""
    maps = []
    for image, target in zip(images, targets, strict=True):
        _, one = forward(layers, image.ravel())
        _, other = forward(layers, np.zeros(image.size))
        multipliers = layers[-1][0][:, target]
        for (weights, _), a, b in zip(layers[-2::-1], one[-2::-1], other[-2::-1], strict=True):
            slope = (np.maximum(a, 0) - np.maximum(b, 0)) / (a - b)
            multipliers = weights @ (multipliers * slope)
        maps.append((image.ravel() * multipliers).reshape(image.shape))
    return np.stack(maps)
