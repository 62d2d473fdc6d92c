"""What tests share about how they run: the dtype of models, and which parameters are slow."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import pytest


@contextmanager
def float64() -> Iterator[None]:
    """Layers that are made inside compute in float64."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")  # that of inputs
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def slow_but(names: Iterable[Any], *fast: Any) -> list[Any]:
    """Parameters of a test, of which all but a few run with -m slow alone."""
    return [n if n in fast else pytest.param(n, marks=pytest.mark.slow) for n in names]
