"""explain_dataset: maps of a whole data set, in parts, which is stopped and continued at will."""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from ..diagnostics import SaliencyWarning
from ..display.progress import Progress, Verbose
from ..engine.functions import Model
from ..engine.scores import Score
from ..errors import ErrorLimitError, OptionError, ResultError, check_choice, check_flag, check_int
from ..image_io import FITS
from ..maps import name_methods
from ..methods.plain import describe_value
from ..methods.table import MethodsArgument, resolve_methods, with_layer
from ..prepared import Prepared, Preprocess, as_prepared
from ..records import digest_model, name_device
from ..records.making import make_record
from ..tables import Fit, ReductionName, ScoreName
from .arrow import import_pyarrow
from .codes import MapDtype, choose_code
from .dataset import ExplainedDataset, open_dataset
from .explainer import FROM_SOURCE, Explainer, Job
from .folder import claim, locked
from .manifest import Manifest, SourceRecord
from .opening import open_source
from .parts import (
    COLUMNS,
    PartEntry,
    Rows,
    add_missing_lines,
    append_entry,
    digest_ids,
    make_schema,
    part_name,
    read_table,
)
from .pipeline import Pipeline, Task
from .ray_engine import RayEngine, run_on_ray
from .sources import Fetch, ListedSource, Source

Engine = Literal["local", "ray"]
_WORKERS = 2  # threads that decode
_DTYPES = ("uint8", "float16")


def explain_dataset(
    model: Model | Prepared,
    source: Any,
    out: str | PathLike[str],
    methods: MethodsArgument = "gradient",
    *,
    targets: Any = None,
    class_names: Sequence[str] | None = None,
    score: ScoreName | Score | None = None,
    preprocess: Preprocess | None = None,
    reduction: ReductionName | None = None,
    layer: Any = None,
    fit: Fit = "crop",
    size: tuple[int, int] | None = None,
    batch_size: int = 32,
    part_size: int = 256,
    dtype: MapDtype = "uint8",
    engine: Engine | RayEngine = "local",
    workers: int | None = None,
    retry_errors: bool = False,
    max_errors: int | None = None,
    verbose: Verbose = "auto",
) -> ExplainedDataset:
    """Compute the saliency maps of a data set of any size, and write them to a folder.

    The folder gets manifest.json and Parquet files of part_size rows, part-000000.parquet and so
    on. A part is put in place when it is complete, and never touched again. If the process is
    stopped, even by kill -9, the same call continues with the parts that are missing, and the
    result is the same to the bit. An image that cannot be read or explained is a row with its
    error. Needs pyarrow: pip install pyarrow.

    Parameters
    ----------
    model, methods, class_names, score, preprocess, reduction, layer, batch_size, verbose
        As for saliency_map.
    source
        A folder (all photos below it; the first folder is the label), a pattern with
        wildcards, a text file of one path a line, a CSV file with a column "path" and perhaps
        "id" and "label", Parquet files with a column of image bytes, a list of paths, a Hugging
        Face data set, a TFDS or other tf.data.Dataset, a keras.utils.PyDataset, or an iterable of
        images (h, w, c), (id, image), (image, label), (id, image, label) or mappings of these.
        Images are arrays, PIL images, or the bytes of a file. A stream without a known length is
        read from its beginning to continue.
    out
        The folder. It may have an earlier run with the same options, which is continued.
    targets
        The class to explain: None (each image's top class), an index or name for all images, or
        "labels" for those of the source. Labels by name stand for class_names, or, without these,
        for the sorted names of the class folders, as in keras.utils.image_dataset_from_directory.
    fit, size
        As for load_images; arrays must have the model's size.
    part_size
        The number of images of a part, at most what a stop loses.
    dtype
        "uint8" stores the square root of each value in a byte, with the largest value beside it;
        "float16" needs twice the space. Both keep the order of values, see docs/datasets.md.
    engine
        "local" computes in this process. "ray", or a RayEngine for a cluster, gives the missing
        parts to processes that each load the model once; needs pip install ray.
    workers
        The number of threads that decode (by default 2), or of Ray's processes (by default 1).
    retry_errors
        Whether to compute the rows with errors of finished parts again, and nothing else of them.
    max_errors
        The number of images that may fail in this call; None for any number, but not all of the
        first part.

    Returns
    -------
    ExplainedDataset, which reads the rows and the maps.

    Raises
    ------
    ModelError, OptionError
        As for saliency_map; OptionError also if the folder has a run with other options, naming
        what differs, or the source has no images.
    ErrorLimitError
        If more than max_errors images failed, or, without it, all images of the first part. What
        is done is kept.
    ImportError
        If pyarrow or Ray is missing.

    References
    ----------
    See saliency_map.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> data = tfs.synthetic.make_shapes(6, seed=0)
    >>> images = [(f"shape {i}", image) for i, image in enumerate(data.images)]
    >>> maps = tfs.explain_dataset(tfs.synthetic.shapes_model(), images, "shapes_maps", "grad_cam")
    >>> len(maps), maps.maps(["shape 4"])["grad_cam"].shape
    (6, (1, 64, 64))
    """
    resolved = with_layer(resolve_methods(methods), layer)
    prepared = as_prepared(model, resolved, score, preprocess)
    check_choice("fit", fit, FITS)
    check_choice("dtype", dtype, _DTYPES)
    check_flag("retry_errors", retry_errors)
    for name, value in (("batch_size", batch_size), ("part_size", part_size)):
        check_int(name, value, 1)
    if workers is not None:
        check_int("workers", workers, 1)
    if max_errors is not None:
        check_int("max_errors", max_errors, 0)
    clash = sorted({method.name for method in resolved} & set(COLUMNS))
    if clash:
        raise OptionError(
            f"Expected method names that differ from those of columns. Received: {clash}."
        )
    on_ray = engine if isinstance(engine, RayEngine) else None
    if on_ray is None:
        check_choice("engine", engine, ("local", "ray"))
        on_ray = RayEngine(workers or 1) if engine == "ray" else None
    if isinstance(targets, (list, tuple)) or getattr(targets, "shape", ()) != ():
        raise OptionError(
            "Expected targets as None, one class for all images, or 'labels' for those of the "
            f"source. Received: {type(targets).__name__}."
        )
    import_pyarrow()
    opened = open_source(source, len(prepared.input_shape) - 1)
    names = () if class_names is None else tuple(map(str, class_names))
    codes = {m.name: choose_code(m, reduction, dtype) for m in resolved}
    job = Job(
        prepared, resolved, codes, targets, names, names or opened.label_names,
        reduction, fit, size, batch_size,
    )  # fmt: skip
    folder = Path(out).absolute()
    if opened.where and os.path.realpath(opened.where) == os.path.realpath(folder):
        raise OptionError(
            f"Expected out as a folder of its own. Received: {folder}, that of the source."
        )
    with locked(folder):
        manifest = claim(folder, _make_manifest(job, opened, part_size))
        run = _Run(job, opened, folder, manifest, on_ray, workers or _WORKERS)
        run.execute(retry_errors, max_errors, verbose)
    if run.problems:
        counts = ", ".join(f"{cause} of {n}" for cause, n in run.problems.most_common())
        warnings.warn(
            f"Maps mean little for some images: {counts}. The column problems has them.",
            SaliencyWarning,
            stacklevel=2,
        )
    return open_dataset(folder)


