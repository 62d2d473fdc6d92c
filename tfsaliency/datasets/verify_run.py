"""Verification of the folder of a run: its parts, its source, and a sample of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from ..arrays import batches
from ..display.progress import Progress, Verbose
from ..errors import OptionError, ResultError
from ..methods.table import Method
from ..prepared import Prepared
from ..records.comparison import Difference, compare_values
from .codes import decode_map, largest_error
from .dataset import ExplainedDataset
from .explainer import Decoded, Explainer, Job
from .opening import open_source
from .parts import COLUMNS, UNKNOWN, Rows, digest_file, part_name, read_rows
from .sources import Fetch, Source
from .verification import Standard, Verification, choose_standard

_READERS = 2  # threads
_SHORT = 16  # hex digits


class _Group(NamedTuple):
    """Rows of a part that were computed in one batch."""

    part: int
    rows: list[int]


def verify_run(
    data: ExplainedDataset,
    prepared: Prepared,
    methods: tuple[Method, ...],
    source: Any,
    sample: int | None,
    seed: int,
    differences: list[Difference],
    verbose: Verbose,
) -> Verification:
    """Verify a run; see verify.

    Parameters
    ----------
    data
        The run.
    prepared, methods
        The model and the methods to compare it with.
    source, sample, seed, verbose
        As for verify.
    differences
        What differs in the record.
    """
    manifest = data.manifest
    where = manifest.source.where if source is None else source
    if isinstance(where, str) and not where:
        raise OptionError(
            f"Expected data, the {manifest.source.kind} of the run. Received: none, and the "
            "manifest has no path."
        )
    opened = open_source(where, len(prepared.input_shape) - 1)
    found = [*differences]
    for name in ("images", "digest"):
        now = opened.count if name == "images" else opened.digest
        found += compare_values(f"source.{name}", getattr(manifest.source, name), now)
    damaged, bad = _compare_parts(data)
    found += bad
    whole = data.manifest.source.images
    if whole is not None and len(data) < whole:
        found += compare_values("rows", str(whole), f"{len(data)}, the run is not finished")
    check = _Check(data, opened, _make_job(data, prepared, methods, opened))
    groups = [group for part in data.log if part not in damaged for group in check.groups(part)]
    chosen = _draw(groups, sample, seed)
    for part in damaged:
        try:
            chosen += check.groups(part)
        except ResultError:
            found.append(Difference(f"rows of {part_name(part)}", "readable", "damaged"))
    with Progress(verbose, sum(len(g.rows) for g in chosen), "image", "verification") as progress:
        for difference in check.compare(sorted(chosen), progress):
            found.append(difference)
    count = sum(len(group.rows) for group in chosen)
    words = " and ".join(dict.fromkeys(s.words for s in check.standards.values())) or "bit by bit"
    notes = dict.fromkeys(note for s in check.standards.values() for note in s.notes)
    return Verification(
        f"{data.folder}, {len(data)} images",
        tuple(found),
        f"{len(data.log)} parts by their digests; {count} images computed again, {words}",
        tuple(notes),
    )


def _compare_parts(data: ExplainedDataset) -> tuple[list[int], list[Difference]]:
    """Return the parts whose bytes differ from those that were written, and the differences."""
    damaged, found = [], []
    for number, entry in data.log.items():
        name = part_name(number)
        if entry.device == UNKNOWN and entry.seconds == 0:  # made from the file itself
            found.append(Difference(f"digest of {name}", "in parts.jsonl", "none"))
            continue
        now = digest_file(data.folder / name)
        different = _compare_digests(f"bytes of {name}", entry.sha256, now)
        if different:
            damaged.append(number)
            found += different
    return damaged, found


def _draw(groups: list[_Group], sample: int | None, seed: int) -> list[_Group]:
    """Draw whole batches until they have enough rows."""
    if sample is None:
        return groups
    chosen: list[_Group] = []
    for i in np.random.default_rng(seed).permutation(len(groups)):
        if sum(len(group.rows) for group in chosen) >= sample:
            break
        chosen.append(groups[i])
    return chosen


def _make_job(
    data: ExplainedDataset, prepared: Prepared, methods: tuple[Method, ...], source: Source
) -> Job:
    parameters, names = data.record.parameters, data.manifest.class_names
    size, codes = parameters.get("size"), data.manifest.codes
    return Job(
        prepared,
        methods,
        {method.name: codes[method.name] for method in methods if method.name in codes},
        parameters.get("targets"),
        names,
        names or source.label_names,
        parameters.get("reduction"),
        parameters["fit"],
        None if size is None else tuple(size),
        parameters["batch_size"],
    )


class _Check:
    """The rows of a run, computed again batch by batch."""

    def __init__(self, data: ExplainedDataset, source: Source, job: Job) -> None:
        self._data, self._source, self._job = data, source, job
        self._explainer = Explainer(job)
        self.standards: dict[str, Standard] = {}

    def groups(self, part: int) -> list[_Group]:
        """Return the rows of a part in the batches in which they were computed."""
        known = self._data.log[part].batches
        table = self._data._read(part, ["error"])
        failed = [i for i, error in enumerate(table.column(0).to_pylist()) if error is not None]
        alone = [_Group(part, [i]) for i in failed]
        if known:
            return [_Group(part, list(rows)) for rows in known] + alone
        return self._guess_groups(part) + alone

    def _guess_groups(self, part: int) -> list[_Group]:
        """Return the valid rows of a part whose line of the log is lost, in likely batches."""
        first = self._data.methods[0]
        # Of the struct, pyarrow returns the field alone, or the struct with it.
        table = self._data._read(part, ["error", first if "." in first else f"{first}.shape"])
        errors, maps = (column.to_pylist() for column in table.columns)
        shapes = [value["shape"] if isinstance(value, dict) else value for value in maps]
        valid = [i for i, error in enumerate(errors) if error is None]
        found = []
        for _, run in groupby(valid, key=lambda i: shapes[i]):  # a batch has images of one shape
            same = list(run)
            found += [_Group(part, same[s]) for s in batches(len(same), self._job.batch_size)]
        return found

    def compare(self, groups: Sequence[_Group], progress: Progress) -> Iterator[Difference]:
        """Compute groups, in the order of parts, and yield what differs."""
        left = {part: list(own) for part, own in groupby(groups, key=lambda each: each.part)}
        size = self._data.manifest.part_size
        for part, fetches in self._source.parts(size, set(left)):
            if part not in left:
                continue
            recorded = read_rows(self._data.folder, part)
            for group in left.pop(part):
                with progress.part(len(group.rows)):
                    found = list(self._compare(group, fetches, recorded))
                yield from found
        for part, own in left.items():
            rows = sum(len(group.rows) for group in own)
            yield Difference(f"rows of {part_name(part)}", f"{rows}", "none in the source")

    def _standard(self, part: int) -> Standard:
        device = self._data.log[part].device
        if device not in self.standards:
            self.standards[device] = choose_standard(self._data.record, device)
        return self.standards[device]

    def _compare(
        self, group: _Group, fetches: Sequence[Fetch], recorded: Rows
    ) -> Iterator[Difference]:
        """Yield what differs in the rows of a group."""
        if group.rows[-1] >= len(fetches):
            yield Difference(f"rows of {part_name(group.part)}", "more", f"{len(fetches)}")
            return
        start = group.part * self._data.manifest.part_size
        with ThreadPoolExecutor(_READERS) as readers:
            decoded: list[Decoded] = list(
                readers.map(lambda i: self._explainer.decode(fetches[i], start + i), group.rows)
            )
        done = self._explainer.explain(self._explainer.check(decoded))
        now = self._explainer.encode(done)
        for k, i in enumerate(group.rows):
            yield from self._compare_row(i, recorded, k, now, self._standard(group.part))

    def _compare_row(
        self, i: int, recorded: Rows, k: int, now: Rows, standard: Standard
    ) -> Iterator[Difference]:
        name = recorded.columns["id"][i]
        old, new = ({c: r.columns[c][j] for c in COLUMNS} for r, j in ((recorded, i), (now, k)))
        if old["id"] != new["id"]:  # the rest is that of another image
            yield Difference(f"image {name}", "in this place of the source", new["id"])
            return
        yield from _compare_digests(f"bytes of {name}", old["sha256"], new["sha256"])
        errors = [_plain_error(each, standard) for each in (old, new)]
        yield from compare_values(f"error of {name}", *errors)
        if old["error"] is not None or new["error"] is not None:
            return
        if old["sha256"] == new["sha256"] and old["pixels"] != new["pixels"]:
            # Another version of Pillow: the maps are those of another image.
            yield from _compare_digests(f"decoded pixels of {name}", old["pixels"], new["pixels"])
            return
        yield from compare_values(f"target of {name}", old["target"], new["target"])
        before, after = (np.asarray(each["score"], np.float32) for each in (old, new))
        if not standard.accepts(before, after):
            yield Difference(f"score of {name}", f"{before:.9g}", f"{after:.9g}")
        for method in now.maps:
            pair = recorded.maps[method][i], now.maps[method][k]
            yield from self._compare_map(f"map {method} of {name}", method, *pair, standard)

    def _compare_map(
        self, name: str, method: str, old: Any, new: Any, standard: Standard
    ) -> Iterator[Difference]:
        if old == new:
            return
        if old is None or new is None:
            yield Difference(name, *("none" if each is None else "a map" for each in (old, new)))
            return
        code = self._job.codes[method]
        before, after = (decode_map(m["codes"], m["peak"], m["shape"], code) for m in (old, new))
        # Two codes may lie on either side of the same value.
        if standard.accepts(before, after, 2 * largest_error(code)):
            return
        gap = float(np.abs(before - after).max()) if before.shape == after.shape else np.nan
        yield Difference(name, f"peak {old['peak']:.3g}", f"others, by up to {gap:.3g}")


def _plain_error(row: Mapping[str, Any], standard: Standard) -> str | None:
    """Return the error of a row without its path; other versions may word it otherwise."""
    if row["error"] is None or standard.tolerance:
        return None if row["error"] is None else "an error"
    return str(row["error"]).replace(row["path"] or "\0", "")


def _compare_digests(name: str, recorded: str | None, found: str | None) -> list[Difference]:
    """Compare the beginnings of two digests."""
    return compare_values(name, str(recorded)[:_SHORT], str(found)[:_SHORT])
