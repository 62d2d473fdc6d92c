"""Similarities of two maps: the SIMILARITIES table.

Every entry is a function (a, b) -> (n,) of maps (n, h, w), or of attributions (n, h, w, c). It has
two halves, so that what is compared often is prepared once. A map that is constant or not finite
has no similarity to any other: NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

from ..errors import OptionError
from ..tables import Table, by_name
from .entropy import emprt
from .hog import hog
from .protocol import Similarity
from .rank import pearson, spearman, spearman_signed, top_k_overlap
from .structure import ssim, ssim_adebayo

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
SIMILARITIES: Table[Similarity] = Table(
    "similarity",
    by_name(
        (
            spearman,
            spearman_signed,
            pearson,
            ssim,
            ssim_adebayo,
            hog,
            top_k_overlap,
            emprt,
        )
    ),
    lambda similarity: similarity.description,
)

# What a function that compares maps takes as its similarities: one, or several.
SimilaritiesArgument: TypeAlias = (
    SimilarityName | str | Similarity | Sequence[SimilarityName | str | Similarity]
)

# The names of what the verdict rests on.
RESERVED = ("cosine", "cosine_signed")

__all__ = ["RESERVED", "SIMILARITIES", "SimilaritiesArgument", "Similarity", "resolve_similarities"]


def resolve_similarities(similarities: SimilaritiesArgument) -> tuple[Similarity, ...]:
    """Return the similarities asked for: keys of SIMILARITIES or Similarity objects.

    Raises
    ------
    OptionError
        For an unknown name, or two of one name.
    """
    single = isinstance(similarities, (str, Similarity)) or not isinstance(similarities, Iterable)
    listed: Iterable[Any] = [similarities] if single else similarities  # type: ignore[assignment]
    resolved = [
        each if isinstance(each, Similarity) else SIMILARITIES.named(each) for each in listed
    ]
    for each in resolved:
        if SIMILARITIES.get(each.name, each) is not each:
            raise OptionError(
                f"Expected a name that no other similarity has. Received: {each.name!r}."
            )
    names = [similarity.name for similarity in resolved]
    if len(set(names)) < len(names) or set(names) & set(RESERVED):
        raise OptionError(
            f"Expected similarities of different names, and none of {', '.join(RESERVED)}. "
            f"Received: {names}."
        )
    return tuple(resolved)
