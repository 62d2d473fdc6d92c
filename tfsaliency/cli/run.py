"""The command `tfsaliency run`: maps of a data set of any size, in parts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..datasets import ExplainedDataset, RayEngine, explain_dataset, open_dataset
from ..errors import ErrorLimitError, OptionError
from .options import choose_methods, load, load_class_names, parse_target
from .output import complain, say, tell

LIMIT_EXCEEDED = 3  # exit code
_SHOWN = 5  # errors


def run(arguments: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    loaded, prepared = load(arguments)
    names = load_class_names(arguments, loaded)
    out: Path = arguments.out
    try:
        data = explain_dataset(
            prepared,
            arguments.photos if len(arguments.photos) > 1 else arguments.photos[0],
            out,
            choose_methods(arguments),
            targets=parse_target(arguments),
            class_names=names,
            reduction=arguments.reduction,
            fit=arguments.fit,
            size=None if arguments.size is None else tuple(arguments.size),
            batch_size=arguments.batch_size,
            part_size=arguments.part_size,
            dtype=arguments.dtype,
            engine=_engine(arguments),
            workers=arguments.workers,
            retry_errors=arguments.retry_errors,
            max_errors=arguments.max_errors,
        )
    except ErrorLimitError as error:
        complain(error)
        _say_errors(open_dataset(out))
        return LIMIT_EXCEEDED
    except KeyboardInterrupt as interrupt:
        done = len(open_dataset(out))
        raise KeyboardInterrupt(
            f"the maps of {done} images are in {out}; the same command continues"
        ) from interrupt
    _say_errors(data)
    failed = f", {data.errors} with errors" if data.errors else ""
    parts = f"{len(data.log)} part{'' if len(data.log) == 1 else 's'}"
    tell(f"{out} has the maps of {len(data)} images{failed}, in {parts}")
    return 0


def _engine(arguments: argparse.Namespace) -> Any:
    if arguments.engine == "local":
        if arguments.gpus or arguments.address:
            raise OptionError("Expected --engine ray beside --gpus and --address. Received: local.")
        return "local"
    return RayEngine(arguments.workers or 1, arguments.address, num_gpus=arguments.gpus)


def _say_errors(data: ExplainedDataset) -> None:
    """Print the first errors."""
    if not data.errors:
        return
    table = data.table(["id", "path", "error"])
    rows = [row for row in table.to_pylist() if row["error"] is not None]
    for row in rows[:_SHOWN]:
        named = row["path"] and row["error"].startswith(row["path"])
        say(f"error: {row['error']}" if named else f"error: {row['id']}: {row['error']}")
    if len(rows) > _SHOWN:
        say(f"and {len(rows) - _SHOWN} more, in the column error; --retry-errors tries them again")
