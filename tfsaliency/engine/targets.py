"""Targets: the classes to explain, as the caller gives them, as one index for each image."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from ..arrays import Array
from ..errors import OptionError, unknown_option

TOP_CLASS = -1
_FEW = 2  # classes, for which 0 and 1 are indices and one-hot codes


def resolve_targets(
    targets: Any,
    n: int,
    class_names: Sequence[str] | None = None,
    classes: int | None = None,
) -> Array:
    """Return one class index per image, (n,) int32; TOP_CLASS for targets of None.

    Parameters
    ----------
    targets
        None (each image's top class), an int, a class name, or one of these per image, also as a
        column (n, 1) or one-hot (n, classes).
    n
        The number of images.
    class_names
        The class names in the order of the model's outputs, required for targets by name. The
        search ignores case, and takes spaces and underscores as equal.
    classes
        The number of the model's classes; None if unknown.

    Raises
    ------
    OptionError
        If a name is unknown or ambiguous, a target is no class of the model, there are not n, or
        they can be read in several ways.

    >>> resolve_targets([[0, 1, 0], [0, 0, 1]], 2, classes=3)
    array([1, 2], dtype=int32)
    """
    listed = _listed(targets, n, classes)
    if len(listed) != n:
        raise OptionError(
            f"Expected one target, or one for each of {n} images. Received: {len(listed)}."
        )
    chosen = [_class_index(target, class_names, classes) for target in listed]
    bad = sorted({t for t in chosen if t != TOP_CLASS and t >= (classes or np.inf)})
    if bad:
        two = " Of a single sigmoid output, the classes are 0 and 1." if classes == _FEW else ""
        raise OptionError(
            f"Target out of range. Expected a class index below {classes}, the number of the "
            f"model's {'output' if classes == 1 else 'classes'}. "
            f"Received: {', '.join(map(str, bad))}.{two}"
        )
    return np.array(chosen, dtype=np.int32)


def check_class_names(class_names: Sequence[str] | None, classes: int | None) -> None:
    """Raise OptionError unless there is one class name for each class of the model."""
    if class_names is None:
        return
    try:
        count: int | str = len(class_names)
        unordered = isinstance(class_names, (str, bytes, Mapping, Set))
        listed = [] if unordered else list(class_names)
        ordered = not unordered
    except TypeError:
        count, listed, ordered = "unknown length", [], False
    if (
        not ordered
        or not all(isinstance(name, str) for name in listed)
        or classes not in (None, len(listed))
    ):
        raise OptionError(
            f"Expected class_names as a list of {classes or 'the'} names, one for each class of "
            f"the model, in its order. Received: {type(class_names).__name__} of {count}."
        )


def _listed(targets: Any, n: int, classes: int | None) -> list[Any]:
    """Return the targets of n images as a list."""
    if isinstance(targets, (Mapping, Set)):
        raise OptionError(
            "Expected targets in the order of the images: a list, or an array (n,). "
            f"Received: {type(targets).__name__}."
        )
    if np.ma.is_masked(targets):
        raise OptionError(
            "Expected targets without masked values. Received: a masked array. Leave the images "
            "of masked targets out."
        )
    if isinstance(targets, (range, deque)):
        targets = list(targets)
    if not isinstance(targets, (list, tuple)) and getattr(targets, "shape", ()) == ():
        single = hasattr(targets, "dtype") and not isinstance(targets, np.generic)
        return [np.asarray(targets).item() if single else targets] * n
    try:
        array = np.asarray(targets)
    except ValueError:  # lists of several lengths
        array = np.array([None])
    if array.ndim == 0:  # of a class without a shape
        return [targets] * n
    if array.ndim == 1:
        given = isinstance(targets, (list, tuple))
        _refuse_one_hot(array, n, classes, given)
        return list(targets) if given else list(array)
    if array.shape == (n, 1):
        return list(array[:, 0])
    one_hot = array.ndim == 2 and array.dtype.kind in "buif" and _is_one_hot(array)
    if one_hot and len(array) == n and classes in (None, array.shape[1]):
        return list(array.argmax(axis=1))
    remedy = (
        "Class indices of one-hot codes or probabilities (n, classes) are "
        "np.argmax(targets, axis=-1)."
    )
    if array.shape == (1, n):
        remedy = "Class indices of the images are np.ravel(targets)."
    raise OptionError(
        f"Expected one target for each of {n} images, as class indices (n,). Received: an array "
        f"of shape {array.shape}. {remedy}"
    )


def _is_one_hot(array: Array) -> bool:
    numbers = array.astype(np.float64)
    return bool(np.isin(numbers, (0, 1)).all() and (numbers.sum(axis=-1) == 1).all())


def _refuse_one_hot(array: Array, n: int, classes: int | None, a_list: bool) -> None:
    """Refuse an array (classes,) that may be a one-hot code of one class for all images."""
    if array.ndim != 1 or array.dtype.kind not in "buif" or len(array) != (classes or n):
        return
    if len(array) <= _FEW or not _is_one_hot(array):
        return
    if a_list and len(array) == n:  # a list of indices is usual
        return
    raise OptionError(
        f"Expected targets as class indices. Received: {len(array)} values, of which one is 1 and "
        "all others are 0, like a one-hot code. Its class is targets=int(np.argmax(targets))"
        + ("." if a_list else "; for the classes 0 and 1 of the images, pass targets.tolist().")
    )


def _class_index(target: Any, class_names: Sequence[str] | None, classes: int | None) -> int:
    if target is None:
        return TOP_CLASS
    if isinstance(target, bytes):
        target = target.decode("utf-8", "replace")
    if isinstance(target, str):
        return _index_of_name(target, class_names)
    index = _whole_number(target, classes)
    if 0 <= index <= np.iinfo(np.int32).max:
        return index
    remedy = ""
    if isinstance(target, (list, tuple, set, dict)) or getattr(target, "shape", ()) != ():
        remedy = " The class of a one-hot code is int(np.argmax(target))."
    if isinstance(target, (bool, np.bool_)):
        remedy = " True and False are classes only of a model of two."
    raise OptionError(
        "Expected a target as None, a class index, a class name, or one of these per image. "
        f"Received: {target!r:.200} (of type {type(target).__name__}).{remedy}"
    )


def _whole_number(target: Any, classes: int | None) -> int:
    """Return a target as an index; -1 if it is none."""
    if isinstance(target, (bool, np.bool_)):
        return int(target) if classes == _FEW else -1
    try:
        if isinstance(target, (float, np.floating)) or getattr(target, "dtype", None) == "bfloat16":
            return int(target) if float(target).is_integer() else -1
        return operator.index(target)
    except TypeError:
        return -1


def _index_of_name(name: str, class_names: Sequence[str] | None) -> int:
    if class_names is None:
        index = f" For class {name}, pass the int {int(name)}." if name.isdecimal() else ""
        raise OptionError(
            f"The target {name!r} is a class name. Expected class_names=, the names in the order "
            f"of the model's outputs, or the class index as an int.{index}"
        )
    exact = [index for index, each in enumerate(class_names) if str(each) == name]
    plain = [index for index, each in enumerate(class_names) if _plain(each) == _plain(name)]
    found = exact or plain
    if not found:
        raise unknown_option("class name", name, class_names)
    if len(found) > 1:
        raise OptionError(f"The class name {name!r} stands for classes {found}. Pass the index.")
    return found[0]


def _plain(name: str) -> str:
    return str(name).replace("_", " ").casefold()
