"""The command line: tfsaliency demo, tfsaliency map PHOTO... --out DIR, and tfsaliency check."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import keras
import numpy as np

from .arrays import REDUCTIONS, Array, batches
from .demo import demonstrate
from .draws import DRAWS
from .errors import OptionError, TfSaliencyError, WeightsError
from .maps import SaliencyMaps, concatenate, gradient_map
from .methods import DEFAULT_METHODS, METHODS
from .models.loading import (
    PREPROCESS_MODES,
    LoadedModel,
    imagenet_labels,
    load_model,
    preprocess_mode,
)
from .photos import FITS, load_images
from .prepared import Prepared, prepare
from .problems import Problem
from .randomization import PLANS, Plan
from .reports import plot_similarities, tile_cascade, tile_input_and_maps
from .sanity import sanity_check
from .scores import SCORES, as_targets
from .similarity import SIMILARITIES
from .version import __version__

_ALL = "all"  # of METHODS
_BATCH = 8
_PNG_DPI = 150
_SIGNS = {"sum": "; red raises it, blue lowers it"}
_ONE_PERCENT = 0.005  # what rounds to it
_NAMED = 3  # photos in a warning
_CHECK_PICTURES = ("curves", "maps")
_ROUNDING = 1e-3  # how far the sum of probabilities may be from 1


class _Job(NamedTuple):
    """What one run of `map` does to every batch of photos."""

    prepared: Prepared
    labels: list[str] | None
    methods: Sequence[str]
    target: Any
    reduction: str | None
    fit: str
    top: int
    out: Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        The arguments; those of the process by default.

    Returns
    -------
    0, or 2 if something that was given is bad; then one line on standard error says what. Photos
    that are good are done in any case.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except TfSaliencyError as error:
        return _complain(error)
    except OSError as error:
        return _complain(f"Cannot write to {arguments.out}: {error.strerror or error}.")


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tfsaliency", description="Saliency maps of Keras image networks.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser(
        "demo",
        help="show everything on generated pictures, without a network connection",
        description="Explain pictures of which it is known what matters, check whether the maps "
        "depend on the network's weights and labels, score them against the true masks, and write "
        "pictures, tables and numbers to a folder. Takes less than a minute.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where to write")
    add.set_defaults(run=_demo)
    add = commands.add_parser(
        "map",
        help="draw the saliency maps of photos",
        description="Classify photos, compute their saliency maps, and write a picture of each "
        "photo and all the maps as numbers (maps.npz) to a folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_common(add)
    add.add_argument(
        "--reduction",
        choices=REDUCTIONS,
        help="how channels become one; by default each method's own way",
    )
    add.add_argument("--top", type=number, default=1, metavar="N", help="classes to print")
    add.set_defaults(run=_map)
    add = commands.add_parser(
        "check",
        help="check whether maps depend on the network's weights",
        description="Draw the weights of a network anew, layer by layer, compare the maps with "
        "those of the trained network, print a verdict on each method, and write result.json, "
        "curves.png and maps.png to a folder. Give 8 photos or more, of different things.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_common(add)
    add.add_argument(
        "--plan", nargs="+", default=["cascade"], metavar="PLAN",
        help=f"{', '.join(PLANS)}, or names of layers, a step each; a+b for two in one step",
    )  # fmt: skip
    add.add_argument(
        "--draw", choices=DRAWS, default="own_initializer", help="how weights are drawn"
    )
    add.add_argument(
        "--similarities", nargs="+", choices=SIMILARITIES, default=["spearman", "ssim"],
        metavar="SIMILARITY", help=f"reported beside the verdict, of {', '.join(SIMILARITIES)}",
    )  # fmt: skip
    add.add_argument("--seeds", type=number, default=4, metavar="N", help="random networks a step")
    add.set_defaults(run=_check)
    return parser


def _add_common(add: argparse.ArgumentParser) -> None:
    """Add what every command on photos takes."""
    add.add_argument("photos", nargs="+", metavar="PHOTO", help="image files")
    add.add_argument(
        "--model",
        default="squeezenet",
        help="squeezenet, the name of a keras.applications model, or a .keras or .h5 file",
    )
    add.add_argument(
        "--weights", metavar="FILE", help="weights of a model by name, else downloaded"
    )
    add.add_argument(
        "--preprocess",
        choices=PREPROCESS_MODES,
        help="what the model expects; by default its own, and none for a file",
    )
    add.add_argument(
        "--methods", nargs="+", choices=[*METHODS, _ALL], default=DEFAULT_METHODS,
        metavar="METHOD", help=f"{', '.join(DEFAULT_METHODS)} by default; of "
        f"{', '.join(METHODS)}, or {_ALL}; give the photos first",
    )  # fmt: skip
    add.add_argument("--score", choices=SCORES, default="logit", help="what is differentiated")
    add.add_argument(
        "--labels", type=Path, metavar="FILE", help="class names, one a line; ImageNet's by default"
    )
    add.add_argument("--target", help="class index or name; by default each photo's top class")
    add.add_argument("--fit", choices=FITS, default="crop", help="how photos get the model's size")
    add.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")


def _demo(arguments: argparse.Namespace) -> int:
    out = arguments.out
    _check_out(out, [])
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # progress bars
        demonstrate(
            out, lambda text: print(text, file=stdout, flush=True), int(sys.stderr.isatty())
        )
    print(f"Wrote report.txt, 4 pictures and the numbers to {out}")
    return 0


def _methods(arguments: argparse.Namespace) -> Sequence[str]:
    return list(METHODS) if _ALL in arguments.methods else arguments.methods


def _load(arguments: argparse.Namespace) -> tuple[LoadedModel, Prepared]:
    loaded = load_model(arguments.model, arguments.weights)
    preprocess = loaded.preprocess
    if arguments.preprocess:
        preprocess = preprocess_mode(arguments.preprocess)
    return loaded, prepare(loaded.model, score=arguments.score, preprocess=preprocess)


def _check(arguments: argparse.Namespace) -> int:
    loaded, prepared = _load(arguments)
    out = arguments.out
    _check_out(out, [(photo, name) for photo in arguments.photos for name in _CHECK_PICTURES])
    problems: list[TfSaliencyError] = []
    photos = list(_picture_names(arguments.photos).items())
    if len(photos) < len(arguments.photos):
        _say("warning: a photo that is given more than once counts once")
    read = _read(photos, prepared, arguments.fit, problems)
    if read:
        terminal = sys.stderr.isatty()
        target = _target(arguments.target)
        labels = _labels(loaded, arguments.labels) if isinstance(target, str) else None
        with contextlib.redirect_stdout(sys.stderr):
            result = sanity_check(
                prepared,
                np.concatenate([pixels for _, _, pixels in read]),
                _methods(arguments),
                plan=_plan(arguments.plan),
                draw=arguments.draw,
                similarities=arguments.similarities,
                seeds=arguments.seeds,
                targets=None if target is None else as_targets(target, len(read), labels),
                on_problem="ignore",  # they are printed below, with the names of the photos
                verbose=int(terminal),
            )
        result = replace(result, images=tuple(photo for photo, _, _ in read))
        out.mkdir(parents=True, exist_ok=True)
        result.to_json(out / "result.json")
        for name, draw in zip(_CHECK_PICTURES, (plot_similarities, tile_cascade), strict=True):
            draw(result).savefig(out / f"{name}.png", dpi=_PNG_DPI, bbox_inches="tight")
        for problem in result.problems:
            _say(f"warning: {problem.describe(_named(problem, result.images))}")
        print(f"{result}\n\nWrote result.json, curves.png and maps.png to {out}")
    return max([_complain(problem) for problem in problems], default=0)


def _plan(words: list[str]) -> Plan:
    """Return the plan that is meant: one of PLANS, or a list of layers and pairs of layers.

    >>> _plan(["cascade"]), _plan(["fc1+fc2", "fc2"])
    ('cascade', [['fc1', 'fc2'], ['fc2']])
    """
    if len(words) == 1 and words[0] in PLANS:
        return words[0]
    return [word.split("+") for word in words]


def _map(arguments: argparse.Namespace) -> int:
    loaded, prepared = _load(arguments)
    job = _Job(
        prepared,
        _labels(loaded, arguments.labels),
        _methods(arguments),
        _target(arguments.target),
        arguments.reduction,
        arguments.fit,
        arguments.top,
        arguments.out,
    )
    photos = list(_picture_names(arguments.photos).items())
    _check_out(job.out, photos)
    job.out.mkdir(parents=True, exist_ok=True)
    done: list[SaliencyMaps] = []
    lines: list[str] = []
    problems: list[TfSaliencyError] = []
    # What is found is printed at the end, so that it does not cut through the progress bar.
    with _progress(len(photos)) as advance:
        for part in batches(len(photos), _BATCH):
            read = _read(photos[part], job.prepared, job.fit, problems)
            if read:
                maps, found = _explain(job, read)
                done.append(maps)
                lines += found
            advance(part.stop)
    if done:
        joined = concatenate(done)
        joined.save(job.out / "maps.npz")
        lines.append(str(joined.coverage))
        lines.append(
            f"Wrote {len(joined.names)} of {len(photos)} pictures, and maps.npz, to {job.out}"
        )
        for problem in joined.problems:
            _say(f"warning: {problem.describe(_named(problem, joined.names))}")
    print("\n".join(lines), end="\n" if lines else "")
    return max([_complain(problem) for problem in problems], default=0)


def _check_out(out: Path, photos: list[tuple[str, str]]) -> None:
    """See that there can be a folder to write to, and that no picture would replace a photo."""
    if out.exists() and not out.is_dir():
        raise OptionError(f"Expected a folder to write to as --out. Received: the file {out}.")
    given = {Path(photo).resolve() for photo, _ in photos}
    for _, name in photos:
        if (out / f"{name}.png").resolve() in given:
            raise OptionError(
                f"The picture {out / name}.png would replace the photo of that name. "
                "Expected another folder as --out."
            )


def _read(
    photos: list[tuple[str, str]], prepared: Prepared, fit: str, problems: list[TfSaliencyError]
) -> list[tuple[str, str, Array]]:
    """Read what can be read: (path, picture's name, (1, h, w, c)); collect what cannot."""
    read = []
    for photo, name in photos:
        try:
            read.append((photo, name, load_images(photo, prepared, fit=fit)))
        except TfSaliencyError as error:
            problems.append(error)
    return read


def _explain(job: _Job, read: list[tuple[str, str, Array]]) -> tuple[SaliencyMaps, list[str]]:
    images = np.concatenate([pixels for _, _, pixels in read])
    maps = replace(
        gradient_map(
            job.prepared,
            images,
            job.methods,
            targets=job.target,
            labels=job.labels,
            reduction=job.reduction,
            batch_size=_BATCH,
            on_problem="ignore",  # they are printed at the end, with the names of the photos
        ),
        names=tuple(photo for photo, _, _ in read),
    )
    lines, signs = [], _SIGNS.get(job.reduction or "", "")
    for i, (photo, name, _) in enumerate(read):
        outputs = maps.outputs[i]
        ranked = np.argsort(outputs)[::-1][: job.top]
        captions = (_caption(job.labels, outputs, k) for k in ranked)
        lines.append(f"{photo}: {', '.join(captions)}")
        figure = tile_input_and_maps(
            images[i],
            [maps[method][i] for method in maps],
            [_caption(job.labels, outputs, maps.targets[i]), *maps],
            title=f"Gradient attribution maps of the {maps.score}{signs}",
        )
        figure.savefig(job.out / f"{name}.png", dpi=_PNG_DPI, bbox_inches="tight")
    return maps, lines


def _caption(labels: Sequence[str] | None, outputs: Array, index: int) -> str:
    """Name a class with its confidence, as the original's title does: "English setter (64%)"."""
    name = labels[index] if labels else f"class {index}"
    value = float(outputs[index])
    if len(outputs) == 1:  # one output is no class: of a sigmoid it tells between two
        return f"output {value:.4g}"
    if outputs.min() < 0 or abs(float(outputs.sum()) - 1) > _ROUNDING:  # no softmax
        return f"{name} ({value:.4g})"
    return f"{name} (<1%)" if value < _ONE_PERCENT else f"{name} ({value:.0%})"


def _target(text: str | None) -> int | str | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return text


def _labels(loaded: LoadedModel, path: Path | None) -> list[str] | None:
    if path is not None:
        try:
            return path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"Cannot read --labels {path}: expected one name a line.") from error
    if not loaded.imagenet:
        return None
    try:
        return imagenet_labels()
    except WeightsError as error:
        _complain(f"{error}. Classes are printed as numbers.")
        return None


