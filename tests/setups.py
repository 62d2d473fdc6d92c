"""Shared helpers: dtypes, slow parameters, and a check that a model is unchanged."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import pytest


@contextmanager
def float64() -> Iterator[None]:
    """Make layers inside compute in float64."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")  # that of inputs
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def slow_but(names: Iterable[Any], *fast: Any) -> list[Any]:
    """Mark all parameters of a test but a few as slow."""
    return [n if n in fast else pytest.param(n, marks=pytest.mark.slow) for n in names]


# Lines of progress, which depend on the speed of the machine.
_PROGRESS = re.compile(
    r"tfsaliency: loading TensorFlow|.*(preparing|\d+%? (of \d+ )?\w+), .*\d+ s( left)?"
    r"(, .* images/s, \d+ errors)?"
)


def without_progress(text: str) -> list[str]:
    """Return the lines of standard error, without those of progress."""
    return [line for line in text.splitlines() if not _PROGRESS.fullmatch(line)]


# Decimals and percentages, whose last digits depend on the processor.
_MEASURED = re.compile(r"-?\d*\.\d+|\d+(?=%)")


def printed_alike(text: str, other: str, tolerance: float = 0.03) -> bool:
    """Return whether two texts have the same words, and nearly the same measured numbers."""
    if _MEASURED.sub("#", text).split() != _MEASURED.sub("#", other).split():
        return False
    pairs = zip(_MEASURED.findall(text), _MEASURED.findall(other), strict=True)
    return all(abs(float(a) - float(b)) <= tolerance * (1 + abs(float(b))) for a, b in pairs)


@contextmanager
def left_as_it_was(model: keras.Model, x: Any, has_config: bool = True) -> Iterator[None]:
    """Check that the code inside changes neither weights nor outputs, nodes nor config."""

    def state() -> list[Any]:
        arrays = [*model.get_weights(), model(x, training=False).numpy()]
        config = repr(model.get_config()) if has_config else None
        return [[a.tobytes() for a in arrays], [*map(id, model.weights)], _nodes(model), config]

    before = state()
    yield
    assert state() == before


def _nodes(model: keras.Model) -> list[tuple[str, int, int]]:
    found = []
    for layer in model.layers:
        found.append((layer.name, len(layer._inbound_nodes), len(layer._outbound_nodes)))
        if isinstance(layer, keras.Model):
            found += _nodes(layer)
    return found
