"""Forward and backward passes in plain NumPy float64, written from the formulas.

Slow and obvious on purpose: loops over pixels, no TensorFlow. Every step returns its output and
its backward function.
"""

import numpy as np


def relu(z, rule, max_value=None, negative_slope=0.0, threshold=0.0):
    """y of keras.layers.ReLU; backward u*s, max(u, 0)*s, max(u, 0) or RectGrad."""
    high = np.inf if max_value is None else max_value
    y = np.where(z > threshold, np.minimum(z, high), negative_slope * (z - threshold))
    s = np.where(z > threshold, np.where(z < high, 1.0, 0.0), negative_slope)
    backward = {
        "gradient": lambda u: u * s,
        "guided_backprop": lambda u: np.maximum(u, 0.0) * s,
        "zeiler_fergus": lambda u: np.maximum(u, 0.0),
        "rect_grad": lambda u: u * (y * u > np.percentile(y * u, 98)),
    }
    return y, backward[rule]


def conv(x, kernel, bias):
    """Valid convolution (cross-correlation) of (h, w, c) with (kh, kw, c, k), stride 1."""
    kh, kw, _, k = kernel.shape
    h, w = x.shape[0] - kh + 1, x.shape[1] - kw + 1
    y = np.empty((h, w, k))
    for i in range(h):
        for j in range(w):
            y[i, j] = np.tensordot(x[i : i + kh, j : j + kw], kernel, axes=3) + bias

    def backward(u):
        g = np.zeros_like(x)
        for i in range(h):
            for j in range(w):
                g[i : i + kh, j : j + kw] += np.tensordot(kernel, u[i, j], axes=1)
        return g

    return y, backward


def batch_normalization(x, gamma, beta, mean, variance, epsilon):
    """Inference: the stored statistics."""
    slope = gamma / np.sqrt(variance + epsilon)
    return (x - mean) * slope + beta, lambda u: u * slope


def global_average(x):
    """(h, w, c) -> (c,)."""
    h, w, _ = x.shape
    return x.mean(axis=(0, 1)), lambda u: np.broadcast_to(u / (h * w), x.shape).copy()


def dense(x, kernel, bias):
    """(c,) -> (k,)."""
    return x @ kernel + bias, lambda u: kernel @ u


def chain(x, *steps):
    """Run steps (functions x -> (y, backward)) after each other."""
    backwards = []
    for step in steps:
        x, backward = step(x)
        backwards.append(backward)

    def backward(u):
        for back in reversed(backwards):
            u = back(u)
        return u

    return x, backward


def add(x, left, right):
    """Sum of two branches of the same input."""
    y_left, back_left = left(x)
    y_right, back_right = right(x)
    return y_left + y_right, lambda u: back_left(u) + back_right(u)


def identity(x):
    """The skip of a residual connection."""
    return x, lambda u: u
