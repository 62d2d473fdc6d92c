"""Read-only tables of named options, such as METHODS, the names of options, and tables of text.

Names are literal types, so that an editor completes them, and are here so that the command line
knows them without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from .errors import unknown_option

T = TypeVar("T")

MethodName = Literal[
    "gradient",
    "guided_backprop",
    "zeiler_fergus",
    "rect_grad",
    "input_x_gradient",
    "smooth_grad",
    "smooth_grad_squared",
    "var_grad",
    "integrated_gradients",
    "expected_gradients",
    "blur_ig",
    "guided_ig",
    "grad_cam",
    "grad_cam_plus_plus",
    "layer_cam",
    "hires_cam",
    "xgrad_cam",
    "score_cam",
    "occlusion",
    "rise",
    "lrp_epsilon",
    "lrp_z_plus",
    "lrp_alpha2_beta1",
    "lrp_epsilon_plus",
    "lrp_epsilon_plus_flat",
    "deep_lift",
    "attention_rollout",
    "generic_attention",
    "legrad",
    "transformer_lrp",
    "guided_grad_cam",
]
ScoreName = Literal["logit", "probability", "log_probability", "margin"]
ReductionName = Literal["sum_abs", "max_abs", "sum"]
RandomizerName = Literal[
    "normal", "truncated_normal", "initializer", "permutation", "matched", "he"
]
SimilarityName = Literal[
    "spearman",
    "spearman_signed",
    "pearson",
    "ssim",
    "ssim_adebayo",
    "hog",
    "top_k_overlap",
    "emprt",
]
MetricName = Literal[
    "pointing_game",
    "relevance_mass",
    "relevance_rank",
    "localization_auc",
    "deletion",
    "deletion_mean",
    "deletion_blur",
    "road",
    "insertion",
    "insertion_mean",
    "pixel_flipping",
    "pixel_flipping_lerf",
    "pixel_flipping_gap",
    "infidelity",
    "sensitivity_n",
    "faithfulness_correlation",
    "average_drop",
    "increase",
    "average_gain",
    "completeness_gap",
    "max_sensitivity",
    "average_sensitivity",
    "sparseness",
    "entropy",
    "effective_complexity",
]
BaselineName = Literal["mean", "blur", "uniform", "linear"]
PlanName = Literal["cascade", "bottom_up", "independent", "all"]
Fit = Literal["crop", "squash"]
PreprocessMode = Literal["none", "unit", "caffe", "tf", "torch"]

DEFAULT_METHODS: tuple[MethodName, ...] = ("gradient", "guided_backprop", "zeiler_fergus")


# Settings of results for records and reports, which are too long to print.
UNPRINTED = ("versions", "weights", "methods")


class Table(Mapping[str, T]):
    """A read-only mapping of names to options; prints one line for each name.

    Parameters
    ----------
    kind
        The option in one word, such as "method", for errors.
    rows
        The options by name.
    describe
        Function from an option to its line; by default, the first line of its docstring.

    Examples
    --------
    >>> print(Table("number", {"one": 1, "eleven": 11}, lambda n: f"{n} is odd"))
    one     1 is odd
    eleven  11 is odd
    """

    def __init__(
        self, kind: str, rows: Mapping[str, T], describe: Callable[[T], str] | None = None
    ) -> None:
        self._kind, self._rows, self._describe = kind, dict(rows), describe or first_line

    def __getitem__(self, name: str) -> T:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._rows

    def __repr__(self) -> str:
        return "\n".join(align([[name, self._describe(row)] for name, row in self.items()]))

    def named(self, name: Any) -> T:
        """Return the option of that name.

        Raises
        ------
        OptionError
            If the name is unknown; the message suggests the nearest and lists all.
        """
        if name not in self:
            raise unknown_option(self._kind, name, self)
        return self._rows[name]


def is_iterable(value: Any) -> bool:
    """Return whether a value has items; arrays without axes only look as if they had."""
    return isinstance(value, Iterable) and getattr(value, "shape", None) != ()


def by_name(rows: Iterable[T]) -> dict[str, T]:
    """Return a dictionary of records, keyed by their attribute `name`."""
    return {row.name: row for row in rows}  # type: ignore[attr-defined]


def first_line(item: Any) -> str:
    """Return the first line of an object's docstring, without "Return" and the period."""
    line = (item.__doc__ or "").strip().split("\n")[0].removeprefix("Return ").removesuffix(".")
    return line[:1].upper() + line[1:]


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a text table with aligned columns.

    >>> align([["a", "1"], ["bc", "2"]])
    ['a   1', 'bc  2']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def code_name(function: Any) -> str:
    """Return where a function or class is defined, such as "package.module:name"."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(named, '__module__', None)}:{named.__qualname__}"


def is_pattern(word: str) -> bool:
    """Return whether a word has a wildcard."""
    return bool(set(word) & set("*?["))


def as_text(name: str) -> str:
    r"""Return a file name with the bytes escaped that are no text.

    >>> as_text("caf\udce9.png")
    'caf\\udce9.png'
    """
    return name.encode("utf-8", "backslashreplace").decode()


def short(value: float) -> str:
    """Format a number as .47, 1.00 or -.20.

    >>> short(0.468), short(1.0), short(-0.2), short(float("nan"))
    ('.47', '1.00', '-.20', 'undefined')
    """
    if not np.isfinite(value):
        return "undefined"
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.2f}"
