"""The demonstration: everything this package does, on pictures of its own with a known answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .data_randomization import data_randomization_check
from .maps import gradient_map
from .methods import DEFAULT_METHODS
from .reports import plot_evaluation, plot_similarities, tile_cascade, tile_world
from .sanity import sanity_check
from .tables import aligned
from .worlds import CHANCE, CLASSES, Evaluation, World, evaluate, shapes, shapes_model, shapes_twins

_SEED = 3  # the networks were trained and tested on others
_PICTURES, _CHECKED, _SHOWN = 500, 8, 4
_PNG_DPI = 150
_SCORES = """\
pointing_game     how often the largest value of the map lies in the object
relevance_mass    the part of the map's sum that lies in the object
relevance_rank    of as many largest values as the object has pixels, the part that lies in it
localisation_auc  how probably a pixel of the object has a larger value than one outside
chance            what a map whose pixels were shuffled has on average
random_map, edge_map, x_times_noise, centre_blob: noise, the edges of the picture, the picture times
noise, and a blob in the middle; they have seen no network."""
_FILES = """\
report.txt        all that is printed here
pictures.png      pictures, with a line around the object, and their maps
cascade.png       maps of the first picture, as more and more layers get new weights
similarities.png  how alike these maps are to those of the trained network
scores.png        the table of scores
scores.csv        the score of every picture
maps.npz          the maps that are drawn: tfsaliency.SaliencyMaps.load
cascade.json, permuted.json  the two checks: tfsaliency.SanityResult.load"""
_MIND = """\
"Depends" is what a map needs that is to say why the network decided; without it, a map may still
find the object."""


def _table(rows: list[list[str]]) -> str:
    return "\n".join(aligned(rows))


def _wins(scores: Evaluation, method: str, other: str) -> int:
    """Return by how many scores a method is better than another."""
    return sum(scores.difference(method, other, score).sign > 0 for score in scores.scores)


def demonstrate(out: Path, say: Callable[[str], None], verbose: int) -> None:
    """Explain pictures of shapes, check the methods, score their maps, and write all of it.

    Parameters
    ----------
    out
        The folder, made if need be.
    say
        What gets each part of the text, as it is ready.
    verbose
        1 for progress bars, 0 for none.
    """
    out.mkdir(parents=True, exist_ok=True)
    parts: list[str] = []

    def tell(title: str, text: object) -> None:
        part = f"{title}\n{'=' * len(title)}\n{text}\n"
        parts.append(part)
        say(part)

    model, world = shapes_model(), shapes(_PICTURES, _SEED)
    shown, few = (World(*(array[:n] for array in world)) for n in (_SHOWN, _CHECKED))
    methods = DEFAULT_METHODS

    maps = gradient_map(model, shown.images, methods, targets=shown.labels)
    maps.save(out / "maps.npz")
    captions = [
        f"{CLASSES[k]} ({outputs[k]:.0%})"
        for outputs, k in zip(maps.outputs, maps.outputs.argmax(axis=-1), strict=True)
    ]
    title = "Pictures, the network's answers, and its maps; blue: what makes the class"
    tile_world(shown, maps, captions, title).savefig(out / "pictures.png", dpi=_PNG_DPI)
    rows = [["picture", "is", "network says"]]
    rows += [[str(i), CLASSES[k], captions[i]] for i, k in enumerate(shown.labels)]
    tell("What the network says", f"{_table(rows)}\n\n{maps.coverage}")

    cascade = sanity_check(model, few.images, methods, targets=few.labels, verbose=verbose)
    cascade.to_json(out / "cascade.json")
    tile_cascade(cascade).savefig(out / "cascade.png", dpi=_PNG_DPI)
    plot_similarities(cascade).savefig(out / "similarities.png", dpi=_PNG_DPI)
    tell("Do the maps depend on the network's weights?", cascade)

    permuted = data_randomization_check(
        model, few.images, methods, permuted=shapes_twins(), targets=few.labels, verbose=verbose
    )
    permuted.to_json(out / "permuted.json")
    tell("Do they depend on what it learned?", permuted)

    scores = evaluate(model, world, methods)
    scores.to_csv(out / "scores.csv")
    plot_evaluation(scores).savefig(out / "scores.png", dpi=_PNG_DPI)
    tell("Do they find what makes the class?", f"{_SCORES}\n\n{scores}")

    rows = [
        ["", "upper layers", "what it learned", "beats chance", "beats the edges", "is beaten by"]
    ]
    for method in methods:
        verdicts = [result.verdicts[method][result.headline or 0] for result in (cascade, permuted)]
        beaten = [
            f"{control} by {count}"
            for control in scores.controls
            if (count := _wins(scores, control, method))
        ]
        rows.append(
            [method]
            + [verdict.verdict.partition(" on ")[0] for verdict in verdicts]
            + [
                f"by {_wins(scores, method, other)} of {len(scores.scores)} scores"
                for other in (CHANCE, "edge_map")
            ]
            + [", ".join(beaten) or "no control"]
        )
    title = "In short: do the maps depend on the network, and find what matters?"
    tell(title, f"{_table(rows)}\n\n{_MIND}")
    tell("The files", _FILES)
    (out / "report.txt").write_text("\n".join(parts), encoding="utf-8")
