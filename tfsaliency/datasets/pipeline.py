"""The pipeline of a run: threads read and decode ahead, and another encodes and writes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

from .explainer import Checked, Decoded, Done, Explainer
from .parts import PartEntry, Rows, entry_of_file, forget_entry, read_rows, writing_part
from .sources import Fetch

T = TypeVar("T")

_NICE = 19  # the lowest priority
_AHEAD = 2  # batches that are decoded before they are needed
_UNWRITTEN = 2  # batches that wait to be encoded


@dataclass(frozen=True, eq=False)
class Task:
    """A part to compute, or rows of a finished part to compute again.

    Parameters
    ----------
    number
        The number of the part.
    elements
        The numbers of its elements in the source, and the functions that fetch them.
    again
        The positions in the part of the rows to compute again; None for all.
    before
        The batches of earlier calls.
    """

    number: int
    elements: list[tuple[int, Fetch]]
    again: list[int] | None = None
    before: Sequence[Sequence[int]] = ()


class Pipeline:
    """Computes and writes parts.

    Parameters
    ----------
    explainer
        The explainer.
    folder, schema
        The folder and the schema of the parts.
    workers
        The number of threads that read and decode.
    device
        The processor or GPU in words.
    batch_size
        The number of images of a batch.
    """

    def __init__(
        self,
        explainer: Explainer,
        folder: Path,
        schema: Any,
        workers: int,
        device: str,
        batch_size: int,
    ) -> None:
        self._explainer, self._folder, self._schema = explainer, folder, schema
        self._workers, self._device = workers, device
        self._ahead = _AHEAD * batch_size

    def run(
        self, tasks: Iterable[Task], on_batch: Callable[[Rows], None] = lambda rows: None
    ) -> Iterator[PartEntry]:
        """Compute tasks, and yield the log's entry of each part that has been written.

        Parameters
        ----------
        tasks
            The tasks in increasing order of parts.
        on_batch
            Function that receives the rows of each batch.
        """
        with (
            ThreadPoolExecutor(self._workers, initializer=_give_way) as readers,
            ThreadPoolExecutor(1, initializer=_give_way) as checker,
            ThreadPoolExecutor(1, initializer=_give_way) as writer,
        ):
            written: Future[PartEntry] | None = None
            try:
                checked = _one_ahead(self._check(tasks, readers), checker)
                for task, own in groupby(checked, key=lambda pair: pair[0]):
                    last = written
                    written = self._compute(task, (each for _, each in own), writer, on_batch)
                    if last is not None:
                        yield last.result()
                if written is not None:
                    yield written.result()
            finally:
                for pool in (readers, checker):  # the writer puts a complete part in place
                    pool.shutdown(wait=False, cancel_futures=True)

    def _check(
        self, tasks: Iterable[Task], readers: ThreadPoolExecutor
    ) -> Iterator[tuple[Task, Checked]]:
        """Yield the batches of each task, decoded and checked."""
        decoded = self._decode_ahead(tasks, readers)
        for task, own in groupby(decoded, key=lambda pair: pair[0]):
            for batch in self._explainer.batches(each for _, each in own):
                yield task, self._explainer.check(batch)

    def _decode_ahead(
        self, tasks: Iterable[Task], readers: ThreadPoolExecutor
    ) -> Iterator[tuple[Task, Decoded]]:
        waiting: deque[tuple[Task, Future[Decoded]]] = deque()
        for task in tasks:
            for number, fetch in task.elements:
                waiting.append((task, readers.submit(self._explainer.decode, fetch, number)))
                if len(waiting) > self._ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
        for first, future in waiting:
            yield first, future.result()

    def _compute(
        self,
        task: Task,
        batches: Iterator[Checked],
        writer: ThreadPoolExecutor,
        on_batch: Callable[[Rows], None],
    ) -> Future[PartEntry]:
        start = time.monotonic()
        computed: list[Sequence[int]] = list(task.before)
        places = task.again or range(len(task.elements))
        first = 0
        encoding: deque[Future[Rows]] = deque()
        with ExitStack() as stack:
            add = stack.enter_context(self._open_part(task))
            stack.callback(wait, encoding)  # before the part is closed
            for batch in batches:
                done = self._explainer.explain(batch)
                if done.valid:
                    computed.append([places[first + i] for i in done.valid])
                first += len(done.decoded)
                encoding.append(writer.submit(self._encode, done, add))
                while len(encoding) > _UNWRITTEN:
                    on_batch(encoding.popleft().result())
            while encoding:
                on_batch(encoding.popleft().result())
            seconds = round(time.monotonic() - start, 3)
            return writer.submit(self._finish, stack.pop_all(), task.number, computed, seconds)

    @contextmanager
    def _open_part(self, task: Task) -> Iterator[Callable[[Rows], None]]:
        """Write a part; rows that are computed again replace those of the file."""
        with writing_part(self._folder, task.number, self._schema) as write:
            if task.again is None:
                yield write
                return
            rows, places = read_rows(self._folder, task.number), iter(task.again)

            def put(new: Rows) -> None:
                own = list(islice(places, len(new.columns["id"])))
                for old, given in ((rows.columns, new.columns), (rows.maps, new.maps)):
                    for name, column in old.items():
                        for place, value in zip(own, given[name], strict=True):
                            column[place] = value

            yield put
            forget_entry(self._folder, task.number)
            write(rows)

    def _encode(self, done: Done, add: Callable[[Rows], None]) -> Rows:
        """Encode and write the maps of a batch; return its rows without them."""
        rows = self._explainer.encode(done)
        add(rows)
        return Rows(rows.columns)

    def _finish(
        self, part: ExitStack, number: int, computed: list[Sequence[int]], seconds: float
    ) -> PartEntry:
        """Put a part in place."""
        part.close()
        entry = entry_of_file(self._folder, number)
        return replace(entry, seconds=seconds, device=self._device, batches=computed)


def _give_way() -> None:
    """Let TensorFlow's threads go first: each of them waits for the slowest."""
    with contextlib.suppress(AttributeError, OSError):  # not on Linux
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _one_ahead(items: Iterator[T], thread: ThreadPoolExecutor) -> Iterator[T]:
    """Yield items, while a thread fetches the next one."""
    waiting = thread.submit(next, items, None)
    while (item := waiting.result()) is not None:
        waiting = thread.submit(next, items, None)
        yield item
