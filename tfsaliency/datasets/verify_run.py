"""Verification of the folder of a run: its parts, its source, and a sample of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from ..arrays import batches
from ..display.progress import Progress, Verbose
from ..errors import OptionError
from ..methods.table import Method
from ..prepared import Prepared
from ..records.comparison import Difference, compare_values
from .codes import decode_map, largest_error
from .dataset import ExplainedDataset
from .explainer import Decoded, Explainer, Job
from .opening import open_source
from .parts import Rows, digest_file, part_name, read_rows
from .sources import Fetch, Source
from .verification import Standard, Verification, choose_standard

_READERS = 2  # threads
# Columns to compare, and what they are.
_COMPARED = {"id": "id", "sha256": "bytes", "target": "target", "error": "error"}


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
    chosen = _draw(groups, sample, seed) + [g for part in damaged for g in check.groups(part)]
    count = 0
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
        different = compare_values(
            f"bytes of {name}", entry.sha256[:16], digest_file(data.folder / name)[:16]
        )
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
        table = self._data._read(part, ["error"])
        valid = [i for i, error in enumerate(table.column("error").to_pylist()) if error is None]
        last = {i: k for k, rows in enumerate(self._data.log[part].again) for i in rows}
        found = []
        for k in (None, *sorted(set(last.values()))):
            rows = [i for i in valid if last.get(i) == k]
            found += [_Group(part, rows[s]) for s in batches(len(rows), self._job.batch_size)]
        return found

    def compare(self, groups: Sequence[_Group], progress: Progress) -> Iterator[Difference]:
        """Compute groups, in the order of parts, and yield what differs."""
        wanted = {group.part for group in groups}
        size = self._data.manifest.part_size
        for part, fetches in self._source.parts(size, wanted):
            if part in wanted:
                recorded = read_rows(self._data.folder, part)
                for group in (each for each in groups if each.part == part):
                    with progress.part(len(group.rows)):
                        found = list(self._compare(group, fetches, recorded))
                    yield from found

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
        pixels = [str(r.columns["pixels"][j])[:16] for r, j in ((recorded, i), (now, k))]
        for column, what in _COMPARED.items():
            old, new = recorded.columns[column][i], now.columns[column][k]
            if what == "bytes":
                old, new = str(old)[:16], str(new)[:16]
                decoded_otherwise = old == new and pixels[0] != pixels[1]
            yield from compare_values(f"{what} of {name}", old, new)
        if decoded_otherwise:
            yield Difference(f"decoded pixels of {name}", *pixels)
        if decoded_otherwise or now.columns["error"][k] is not None:
            return
        scores = recorded.columns["score"][i], now.columns["score"][k]
        old, new = (np.asarray(score, np.float32) for score in scores)
        if not standard.accepts(old, new):
            yield Difference(f"score of {name}", f"{old:.9g}", f"{new:.9g}")
        for method in now.maps:
            pair = recorded.maps[method][i], now.maps[method][k]
            yield from self._compare_map(f"map {method} of {name}", method, *pair, standard)

    def _compare_map(
        self, name: str, method: str, old: Any, new: Any, standard: Standard
    ) -> Iterator[Difference]:
        if old == new or old is None or new is None:
            return
        code = self._job.codes[method]
        before, after = (decode_map(m["codes"], m["peak"], m["shape"], code) for m in (old, new))
        # Two codes may lie on either side of the same value.
        if standard.accepts(before, after, 2 * largest_error(code)):
            return
        gap = float(np.abs(before - after).max()) if before.shape == after.shape else np.nan
        yield Difference(name, f"peak {old['peak']:.3g}", f"others, by up to {gap:.3g}")
