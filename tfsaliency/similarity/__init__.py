"""Similarities of two maps: the SIMILARITIES table.

Each entry is a function (a, b) -> (n,) of maps (n, h, w) or attributions (n, h, w, c), split in two
parts so that maps that are compared often are prepared once. The similarity of a map that is
constant or not finite is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from ..errors import OptionError
from ..tables import SimilarityName, Table, by_name, is_iterable
from .entropy import emprt
from .hog import hog
from .protocol import Similarity
from .rank import pearson, spearman, spearman_signed, top_k_overlap
from .structure import ssim, ssim_adebayo

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

# The argument `similarities` of the public functions: one similarity, or several.
SimilaritiesArgument: TypeAlias = (
    SimilarityName | str | Similarity | Sequence[SimilarityName | str | Similarity]
)

# The names of the similarities on which the verdict is based.
RESERVED = ("cosine", "cosine_signed")

__all__ = ["RESERVED", "SIMILARITIES", "SimilaritiesArgument", "Similarity", "resolve_similarities"]


def resolve_similarities(similarities: SimilaritiesArgument) -> tuple[Similarity, ...]:
    """Return similarities given as keys of SIMILARITIES or Similarity objects.

    Raises
    ------
    OptionError
        If a name is unknown or occurs twice.
    """
    single = isinstance(similarities, (str, Similarity)) or not is_iterable(similarities)
    listed: Iterable[Any] = [similarities] if single else similarities  # type: ignore[assignment]
    resolved = [
        each if isinstance(each, Similarity) else SIMILARITIES.named(each) for each in listed
    ]
    for each in resolved:
        if SIMILARITIES.get(each.name, each) is not each:
            raise OptionError(
                f"Expected a name that is not a key of SIMILARITIES. Received: {each.name!r}."
            )
    names = [similarity.name for similarity in resolved]
    if len(set(names)) < len(names) or set(names) & set(RESERVED):
        raise OptionError(
            f"Expected similarities of different names, and none of {', '.join(RESERVED)}. "
            f"Received: {names}."
        )
    return tuple(resolved)
