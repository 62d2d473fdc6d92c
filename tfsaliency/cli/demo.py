"""The command `tfsaliency demo`: all features, on generated pictures with a known answer."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from ..display.progress import Verbose
from ..evaluation import Evaluation, evaluate
from ..evaluation.verdict import CHANCE
from ..maps import saliency_map
from ..saliency_maps import SaliencyMaps
from ..sanity import SanityResult, data_randomization_check, sanity_check
from ..synthetic import CLASSES, GroundTruth, make_shapes, permuted_label_models, shapes_model
from ..tables import DEFAULT_METHODS, align
from ..visualization.evaluation_figures import plot_evaluation, tile_ground_truth
from ..visualization.sanity_figures import plot_similarities, tile_cascade
from .output import claimed_folder, tell, write_figure, write_text

_SEED = 3  # training and test used others
_PICTURES, _CHECKED, _SHOWN = 500, 8, 4
_METRICS = """\
pointing_game     1 if the largest value of the map lies in the object
relevance_mass    fraction of the map's sum inside the object
relevance_rank    fraction of the k largest values inside the object, which has k pixels
localization_auc  probability that a pixel inside the object has a larger value than one outside
chance            mean for a map with shuffled pixels
random_map, edge_map, x_times_noise, center_blob: noise, the edges of the picture, the picture times
noise, and a centered blob; these controls use no network."""
_FILES = """\
report.txt        this text
pictures.png      pictures, with the outline of the object, and their maps
cascade.png       maps of the first picture while more and more layers are randomized
similarities.png  similarity of these maps to those of the trained network
metrics.png       metrics of methods and controls
metrics.csv       metrics of every picture
maps.npz          the drawn maps: tfsaliency.SaliencyMaps.load
cascade.npz, permuted.npz  the two checks: tfsaliency.SanityResult.load
metrics.npz       the evaluation: tfsaliency.Evaluation.load"""
_MIND = """\
A map can explain the network's decision only if it depends on the network. A map that does not
depend on it may still find the object."""


def run(arguments: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    files = re.findall(r"\w+\.(?:txt|png|csv|npz)", _FILES)
    with claimed_folder(arguments, files) as out:
        demonstrate(out, tell, "auto")
    tell(f"Wrote report.txt, 4 pictures and the numbers to {arguments.out}")
    return 0


def demonstrate(out: Path, say: Callable[[str], None], verbose: Verbose) -> None:
    """Explain pictures of shapes, check the methods, measure their maps, and write the results.

    Parameters
    ----------
    out
        The output folder, which is made if necessary.
    say
        Function that receives each part of the text.
    verbose
        Progress, as for saliency_map.
    """
    out.mkdir(parents=True, exist_ok=True)
    parts: list[str] = []

    def add(title: str, text: object) -> None:
        part = f"{title}\n{'=' * len(title)}\n{text}\n"
        parts.append(part)
        say(part)

    model, data, methods = shapes_model(), make_shapes(_PICTURES, _SEED), DEFAULT_METHODS
    shown, few = _first(data, _SHOWN), _first(data, _CHECKED)

    maps = saliency_map(model, shown.images, methods, targets=shown.labels, verbose=verbose)
    maps.save(out / "maps.npz")
    add("The network's answers", _draw_pictures(out, shown, maps))

    cascade = sanity_check(model, few.images, methods, targets=few.labels, verbose=verbose)
    cascade.save(out / "cascade.npz")
    write_figure(tile_cascade(cascade), out / "cascade.png")
    write_figure(plot_similarities(cascade), out / "similarities.png")
    add("Do the maps depend on the network's weights?", cascade)

    others = permuted_label_models()
    permuted = data_randomization_check(
        model, few.images, methods, permuted=others, targets=few.labels, verbose=verbose
    )
    permuted.save(out / "permuted.npz")
    add("Do they depend on the labels that it learned?", permuted)

    evaluation = evaluate(model, data, methods, verbose=verbose)
    evaluation.save(out / "metrics.npz")
    evaluation.to_csv(out / "metrics.csv")
    write_figure(plot_evaluation(evaluation), out / "metrics.png")
    add("Do they find the relevant pixels?", f"{_METRICS}\n\n{evaluation}")

    title = "Summary: do the maps depend on the network, and find the relevant pixels?"
    add(title, f"{_summary(cascade, permuted, evaluation)}\n\n{_MIND}")
    add("The files", _FILES)
    write_text(out / "report.txt", "\n".join(parts))


def _first(data: GroundTruth, n: int) -> GroundTruth:
    return GroundTruth(data.images[:n], data.labels[:n], data.masks[:n])


def _draw_pictures(out: Path, shown: GroundTruth, maps: SaliencyMaps) -> str:
    """Draw pictures and their maps, and return a table of the network's answers."""
    captions = [
        f"{CLASSES[k]} ({outputs[k]:.0%})"
        for outputs, k in zip(maps.outputs, maps.outputs.argmax(axis=-1), strict=True)
    ]
    title = "Pictures, the network's answers, and its maps; blue: outline of the relevant pixels"
    figure = tile_ground_truth(shown, maps, captions, title)
    write_figure(figure, out / "pictures.png")
    rows = [["picture", "class", "network's answer"]]
    rows += [[str(i), CLASSES[k], captions[i]] for i, k in enumerate(shown.labels)]
    return f"{_table(rows)}\n\n{maps.coverage}"


def _summary(cascade: SanityResult, permuted: SanityResult, evaluation: Evaluation) -> str:
    """Return a table of the verdicts, and of the metrics in which each method wins."""
    rows = [["", "upper layers", "labels", "beats chance", "beats the edges", "is beaten by"]]
    for method in cascade.methods:
        verdicts = [result.verdicts[method][result.headline or 0] for result in (cascade, permuted)]
        beaten = [
            f"{control} by {count}"
            for control in evaluation.controls
            if (count := _wins(evaluation, control, method))
        ]
        rows.append(
            [method]
            + [verdict.verdict.partition(" on ")[0] for verdict in verdicts]
            + [
                f"by {_wins(evaluation, method, other)} of {len(evaluation.metrics)} metrics"
                for other in (CHANCE, "edge_map")
            ]
            + [", ".join(beaten) or "no control"]
        )
    return _table(rows)


def _wins(evaluation: Evaluation, method: str, other: str) -> int:
    """Return the number of metrics in which a method is better than another."""
    return sum(evaluation.difference(method, other, m).sign > 0 for m in evaluation.metrics)


def _table(rows: list[list[str]]) -> str:
    return "\n".join(align(rows))
