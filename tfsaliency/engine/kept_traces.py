"""Traces that are kept from call to call, until the model changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras

from ..methods.table import Method, needs_sizes
from .build import build_trace, serves
from .fingerprint import Fingerprint
from .gradients import Trace
from .model_io import Batch, has_visible_layers
from .subject import Subject

_KEPT = 32  # traces of a model, some 20 MB each: enough for all rows of METHODS
# One thread at a time makes traces; any thread runs them.
tracing = threading.RLock()


@dataclass(eq=False)
class KeptTraces:
    """The traces of a model and its fingerprint when they were made, without the model.

    Parameters
    ----------
    fingerprint
        The fingerprint of the model; None before the first trace.
    traces
        The traces by key, the last used one at the end.
    sizes
        Whether the trace for any size serves a size of images, by key and size.
    """

    fingerprint: Fingerprint | None = None
    traces: OrderedDict[Hashable, Trace] = field(default_factory=OrderedDict)
    sizes: dict[Hashable, bool] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget all traces."""
        with tracing:
            self.traces.clear()
            self.sizes.clear()

    def find(
        self,
        key: tuple[Hashable, ...],
        methods: Sequence[Method],
        batch: Batch,
        describe: Callable[[Batch], Subject],
    ) -> Trace:
        """Return the trace of methods for a batch; make it if there is none.

        One trace serves images of any size if the model declares sizes of None. Class activation
        maps and masks are placed in images of one size, so they have a trace for each.

        Parameters
        ----------
        key
            All that a trace depends on, but for the shapes of the batch.
        methods, batch
            The methods and the batch.
        describe
            Function from a batch to the subject of its trace.
        """
        model = describe(batch).model
        with tracing:
            if self.fingerprint is None or not self.fingerprint.matches(model):
                self.clear()
            any_size = None if any(map(needs_sizes, methods)) else batch.of_any_size()
            if any_size is not None and self._serves_any_size(key, methods, any_size, describe):
                batch = any_size
            return self._kept((*key, *batch.signature), methods, batch, describe(batch))

    def _serves_any_size(
        self,
        key: tuple[Hashable, ...],
        methods: Sequence[Method],
        batch: Batch,
        describe: Callable[[Batch], Subject],
    ) -> bool:
        """Return whether the trace for any size computes what the model does for this one.

        Code of the caller may read a size that is known, so all layers must be Keras's own. Their
        outputs are compared too, once for each size.
        """
        seen = (*key, batch.signature, tuple(array.shape[1:] for array in batch.arrays))
        if seen not in self.sizes and not _runs_only_keras(describe(batch).model):
            self.sizes[seen] = False
        if seen not in self.sizes:
            try:
                subject = describe(batch)
                trace = self._kept((*key, *batch.signature), methods, batch, subject)
                self.sizes[seen] = serves(trace, subject, batch)
            except Exception:  # the trace for the known size tells what is wrong
                self.sizes[seen] = False
        return self.sizes[seen]

    def _kept(
        self, key: Hashable, methods: Sequence[Method], batch: Batch, subject: Subject
    ) -> Trace:
        if key not in self.traces:
            self.traces[key] = build_trace(subject, methods, batch)
            if len(self.traces) > _KEPT:
                self.traces.popitem(last=False)
            self.fingerprint = Fingerprint(subject.model)
        self.traces.move_to_end(key)
        return self.traces[key]


def _runs_only_keras(model: Any) -> bool:
    """Return whether a model runs no code of the caller, and none of Keras that needs sizes.

    TimeDistributed of a sequence of unknown length returns wrong outputs in a graph.
    """
    if not has_visible_layers(model):
        return False
    for operation in getattr(model, "operations", model.layers):
        if isinstance(operation, keras.Model):
            known = _runs_only_keras(operation)
        else:
            special = isinstance(operation, (keras.layers.Lambda, keras.layers.Wrapper))
            parts = (operation, *vars(operation).values())
            known = not special and all(map(_is_of_keras, parts))
        if not known:
            return False
    return True


def _is_of_keras(value: Any) -> bool:
    """Return whether a value is no code, or code of Keras or TensorFlow."""
    if isinstance(value, partial):
        return _is_of_keras(value.func)
    module = getattr(value, "__module__", None) or type(value).__module__
    known = ("keras", "tensorflow", "builtins")
    return not callable(value) or str(module).partition(".")[0] in known
