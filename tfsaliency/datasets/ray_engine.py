"""Runs on Ray: actors that load the model once, and compute the parts that are missing.

Parts are the unit of work, so that nothing is computed twice, and an actor that dies is replaced
and its part given again. Ray's core is enough: Ray Data would add a reader and a scheduler of its
own, which waits in silence if there are fewer CPUs than operators.
"""

from __future__ import annotations

import functools
import math
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ..engine.kept_traces import KeptTraces
from ..errors import ImageError, ModelError, OptionError, check_int, check_number, one_line
from ..records import digest_model, name_device
from ..records.comparison import compare_models
from .explainer import Explainer, Job
from .manifest import Manifest
from .parts import PartEntry, Rows, make_schema, part_name
from .pipeline import Pipeline, Task
from .sources import Element, Fetch

_READERS = 1  # threads of an actor that decode
_SHARED = ("TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL")  # variables of the environment
_RESTARTS = 20  # of an actor that dies


@dataclass(frozen=True)
class RayEngine:
    """The processes of a run on Ray.

    Parameters
    ----------
    workers
        The number of processes; each has the model.
    address
        The address of a cluster, such as "auto"; None starts Ray on this machine, or uses that
        which the program has started. On a cluster, the folder must be one that all nodes share.
    num_cpus, num_gpus
        The CPUs and GPUs of a process; a part of a GPU may be given, such as 0.5.

    Examples
    --------
    >>> import tfsaliency as tfs
    >>> tfs.RayEngine(workers=4, num_gpus=1).num_cpus
    1
    """

    workers: int = 1
    address: str | None = None
    num_cpus: float = 1
    num_gpus: float = 0

    def __post_init__(self) -> None:
        check_int("workers", self.workers, 1)
        check_number("num_cpus", self.num_cpus, 0, above=True)
        check_number("num_gpus", self.num_gpus, 0)


def run_on_ray(
    engine: RayEngine,
    job: Job,
    folder: Path,
    manifest: Manifest,
    tasks: Iterator[Task],
    on_batch: Callable[[Rows], None],
) -> Iterator[PartEntry]:
    """Compute tasks on Ray, and yield the entry of each part that has been written.

    Raises
    ------
    OptionError
        If there are fewer CPUs or GPUs than the workers need, or the source cannot be sent.
    ModelError
        If the model cannot be saved, or is another one when it is loaded.
    ImportError
        If Ray is missing.
    """
    ray = _import_ray()
    model = _pack(job)
    started = not ray.is_initialized()
    if started:
        ray.init(
            engine.address, log_to_driver=False, logging_level="warning", include_dashboard=False
        )
    try:
        _check_resources(engine, ray.cluster_resources())
        remote = ray.remote(
            num_cpus=engine.num_cpus,
            num_gpus=engine.num_gpus,
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
            runtime_env={"env_vars": {k: os.environ[k] for k in _SHARED if k in os.environ}},
        )(_Worker)
        # Without the model, which travels as a file, and its compiled functions.
        bare = replace(job.prepared, model=_absent, _kept=KeptTraces())
        packed = ray.put((model, replace(job, prepared=bare)))
        actors = [
            remote.remote(packed, folder, manifest, math.ceil(engine.num_cpus))
            for _ in range(engine.workers)
        ]
        yield from _distribute(ray, actors, tasks, folder, on_batch)
    finally:
        if started:
            ray.shutdown()


def _import_ray() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ImportError(
            "Expected Ray for engine='ray'. Received: an environment without it. Install it: "
            "pip install ray."
        ) from error
    return ray


def _absent(images: Any) -> Any:
    """Stand for the model of a job while it is sent."""
    raise ModelError("Expected the model of the job. Received: none.")


def _check_resources(engine: RayEngine, resources: dict[str, float]) -> None:
    """Raise OptionError if actors would wait forever."""
    for kind, each in (("CPU", engine.num_cpus), ("GPU", engine.num_gpus)):
        needed, there = engine.workers * each, resources.get(kind, 0)
        if needed > there:
            raise OptionError(
                f"Expected workers that fit: {engine.workers} need {needed:g} {kind}s, {each:g} "
                f"each. Received: a cluster of {there:g}. Give fewer workers."
            )


def _pack(job: Job) -> bytes:
    """Return the bytes of the model's file."""
    model = job.prepared.model
    if not isinstance(model, keras.Model):
        raise ModelError(
            "Expected a keras.Model for engine='ray', to be sent to its processes. Received: "
            f"{type(model).__name__}."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            model.save(path)
        except Exception as error:  # of custom layers
            raise ModelError(
                "Expected a model that model.save can write for engine='ray'. Received: "
                f"{model.name!r} ({one_line(error)})."
            ) from error
        return path.read_bytes()


def _unpack(data: bytes) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(data)
        return keras.saving.load_model(path)


class _Worker:
    """A process with the model."""

    def __init__(self, packed: Any, folder: Path, manifest: Manifest, threads: int) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        data, job = packed
        model = _unpack(data)
        different = compare_models(manifest.record.model, digest_model(model))
        if different:
            raise ModelError(f"The model is another one when it is loaded: {different[0]}.")
        job = replace(job, prepared=replace(job.prepared, model=model))
        self._pipeline = Pipeline(
            Explainer(job),
            folder,
            make_schema(manifest.codes),
            _READERS,
            name_device(),
            job.batch_size,
        )

    def compute(self, task: Task) -> tuple[PartEntry, Rows]:
        """Compute and write a part; return its entry, and its rows without maps."""
        seen: list[Rows] = []
        (entry,) = self._pipeline.run([task], lambda rows: seen.append(Rows(rows.columns)))
        columns = seen[0].columns
        return entry, Rows({name: [v for s in seen for v in s.columns[name]] for name in columns})


def _distribute(
    ray: Any,
    actors: list[Any],
    tasks: Iterator[Task],
    folder: Path,
    on_batch: Callable[[Rows], None],
) -> Iterator[PartEntry]:
    """Give each actor a task at a time, and yield entries as they come."""
    free = deque(actors)
    working: dict[Any, Any] = {}
    left = True
    while left or working:
        while left and free:
            task = next(tasks, None)
            if task is None:
                left = False
                break
            actor = free.popleft()
            working[_send(actor, task)] = actor
        if not working:
            break
        ready, _ = ray.wait(list(working), num_returns=1)
        entry, rows = _receive(ray, ready[0])
        free.append(working.pop(ready[0]))
        if not (folder / part_name(entry.part)).exists():
            raise OptionError(
                f"Expected a folder that all nodes of the cluster share. Received: {folder}, where "
                f"{part_name(entry.part)} of a worker is missing."
            )
        on_batch(rows)
        yield entry


def _send(actor: Any, task: Task) -> Any:
    # The elements themselves, and not the source to fetch them from.
    elements = [(number, _fetched(fetch)) for number, fetch in task.elements]
    try:
        return actor.compute.remote(replace(task, elements=elements))
    except (TypeError, ValueError, AttributeError) as error:  # of pickle
        raise OptionError(
            "Expected a source that can be sent to other processes: files, Parquet, arrays, or a "
            f"Hugging Face data set. Received: {one_line(error, 200)}"
        ) from error


def _fetched(fetch: Fetch) -> Fetch:
    """Return a function that returns what another one has returned, or raises its error."""
    try:
        return functools.partial(_give, fetch())
    except Exception as error:  # of the caller's source
        return functools.partial(_fail, f"{type(error).__name__}: {one_line(error)}")


def _give(element: Element) -> Element:
    return element


def _fail(text: str) -> Element:
    raise ImageError(text)


def _receive(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.as_instanceof_cause() from error