def _picture_names(photos: Sequence[str]) -> dict[str, str]:
    """Return a name for each photo's picture: its own, numbered where two are called the same.

    >>> _picture_names(["a/dog.jpg", "b/dog.jpg", "cat.png"])
    {'a/dog.jpg': 'dog', 'b/dog.jpg': 'dog-2', 'cat.png': 'cat'}
    """
    names: dict[str, str] = {}
    for photo in photos:
        stem, number = Path(photo).stem, 1
        name = stem
        while name in names.values():
            number += 1
            name = f"{stem}-{number}"
        names.setdefault(photo, name)
    return names


@contextlib.contextmanager
def _progress(photos: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error if there are photos to wait for and a terminal."""
    if photos <= _BATCH or not sys.stderr.isatty():
        yield lambda done: None
        return
    with contextlib.redirect_stdout(sys.stderr):
        bar = keras.utils.Progbar(photos, unit_name="photo")
        yield bar.update


def number(text: str) -> int:
    """Read a whole number from 1; argparse calls it by this name."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, received {text}")
    return int(text)


def _named(problem: Problem, photos: Sequence[str]) -> str:
    """Return the photos that a problem concerns, the first three by name."""
    named = ", ".join(photos[i] for i in problem.images[:_NAMED])
    return f"{named}, ... ({len(problem.images)})" if len(problem.images) > _NAMED else named


def _complain(problem: object) -> int:
    _say(problem)
    return 2


def _say(message: object) -> None:
    print("tfsaliency:", " ".join(str(message).split()), file=sys.stderr)
