"""How alike two maps are, and what each number means: the SIMILARITIES table.

Every entry is a function (a, b) -> (n,) of maps (n, h, w), or of attributions (n, h, w, c). It has
two halves, so that what is compared often is prepared once. A map that is constant or not finite
is like nothing: NaN.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import OptionError, unknown_option
from .entropy import emprt
from .hog import hog
from .kinds import Similarity
from .rank import pearson, spearman, spearman_signed, top_k_overlap
from .structure import ssim, ssim_adebayo

SIMILARITIES: dict[str, Similarity] = {
    similarity.name: similarity
    for similarity in (
        spearman,
        spearman_signed,
        pearson,
        ssim,
        ssim_adebayo,
        hog,
        top_k_overlap,
    )
}

# What the verdict rests on has these names in a result.
RESERVED = ("cosine", "cosine_signed")

__all__ = ["RESERVED", "SIMILARITIES", "Similarity", "emprt", "resolve_similarities"]


def resolve_similarities(
    similarities: str | Similarity | Iterable[str | Similarity],
) -> tuple[Similarity, ...]:
    """Return the similarities asked for: keys of SIMILARITIES or Similarity objects.

    Raises
    ------
    OptionError
        For an unknown name, or two of one name.
    """
    single = isinstance(similarities, (str, Similarity)) or not isinstance(similarities, Iterable)
    resolved: list[Similarity] = []
    for entry in [similarities] if single else list(similarities):
        if not isinstance(entry, Similarity) and entry not in SIMILARITIES:
            raise unknown_option("similarity", entry, SIMILARITIES)
        if isinstance(entry, Similarity) and SIMILARITIES.get(entry.name, entry) is not entry:
            raise OptionError(
                f"Expected a name that no other similarity has. Received: {entry.name!r}."
            )
        resolved.append(entry if isinstance(entry, Similarity) else SIMILARITIES[entry])
    names = [similarity.name for similarity in resolved]
    if len(set(names)) < len(names) or set(names) & set(RESERVED):
        raise OptionError(
            f"Expected similarities of different names, and none of {', '.join(RESERVED)}. "
            f"Received: {names}."
        )
    return tuple(resolved)