def _make_manifest(job: Job, source: Source, part_size: int) -> Manifest:
    """Return the manifest of a new run."""
    parameters = {
        "targets": describe_value(job.targets),
        "reduction": job.reduction,
        "fit": job.fit,
        "size": None if job.size is None else list(job.size),
        "batch_size": job.batch_size,
        "label_names": list(job.label_names) if job.targets == FROM_SOURCE else None,
    }
    model = digest_model(job.prepared.model)
    record = make_record(job.prepared, "explain_dataset", job.methods, parameters, None, model)
    about = SourceRecord(source.kind, source.where, source.count, source.digest)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(about, record, part_size, job.codes, job.class_names, now)


@dataclass(eq=False)
class _Run:
    """One call of explain_dataset."""

    job: Job
    source: Source
    folder: Path
    manifest: Manifest
    ray: RayEngine | None
    workers: int
    errors: int = 0
    first_error: str = ""
    problems: Counter[str] = field(default_factory=Counter)

    def execute(self, retry_errors: bool, max_errors: int | None, verbose: Verbose) -> None:
        """Compute what is missing."""
        log = self.manifest.read_log(self.folder)
        add_missing_lines(self.folder, log)
        if not self.source.digest and self.source.count is not None:
            self._compare_samples(log)
        total, done = self.source.count or 0, sum(entry.rows for entry in log.values())
        failed = sum(entry.errors for entry in log.values())
        label = name_methods(self.job.methods)
        with Progress(verbose, total, "image", label) as progress:
            progress.skip(done)
            start = time.monotonic()
            count = 0

            def on_batch(rows: Rows) -> None:
                nonlocal count
                new = rows.columns["error"]
                count += len(new)
                failures = [error for error in new if error is not None]
                self.errors += len(failures)
                self.first_error = self.first_error or next(iter(failures), "")
                self.problems.update(
                    problem.partition(":")[0]
                    for listed in rows.columns["problems"]
                    for problem in listed or ()
                )
                rate = count / max(time.monotonic() - start, 1e-9)
                known = 0 if retry_errors else failed
                progress.remark = f"{rate:.3g} images/s, {known + self.errors} errors"
                progress.advance(len(new))

            tasks = self._tasks(log, retry_errors)
            entries = self._entries(tasks, on_batch)
            for entry in entries:
                append_entry(self.folder, entry)
                self._check_errors(count, max_errors, retry_errors)
            if not done and not count:
                raise OptionError(f"Expected images in the {self.source.kind}. Received: none.")
        if count and not isinstance(self.source, ListedSource):
            ids = open_dataset(self.folder).table(["id"]).column("id")
            if len(ids.unique()) < len(ids):
                raise ResultError(
                    f"Expected each id once. Received: {len(ids) - len(ids.unique())} repeated "
                    f"ids. All rows are in {self.folder}; maps are found by the last one of an id."
                )

    def _check_errors(self, count: int, max_errors: int | None, retry_errors: bool) -> None:
        """Raise ErrorLimitError if too many of the images of this call have errors."""
        if max_errors is not None and self.errors > max_errors:
            raise ErrorLimitError(
                f"Expected at most {max_errors} images with errors. Received: {self.errors}. The "
                f"parts that are done are in {self.folder}, and say why."
            )
        if max_errors is None and self.errors == count > 1 and not retry_errors:
            raise ErrorLimitError(
                f"Expected images that can be explained. Received: {count}, of which all have "
                f"errors, the first: {self.first_error:.300} Mend the source or the options, in "
                "another folder; or give max_errors, to go on."
            )

    def _entries(self, tasks: Iterator[Task], on_batch: Any) -> Iterator[PartEntry]:
        if self.ray is not None:
            return run_on_ray(self.ray, self.job, self.folder, self.manifest, tasks, on_batch)
        pipeline = Pipeline(
            Explainer(self.job),
            self.folder,
            make_schema(self.manifest.codes),
            self.workers,
            name_device(),
            self.job.batch_size,
        )
        return pipeline.run(tasks, on_batch)

    def _tasks(self, log: dict[int, PartEntry], retry_errors: bool) -> Iterator[Task]:
        """Yield the missing parts, and, to retry, those with errors."""
        size = self.manifest.part_size
        retried = {n for n, entry in log.items() if retry_errors and entry.errors}
        wanted, unseen = None, set(log)
        if self.source.count is not None:
            count = -(-self.source.count // size)
            wanted = (set(range(count)) - set(log)) | retried
        for number, fetches in self.source.parts(size, wanted):
            elements = list(enumerate(fetches, number * size))
            entry = log.get(number)
            unseen.discard(number)
            if entry is not None and wanted is None:
                self._compare_ids(entry, elements)
            if entry is None:
                yield Task(number, elements)
            elif number in retried:
                column = read_table(self.folder, number, ["error"]).column("error")
                again = [i for i, error in enumerate(column.to_pylist()) if error is not None]
                yield Task(number, [elements[i] for i in again], again, entry.batches)
        if wanted is None and unseen:
            raise ResultError(
                f"Expected the images of {part_name(min(unseen))}. Received: a source that ends "
                "before them. Give the same source, or another folder."
            )

    def _compare_samples(self, log: dict[int, PartEntry]) -> None:
        """Raise ResultError if the first image of the first or last part is another one now."""
        explainer = Explainer(self.job)
        for number in {min(log), max(log)} if log else ():
            ((_, fetches),) = self.source.parts(self.manifest.part_size, {number})
            now = explainer.decode(fetches[0], number * self.manifest.part_size)
            row = read_table(self.folder, number, ["id", "sha256"]).slice(0, 1).to_pylist()[0]
            if (now.element.id, now.sha256 or None) != (row["id"], row["sha256"]):
                raise ResultError(
                    f"Expected {row['id']!r:.60} as the first image of {part_name(number)}, with "
                    f"the same pixels. Received: {now.element.id!r:.60}, or others. Give the same "
                    "source, or another folder."
                )

    def _compare_ids(self, entry: PartEntry, elements: Any) -> None:
        """Raise ResultError if a stream yields other images than those of a finished part."""
        ids = [_fetch_id(*element) for element in elements]
        if digest_ids(ids) != entry.ids:
            raise ResultError(
                f"Expected the images of {part_name(entry.part)}, in their order. Received: "
                f"{len(ids)} others, from {ids[0]!r:.60} on. Give the same source, or another "
                "folder."
            )


def _fetch_id(number: int, fetch: Fetch) -> str:
    """Return the id of an element; its number if it cannot be fetched, as in its row."""
    try:
        return fetch().id
    except Exception:  # of the caller's source
        return str(number)
